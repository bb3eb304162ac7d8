"""The runner: provided, lost, provided again, and given up."""

from __future__ import annotations

import pytest

from miglet.job.signs import VersionDeprecated
from miglet.lifecycle.effects import (
    SetTimer,
    StopTimer,
)
from miglet.lifecycle.runner import standing_orders
from miglet.lifecycle.vm import State
from miglet.messages.facts import (
    DeadlinePassed,
    EventDelivered,
    RegistrationFailed,
    RunnerFailing,
    WorkerStarted,
)
from miglet.messages.orders import DrainRunner, ProvideRunner, StopRunner, WatchRunner
from tests.histories import (
    ACKNOWLEDGED,
    AT,
    LAUNCHED,
    LISTENING,
    PREPARED,
    RUN,
    busy,
    events,
    evidence,
    finished,
    fresh,
    gone,
    idle,
    live,
    orders,
    types,
)
from tests.lifecycle.facts import PREEMPTED, REMOVED, TERM, reborn


def test_after_its_job_the_machine_shuts_down():
    vm, effects = live(busy(), finished())
    assert vm.state is State.SHUTTING_DOWN
    assert orders(effects) == [StopRunner(settle_seconds=5.0)]
    assert vm.end.reason == "job_completed"


def test_or_registers_again_under_a_new_name():
    vm, effects = live(busy(after_job="register"), finished())
    assert vm.state is State.REGISTERING_RUNNER
    (order,) = orders(effects)
    assert order.name == "vm-1-b00t-2"
    assert not order.keep_registration


def test_a_runner_that_ends_idle_is_provided_again_with_growing_delay():
    vm, effects = live(idle(), gone(exit_code=2))
    assert vm.state is State.REGISTERING_RUNNER
    assert types(effects) == ["RunnerCrashed"]
    (order,) = orders(effects)
    assert (order.delay_seconds, order.keep_registration) == (1.0, True)
    vm, effects = live(vm, LAUNCHED, LISTENING, gone(exit_code=2))
    assert orders(effects)[-1].delay_seconds == 2.0


def test_a_run_that_is_over_is_named_so_that_an_unreported_one_is_distinguished():
    vm, effects = live(idle(), gone(exit_code=2))
    assert orders(effects)[0].former_run == RUN
    assert standing_orders(vm, 50.0)[0].former_run == RUN
    again = reborn(vm).replace(state=vm.state)
    assert standing_orders(again, 50.0)[0].former_run == RUN


def test_but_not_for_ever():
    vm = idle(max_restarts=2)
    for _ in range(3):
        vm, effects = live(vm, LAUNCHED, LISTENING, gone(exit_code=2))
    assert (vm.state, vm.end.exit_status) == (State.ERROR, 69)
    assert events(effects)[-1].category == "infrastructure"


def test_a_ghost_is_replaced():
    vm, effects = live(idle(), RunnerFailing(RUN, "ghost", "a job never came"))
    assert vm.state is State.REGISTERING_RUNNER
    assert orders(effects)[0].instead_of == RUN


def test_a_registration_that_cannot_be_had_is_an_error():
    failed = RegistrationFailed("permanent", "refused", "no", "ask them", 77)
    vm, effects = live(fresh(), PREPARED, ACKNOWLEDGED, failed)
    assert (vm.state, vm.end.exit_status) == (State.ERROR, 77)
    vm, effects = live(vm, EventDelivered(2, "Error"))
    assert vm.state is State.SHUTTING_DOWN
    assert types(effects) == ["VMShuttingDown"]


@pytest.mark.parametrize(
    ("vm", "standing"),
    [
        (idle(), [WatchRunner(RUN)]),
        (busy(), [WatchRunner(RUN)]),
        (live(busy(), TERM)[0], [WatchRunner(RUN), DrainRunner()]),
        (live(busy(), TERM, TERM)[0], [WatchRunner(RUN), StopRunner()]),
        (
            live(fresh(), PREPARED, ACKNOWLEDGED)[0],
            [ProvideRunner("vm-1-b00t", keep_registration=True)],
        ),
        (live(fresh(), PREPARED, ACKNOWLEDGED, LAUNCHED)[0], [WatchRunner(RUN)]),
        (live(idle(), TERM, gone(), REMOVED)[0], []),
    ],
    ids=["idle", "busy", "drain", "stop", "registering", "launched", "flushing"],
)
def test_a_new_watcher_receives_what_the_dead_one_knew(vm, standing):
    assert standing_orders(vm, 50.0) == standing


def test_a_new_watcher_is_no_more_patient_than_the_machine_can_be():
    vm, _ = live(busy(), PREEMPTED, DeadlinePassed("notice"))
    assert standing_orders(vm, 65.0)[-1].grace_seconds == 8.0
    assert standing_orders(vm, 99.0)[-1].grace_seconds == 0.0


def test_a_watcher_that_died_three_times_is_replaced_by_one_that_reads_no_logs():
    for deaths, minimal in ((2, False), (3, True)):
        _, effects = live(busy(), WorkerStarted("runner-watcher", 4711, 3, deaths))
        assert orders(effects) == [WatchRunner(RUN, minimal)]


def test_a_registration_that_may_succeed_later_is_tried_again_but_not_for_ever():
    failed = RegistrationFailed("infrastructure", "launch_failed", "no", "", 69)
    vm, _ = live(fresh(max_restarts=2), PREPARED, ACKNOWLEDGED)
    delays = []
    for _ in range(2):
        vm, effects = live(vm, failed)
        assert types(effects) == ["Error"]
        delays += [each.delay_seconds for each in orders(effects)]
    assert delays == [1.0, 2.0]
    assert (live(vm, failed)[0]).state is State.ERROR


REFUSED_VERSION = gone(evidence(None, None).add(VersionDeprecated(AT, "output", "x")))


def test_a_refused_version_is_reported_once_and_tried_for_ten_minutes():
    vm, effects = idle(), []
    for now in (50.0, 100.0, 600.0):
        vm, more = live(vm, REFUSED_VERSION, now=now)
        effects += more
        vm, more = live(vm, LAUNCHED, LISTENING, now=now)
        effects += more
    assert types(effects) == ["Error"]
    assert "2.336.0" in events(effects)[0].message
    vm, effects = live(vm, REFUSED_VERSION, now=651.0)
    assert (vm.state, vm.end.exit_status) == (State.ERROR, 78)


def test_a_listener_that_is_started_again_is_no_new_registration():
    _, effects = live(idle(), gone(exit_code=2), LAUNCHED, LISTENING)
    assert "RunnerRegistered" not in types(effects)


def test_a_token_in_the_metadata_does_not_need_the_controller_for_ever():
    vm, effects = live(fresh(token_in_metadata=True), PREPARED)
    assert SetTimer("unattended", 30.0) in effects
    vm, effects = live(vm, DeadlinePassed("unattended"))
    assert vm.state is State.REGISTERING_RUNNER
    assert StopTimer("give_up") in effects
