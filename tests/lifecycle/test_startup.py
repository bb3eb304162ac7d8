"""The start: checks, announcement, acknowledgement; starts after a failed one."""

from __future__ import annotations

from miglet.lifecycle.effects import (
    Exit,
    Post,
    SetTimer,
    StopTimer,
)
from miglet.lifecycle.table import due_times
from miglet.lifecycle.vm import State
from miglet.messages.facts import (
    DeadlinePassed,
    EventDelivered,
    EventRefused,
    EventsFlushed,
    PreflightDone,
    RunnerLaunched,
    RunnerListening,
    SettingsRefused,
    StartContinued,
    TokenSpent,
)
from miglet.messages.orders import ProvideRunner
from tests.histories import (
    ACKNOWLEDGED,
    LAUNCHED,
    LISTENING,
    MACHINE,
    PREPARED,
    RUNNER,
    SEEN,
    busy,
    events,
    finished,
    fresh,
    live,
    orders,
    types,
)
from tests.lifecycle.facts import LOADED, REMOVED, reborn


def test_a_boot_leads_to_a_listening_runner():
    vm, effects = live(fresh(), PREPARED, ACKNOWLEDGED, LAUNCHED, LISTENING)
    assert vm.state is State.IDLE
    assert types(effects) == ["VMStarted", "RunnerRegistered"]
    assert orders(effects) == [ProvideRunner("vm-1-b00t")]


def test_each_step_of_a_boot_is_timed_once():
    vm, effects = live(
        fresh(),
        PREPARED,
        ACKNOWLEDGED,
        TokenSpent("abc"),
        LAUNCHED,
        LISTENING,
        SEEN,
        now=50.0,
    )
    steps = [
        "preflight",
        "acknowledged",
        "token",
        "configured",
        "listening",
        "first_job",
    ]
    assert list(vm.timeline) == steps
    assert set(vm.timeline.values()) == {50_000.0}
    assert events(effects)[-1].timeline.keys() == set(steps[:-1])
    assert live(vm, TokenSpent("abc"), now=70.0)[0].timeline == vm.timeline


def test_nothing_is_registered_before_the_start_is_acknowledged():
    vm, effects = live(fresh(), PREPARED, EventDelivered(2, "Error"))
    assert vm.state is State.WAITING_FOR_CONTROLLER
    assert orders(effects) == []


def test_a_failed_check_ends_the_start_with_an_error_each():
    faults = [
        {"id": name, "status": "fail", "detail": "d", "hint": "h", "category": kind}
        for name, kind in (("disk", "infrastructure"), ("docker", "misconfig"))
    ]
    vm, effects = live(fresh(), PreflightDone(faults, MACHINE))
    assert vm.state is State.ERROR
    assert types(effects) == ["Error", "Error"]
    assert vm.end.exit_status == 69


def test_misconfiguration_alone_exits_with_78():
    fault = {"key": "pool_id", "source": "file", "reason": "is missing", "hint": ""}
    vm, effects = live(fresh(), SettingsRefused([fault]))
    assert vm.state is State.ERROR
    assert vm.end.exit_status == 78
    assert events(effects)[0].category == "misconfig"


def test_a_refused_start_is_refused_by_the_controller():
    vm, _ = live(fresh(), PREPARED, EventRefused(1, "VMStarted", 404, "who?"))
    assert (vm.state, vm.end.exit_status) == (State.ERROR, 77)


def test_a_controller_that_never_answers_is_given_up():
    vm, effects = live(fresh(), PREPARED, DeadlinePassed("give_up"))
    assert (vm.state, vm.end.exit_status) == (State.ERROR, 69)
    assert SetTimer("give_up", 600.0) in effects


