"""The rules of the start: from the bootstrap to the controller's acknowledgement.

Pure, like every rule; which one holds in which state, the table in `lifecycle` tells.
"""

from __future__ import annotations

from typing import Any

from miglet import errors
from miglet.lifecycle.common import Step, failed, provided, shut_down
from miglet.lifecycle.effects import Effect, Emit, Post, SetTimer, Tell
from miglet.lifecycle.vm import Moment, State, Vm
from miglet.messages.events import Error, VMStarted
from miglet.messages.facts import (
    EventDelivered,
    EventRefused,
    PreflightDone,
    SettingsLoaded,
    SettingsRefused,
    StartAcknowledged,
)
from miglet.messages.orders import WatchRunner


def resume(vm: Vm, fact: SettingsLoaded, moment: Moment) -> Step:
    """A MIGlet before this one left a runner: find it before anything else."""
    if not vm.announced:
        return vm, []
    told = Error(
        category="infrastructure",
        code="miglet_restarted",
        message="MIGlet was started again during this boot and took over",
        component="supervisor",
    )
    vm = vm.entered(State.WAITING_FOR_CONTROLLER, moment)
    return vm, [Emit(told), *_first_orders(vm)]


def _first_orders(vm: Vm) -> list[Effect]:
    if vm.runner:
        return [Tell(WatchRunner(vm.runner["run_id"]))]
    if vm.acknowledged:
        return [Post(StartAcknowledged())]
    return _give_up_timer(vm)


def _give_up_timer(vm: Vm) -> list[Effect]:
    limit = vm.policy.give_up_after
    return [SetTimer("give_up", limit)] if limit else []


def announce(vm: Vm, fact: PreflightDone, moment: Moment) -> Step:
    """Tell the controller that the machine is there, or why it cannot be used."""
    faults = [each for each in fact.report if each["status"] == "fail"]
    vm = vm.having(timeline={**vm.timeline, **fact.machine["timeline"]})
    vm = vm.marked("preflight", moment)
    machine = {**fact.machine, "timeline": vm.timeline}
    event = Emit(VMStarted(preflight=fact.report, **machine))
    if faults:
        vm, effects = failed(vm, *_preflight_errors(faults), moment)
        return vm.having(announced=True), [event, *effects]
    vm = vm.entered(State.WAITING_FOR_CONTROLLER, moment, announced=True)
    return vm, [event, *_give_up_timer(vm)]


def _preflight_errors(faults: list[dict[str, Any]]) -> tuple[list[Error], int]:
    told = [
        Error(each["category"], each["id"], each["detail"], "bootstrap", each["hint"])
        for each in faults
    ]
    misconfigured = all(each.category == "misconfig" for each in told)
    return told, errors.MISCONFIGURED if misconfigured else errors.UNAVAILABLE


def refuse_settings(vm: Vm, fact: SettingsRefused, moment: Moment) -> Step:
    """Nothing can be done with this configuration but to say so."""
    told = [
        Error(
            category="misconfig",
            code="invalid_setting",
            message=f"{each['key']} ({each['source']}): {each['reason']}",
            component="config",
            hint=each["hint"],
        )
        for each in fact.faults
    ]
    return failed(vm, told, fact.exit_status, moment)


def heed_delivery(vm: Vm, fact: EventDelivered, moment: Moment) -> Step:
    """The acknowledgement of VMStarted lets the machine register."""
    if fact.type != "VMStarted":
        return vm, []
    vm = vm.having(acknowledged=True).marked("acknowledged", moment)
    return provided(vm, moment)


def go_on(vm: Vm, fact: StartAcknowledged, moment: Moment) -> Step:
    """Acknowledged before MIGlet was started again.

    What the one before may have registered is used or replaced: never one beside it.
    """
    if vm.end:
        return shut_down(vm, vm.end, moment)
    return provided(vm, moment, keep_registration=True)


def note_delivery(vm: Vm, fact: EventDelivered, moment: Moment) -> Step:
    """VMStarted may be acknowledged after a living runner was adopted."""
    return vm.having(acknowledged=vm.acknowledged or fact.type == "VMStarted"), []


def heed_refusal(vm: Vm, fact: EventRefused, moment: Moment) -> Step:
    """A controller that refuses VMStarted does not want this machine."""
    if fact.type != "VMStarted":
        return vm, []
    told = Error(
        category="permanent",
        code="start_refused",
        message=f"the controller refused VMStarted with {fact.status}: {fact.answer}",
        component="controller",
        hint="is this vm_id known to the controller, and the endpoint the right one?",
    )
    return failed(vm, [told], errors.REFUSED, moment)


def give_up(vm: Vm, moment: Moment) -> Step:
    """The controller has been unavailable for longer than it may."""
    told = Error(
        category="infrastructure",
        code="controller_unavailable",
        message=f"no acknowledgement within {vm.policy.give_up_after:g} s",
        component="controller",
        hint="see controller.give_up_after",
    )
    return failed(vm, [told], errors.UNAVAILABLE, moment)
