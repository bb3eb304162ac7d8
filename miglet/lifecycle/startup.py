"""The start: from the bootstrap to the controller's acknowledgement.

Pure, like every rule; which one holds in which state is in `table`.
"""

from __future__ import annotations

from typing import Any

from miglet import errors
from miglet.lifecycle.effects import Effect, Emit, GiveOrder, Post
from miglet.lifecycle.job import Step
from miglet.lifecycle.runner import provide_runner
from miglet.lifecycle.shutdown import answer_open_commands, drain, fail, shut_down
from miglet.lifecycle.vm import End, Moment, State, Vm
from miglet.messages.events import Error, VMStarted
from miglet.messages.facts import (
    EventDelivered,
    EventRefused,
    PreflightDone,
    SettingsLoaded,
    SettingsRefused,
    StartContinued,
)
from miglet.messages.orders import WatchRunner

#: Seconds without a controller after which a machine registers with the token that
#: lies in its metadata.
UNATTENDED_SECONDS = 30.0


def resume(vm: Vm, fact: SettingsLoaded, moment: Moment) -> Step:
    """A MIGlet of this boot was interrupted: go on where it was."""
    if vm.resumed_from is None:
        return vm, []
    if vm.flushing:
        return deliver_the_rest(vm, moment), []
    error = Error(
        category="infrastructure",
        code="miglet_restarted",
        message="MIGlet was started again during this boot and took over",
        component="supervisor",
    )
    known = vm.failed_start is not None and vm.failed_start.repeats > 0
    reports = [] if known else [Emit(error)]
    lost = answer_open_commands(vm)
    vm = vm.enter(State.WAITING_FOR_CONTROLLER, moment, commands={})
    watch: list[Effect] = []
    if vm.runner:
        watch = [GiveOrder(WatchRunner(vm.runner["run_id"]))]
    return vm, [*reports, *lost, *watch, Post(StartContinued())]


def deliver_the_rest(vm: Vm, moment: Moment) -> Vm:
    """The last event is in the journal: deliver, register nothing, and end."""
    return vm.enter(State.SHUTTING_DOWN, moment, flushing_since=moment.now)


def announce_machine(vm: Vm, fact: PreflightDone, moment: Moment) -> Step:
    """Tell the controller that the machine is there, or why it cannot be used."""
    faults = [each for each in fact.report if each["status"] == "fail"]
    vm = vm.replace(timeline={**vm.timeline, **fact.machine["timeline"]})
    vm = vm.mark("preflight", moment)
    if faults:
        return fail(vm, *_preflight_errors(faults), moment)
    announced = vm.announced
    vm = vm.enter(State.WAITING_FOR_CONTROLLER, moment, announced=True)
    if announced:
        return vm, [Post(StartContinued())]
    machine = {**fact.machine, "timeline": vm.timeline}
    return vm, [Emit(VMStarted(preflight=fact.report, **machine))]


def _preflight_errors(faults: list[dict[str, Any]]) -> tuple[list[Error], int]:
    found = [
        Error(each["category"], each["id"], each["detail"], "bootstrap", each["hint"])
        for each in faults
    ]
    misconfigured = all(each.category == "misconfig" for each in found)
    return found, errors.MISCONFIGURED if misconfigured else errors.UNAVAILABLE


def refuse_settings(vm: Vm, fact: SettingsRefused, moment: Moment) -> Step:
    """Nothing can be done with this configuration but to report it."""
    found = [
        Error(
            category="misconfig",
            code="invalid_setting",
            message=f"{each['key']} ({each['source']}): {each['reason']}",
            component="config",
            hint=each["hint"],
        )
        for each in fact.faults
    ]
    if vm.flushing:
        return deliver_the_rest(vm, moment), []
    return fail(vm, found, fact.exit_status, moment)


def go_on(vm: Vm, fact: StartContinued, moment: Moment) -> Step:
    """Go on in a boot that another MIGlet began; an end that it decided still holds.

    What it may have registered is used or replaced: never one beside it.
    """
    if vm.end:
        finishing = vm.resumed_from is State.DRAINING and not vm.finished
        return (drain if finishing else shut_down)(vm, vm.end, moment)
    if vm.runner or not vm.acknowledged:
        return vm, []
    return provide_runner(vm, moment, keep_registration=True)


def start_acknowledged(vm: Vm, fact: EventDelivered, moment: Moment) -> Step:
    """The acknowledgement of VMStarted lets the machine register."""
    if fact.type != "VMStarted":
        return vm, []
    vm = vm.replace(acknowledged=True).mark("acknowledged", moment)
    return (vm, []) if vm.runner else provide_runner(vm, moment)


def note_delivery(vm: Vm, fact: EventDelivered, moment: Moment) -> Step:
    """VMStarted may be acknowledged after a runner was registered or adopted."""
    if fact.type != "VMStarted":
        return vm, []
    return vm.replace(acknowledged=True), []


def refuse_start(vm: Vm, fact: EventRefused, moment: Moment) -> Step:
    """A controller that refuses VMStarted does not want this machine.

    A job that runs by then may finish.
    """
    if fact.type != "VMStarted":
        return vm, []
    error = Error(
        category="permanent",
        code="start_refused",
        message=f"the controller refused VMStarted with {fact.status}: {fact.answer}",
        component="controller",
        hint="is this vm_id known to the controller, and the endpoint the right one?",
    )
    if vm.job or vm.state is State.DRAINING:
        vm, effects = drain(vm, End(error.code, "miglet", errors.REFUSED), moment)
        return vm, [Emit(error), *effects]
    return fail(vm, [error], errors.REFUSED, moment)


def give_up(vm: Vm, moment: Moment) -> Step:
    """The controller has been unavailable for longer than it may."""
    error = Error(
        category="infrastructure",
        code="controller_unavailable",
        message=f"no acknowledgement within {vm.policy.give_up_after:g} s",
        component="controller",
        hint="see controller.give_up_after",
    )
    return fail(vm, [error], errors.UNAVAILABLE, moment)