def test_with_a_token_in_its_metadata_a_machine_registers_without_a_controller():
    vm, effects = live(fresh(token_in_metadata=True), PREPARED)
    assert SetTimer("unattended", 30.0) in effects
    vm, effects = live(vm, DeadlinePassed("unattended"))
    assert vm.state is State.REGISTERING_RUNNER
    assert ProvideRunner in map(type, orders(effects))
    assert StopTimer("give_up") in effects
    vm, effects = live(vm, LAUNCHED, LISTENING)
    assert vm.state is State.IDLE
    registered = [each for each in events(effects) if each.type == "RunnerRegistered"]
    assert len(registered) == 1
    assert not due_times(vm).keys() & {"give_up", "unattended"}


def test_without_one_a_machine_waits_for_its_controller():
    vm, effects = live(fresh(), PREPARED)
    assert "unattended" not in due_times(vm)
    assert ProvideRunner not in map(type, orders(effects))


def test_an_acknowledgement_that_comes_after_the_registration_changes_nothing_else():
    vm, _ = live(fresh(token_in_metadata=True), PREPARED, DeadlinePassed("unattended"))
    vm, effects = live(vm, LAUNCHED, LISTENING, ACKNOWLEDGED)
    assert vm.acknowledged and vm.state is State.IDLE
    assert ProvideRunner not in map(type, orders(effects))


def test_the_group_is_the_one_that_github_gave():
    runner = {**RUNNER, "runner_group": "ci", "labels": ["linux"]}
    given = RunnerListening(runner, attempts=1, duration_seconds=2.0)
    _, effects = live(fresh(), PREPARED, ACKNOWLEDGED, RunnerLaunched(runner), given)
    assert events(effects)[-1].runner_group == "ci"


def test_an_acknowledged_start_is_not_announced_again():
    vm, _ = live(fresh(), PREPARED, ACKNOWLEDGED)
    vm, effects = live(reborn(vm), LOADED)
    assert types(effects) == ["Error"]
    assert Post(StartContinued()) in effects
    assert vm.state is State.REGISTERING_RUNNER


def test_a_start_that_fails_like_the_one_before_it_sends_no_events():
    fault = {"id": "disk", "status": "fail", "detail": "d", "hint": "h"}
    failed = PreflightDone([{**fault, "category": "infrastructure"}], MACHINE)
    vm, effects = live(fresh(), failed)
    assert types(effects) == ["Error"]
    repeats = []
    for _ in range(3):
        vm, effects = live(vm, DeadlinePassed("error"), DeadlinePassed("flush"))
        assert (types(effects), effects[-1]) == ([], Exit(69))
        vm = reborn(vm.for_next_start())
        repeats.append(vm.failed_start.repeats)
        vm, effects = live(vm, LOADED, failed)
        assert types(effects) == []
    assert repeats == [0, 1, 2]


def test_a_start_after_one_that_failed_does_not_announce_the_machine_again():
    vm, _ = live(fresh(), PREPARED, DeadlinePassed("give_up"))
    vm = reborn(vm.for_next_start())
    vm, effects = live(vm, LOADED, PREPARED)
    assert types(effects) == []
    assert live(vm, ACKNOWLEDGED)[0].state is State.REGISTERING_RUNNER


def test_a_start_that_has_only_events_to_deliver_registers_nothing():
    vm, _ = live(busy(), finished(), REMOVED)
    vm, effects = live(vm, DeadlinePassed("flush"))
    assert effects == [Exit(75)]
    vm, effects = live(reborn(vm), LOADED, PREPARED, LISTENING, now=9000.0)
    assert (types(effects), orders(effects)) == ([], [])
    assert effects == [SetTimer("flush", 600.0)]
    assert live(vm, EventsFlushed())[1] == [Exit(0)]


def test_a_refused_start_lets_a_job_that_runs_by_then_finish():
    refused = EventRefused(1, "VMStarted", 404, "who?")
    vm, effects = live(busy(), refused)
    assert (vm.state, types(effects)) == (State.DRAINING, ["Error"])
    vm, effects = live(vm, finished())
    assert vm.end.exit_status == 77
