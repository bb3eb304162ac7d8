"""The arbiter, with fake workers, child tasks, signals and clock."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from functools import partial

import pytest

from miglet.agent import arbiter as arbiter_module
from miglet.agent.arbiter import Arbiter, FileMonitor, Timers, current_moment
from miglet.agent.status import Knowledge
from miglet.commands.intake import reload_task
from miglet.journal.journal import Journal
from miglet.lifecycle.effects import StopWorkers
from miglet.lifecycle.vm import Moment, Policy, State, Vm
from miglet.messages.events import Error, Identity
from miglet.messages.facts import (
    CommandReceived,
    CommandValidated,
    ControllerAnswered,
    ControllerFailed,
    EventDelivered,
    EventRefused,
    EventSetAside,
    FaultNoted,
    MachineSampled,
    RunnerRemoved,
    SignalReceived,
    WorkerStarted,
)
from miglet.messages.orders import (
    ApplySettings,
    DeliverEvent,
    FollowJob,
    ProvideRunner,
    RenewCredentials,
    SetLevel,
    StopRunner,
    UpdateHeartbeat,
    WatchRunner,
)
from miglet.supervisor import queues
from miglet.supervisor.supervisor import Supervisor
from miglet.supervisor.systemd import Notifier
from tests.histories import (
    IDENTIFIED,
    LAUNCHED,
    LISTENING,
    PREPARED,
    SEEN,
    finished,
    gone,
)
from tests.sample_settings import sample_settings

BOOT = "8a6ba3f6-0000-4000-8000-000000000000"
UPLINK = "heartbeat-sender"


class FakeSupervisor:
    """Records the orders to the workers; runs none."""

    def __init__(self, selector, inbox):
        self.inbox = inbox
        self.sent = []
        self.released = []
        self.started = []

    def start(self, name, main, facts):
        self.started.append(name)

    def send(self, name, order):
        self.sent.append((name, order))

    def broadcast(self, order):
        self.sent.append(("all", order))

    def stop_workers(self, names):
        self.released += names

    def pid_of(self, name):
        return 100

    def health(self):
        return {}

    def healthy(self, names):
        return True

    def next_due(self):
        return None

    def check(self, now):
        pass

    def stop(self, grace):
        pass


class FakeTasks:
    """Remembers which child tasks were started; runs none."""

    def __init__(self, selector, inbox):
        self.started = []

    def start(self, task):
        self.started.append(task)

    def under_way(self, name):
        return False

    def check(self, now):
        pass

    def stop(self):
        pass


class FakeSignals:
    """Signals that a test sends."""

    def __init__(self, numbers):
        self.reader, self.writer = os.pipe()
        self.pending = []

    def fileno(self):
        return self.reader

    def send(self, name):
        self.pending.append(name)
        os.write(self.writer, b"x")

    def drain(self):
        os.read(self.reader, 100)
        names, self.pending = self.pending, []
        return names

    def close(self):
        for descriptor in (self.reader, self.writer):
            with contextlib.suppress(OSError):
                os.close(descriptor)


class Clock:
    """Time passes when a test says so."""

    def __init__(self):
        self.now = 50.0

    def __call__(self):
        return Moment(950.0 + self.now, self.now)


class World:
    """An arbiter and what is around it."""

    def __init__(
        self, folder, vm=None, clock=None, supervisor=FakeSupervisor, **settings
    ):
        self.clock = clock or Clock()
        self.settings = sample_settings(settings)
        self.journal = Journal.open([folder / "journal.db"], BOOT)
        knowledge = Knowledge(
            settings=self.settings,
            identity=Identity("vm-1", "pool-1", "org-1", "0" * 32),
            origins=[],
            sources={},
            pid=4711,
            boot_id=BOOT,
            started_now=0.0,
            log_level="info",
        )
        self.arbiter = Arbiter(
            vm or Vm("vm-1-b00t", Policy.of(self.settings)),
            knowledge,
            self.journal,
            Notifier({}),
            str(folder / "miglet.yaml"),
            supervisor,
            FakeTasks,
            FakeSignals,
            self.clock,
        )
        self.supervisor = self.arbiter._supervisor
        self.tasks = self.arbiter._tasks

    def handle(self, *facts):
        """Have these facts handled, and what they post."""
        self.arbiter.inbox.extend(facts)
        while self.arbiter.inbox:
            self.arbiter._handle(self.arbiter.inbox.popleft())

    def events(self):
        return [each["type"] for each in self.journal.undelivered()]

    def orders(self, kind):
        return [order for _, order in self.supervisor.sent if isinstance(order, kind)]

    @property
    def state(self):
        return self.arbiter.vm.state


@pytest.fixture
def world(tmp_path):
    made = []

    def make(vm=None, **more):
        made.append(World(tmp_path, vm, **more))
        return made[-1]

    yield make
    for each in made:
        each.supervisor.stop(0.0)
        each.arbiter._signals.close()
        each.journal.close()


def idle(world, **settings):
    made = world(**settings)
    made.handle(PREPARED, EventDelivered(1, "VMStarted"), LAUNCHED, LISTENING)
    return made


@pytest.fixture
def unshared(monkeypatch):
    """The memory of the process that runs the tests is left as it is."""
    monkeypatch.setattr(arbiter_module, "share_with_children", lambda: None)


NAMES = [UPLINK, "runner-watcher", "command-poller"]


def test_what_is_known_is_handled_before_the_first_worker_is_forked(world, unshared):
    vm = world()
    vm.arbiter.inbox.append(PREPARED)
    vm.supervisor.start = lambda *_: seen.append(vm.events())
    seen = []
    vm.arbiter.start_workers(NAMES)
    assert seen == [["VMStarted"]] * len(NAMES)


def test_the_first_worker_has_its_orders_before_the_next_is_forked(world, unshared):
    vm = world()
    order = []
    vm.supervisor.start = lambda name, *_: (
        order.append(name),
        vm.arbiter.inbox.append(WorkerStarted(name, 101, 0)),
    )
    vm.supervisor.send = lambda name, sent: order.append(type(sent).__name__)
    vm.arbiter.inbox.append(PREPARED)
    vm.arbiter.start_workers(NAMES)
    first = order[order.index(UPLINK) : order.index(NAMES[1])]
    assert "DeliverEvent" in first


def test_a_fact_that_has_come_in_time_is_received_before_the_fork(world, unshared):
    vm = world()
    arrive = partial(vm.arbiter.inbox.append, PREPARED)
    ready = type("Key", (), {"data": staticmethod(arrive)})
    vm.arbiter._selector.select = lambda seconds: [(ready, 1)]
    vm.arbiter.start_workers([])
    assert vm.events() == ["VMStarted"]


def test_a_worker_that_waits_is_not_started_when_all_are_to_stop(world):
    vm = world()
    machine = {**PREPARED.machine, "cloud": "gce"}
    vm.handle(dataclasses.replace(PREPARED, machine=machine))
    vm.arbiter._act([StopWorkers()])
    vm.arbiter._check_time()
    assert vm.supervisor.started == []


def test_the_loop_does_not_sleep_while_a_worker_waits(world):
    vm = world()
    slept = []
    vm.arbiter._selector.select = lambda seconds: slept.append(seconds) or []
    vm.arbiter._waiting_workers.append("notice-watcher")
    vm.arbiter._wait()
    assert slept == [0.0]


def test_in_a_cloud_the_notice_watcher_is_started(world):
    vm = world()
    machine = {**PREPARED.machine, "cloud": "gce"}
    vm.handle(dataclasses.replace(PREPARED, machine=machine))
    vm.arbiter._check_time()
    assert vm.supervisor.started == ["notice-watcher"]


def test_state_and_events_are_on_disk_before_an_order_is_given(world):
    vm = world()
    seen = []
    vm.supervisor.send = lambda name, order: seen.append(
        (type(order).__name__, vm.journal.state()["state"])
    )
    vm.handle(PREPARED, EventDelivered(1, "VMStarted"))
    assert ("ProvideRunner", "registering_runner") in seen


def test_an_event_says_the_state_that_it_led_to(world):
    vm = idle(world)
    vm.handle(SEEN, IDENTIFIED, finished())
    states = {each["type"]: each["state"] for each in vm.journal.undelivered()}
    assert states["JobCompleted"] == states["VMShuttingDown"] == "shutting_down"


def test_one_event_at_a_time_is_handed_over_and_the_oldest_first(world):
    vm = world()
    vm.handle(PREPARED)
    vm.arbiter.emit(Error("infrastructure", "x", "y", "z"))
    (first,) = vm.orders(DeliverEvent)
    assert first.event["type"] == "VMStarted"
    vm.handle(EventDelivered(1, "VMStarted"))
    assert [each.event["sequence"] for each in vm.orders(DeliverEvent)] == [1, 2]


def test_a_refused_event_leaves_the_queue_and_is_counted(world):
    vm = idle(world)
    vm.handle(EventRefused(2, "RunnerRegistered", 422, "no"))
    assert vm.journal.counts().rejected == 1
    assert vm.events() == []


def test_a_new_heartbeat_sender_gets_the_event_that_the_dead_one_had(world):
    vm = world()
    vm.handle(PREPARED, WorkerStarted(UPLINK, 101, 1))
    assert [each.event["sequence"] for each in vm.orders(DeliverEvent)] == [1, 1]


def test_a_new_runner_watcher_receives_what_the_dead_one_knew(world):
    vm = idle(world)
    vm.supervisor.sent.clear()
    vm.handle(WorkerStarted("runner-watcher", 101, 1, 1))
    assert [type(order) for _, order in vm.supervisor.sent[:3]] == [
        FollowJob,
        UpdateHeartbeat,
        WatchRunner,
    ]


def test_a_change_of_state_is_in_a_heartbeat_at_once(world):
    vm = world()
    vm.handle(PREPARED)
    beat = vm.orders(UpdateHeartbeat)[-1]
    assert beat.at_once
    assert beat.content["miglet_state"] == "waiting_for_controller"


def test_a_sample_is_in_the_next_heartbeat_without_haste(world):
    vm = world()
    vm.handle(MachineSampled({"load1": 0.5}))
    beat = vm.orders(UpdateHeartbeat)[-1]
    assert not beat.at_once
    assert beat.content["vm_health"]["load1"] == 0.5


def test_the_controllers_answers_and_failures_are_in_the_status(world):
    vm = world()
    vm.handle(ControllerFailed("events", "transient", "POST failed", 1.0))
    assert "POST failed" in vm.arbiter.status()["controller"]["last_error"]
    vm.handle(ControllerAnswered("heartbeat"), ControllerAnswered("events"))
    controller = vm.arbiter.status()["controller"]
    assert controller["reachable"] and controller["last_error"] is None


def test_a_command_is_accepted_once_in_its_life_and_validated_in_a_child(world):
    vm = idle(world)
    vm.handle(*[CommandReceived("c-1", "Drain", {})] * 2)
    assert [task.name for task in vm.tasks.started] == ["validation"]
    vm.handle(CommandValidated("c-1", "Drain", {}))
    vm.handle(CommandReceived("c-1", "Drain", {}), CommandValidated("c-1", "Drain", {}))
    assert vm.events().count("CommandCompleted") == 1
    assert len(vm.tasks.started) == 1
    assert vm.journal.open_commands() == {}


def test_a_command_is_in_the_journal_before_the_child_is_started(world):
    vm = idle(world)
    vm.tasks.start = lambda task: seen.update(vm.journal.open_commands())
    seen = {}
    vm.handle(CommandReceived("c-1", "Drain", {}))
    assert seen == {"c-1": {"command_id": "c-1", "command_type": "Drain"}}


def test_credentials_are_renewed_again_by_the_next_heartbeat_sender(world):
    vm = idle(world)
    vm.handle(CommandReceived("c", "RotateCredentials", {}))
    vm.handle(CommandValidated("c", "RotateCredentials", {}))
    vm.handle(WorkerStarted(UPLINK, 101, 1, 1))
    assert vm.orders(RenewCredentials) == [RenewCredentials("c")] * 2


def test_changed_settings_reach_every_worker_and_the_timers_that_run(world):
    vm = idle(world)
    changed = vm.settings.replaced({"runner.idle_timeout": 9.0}).as_dict()
    vm.handle(CommandReceived("c", "UpdateConfig", {}))
    vm.handle(CommandValidated("c", "UpdateConfig", {}, settings=changed))
    assert vm.orders(ApplySettings) == [ApplySettings(changed)]
    vm.clock.now += 9.0
    vm.arbiter._check_time()
    vm.handle()
    assert vm.state is State.DRAINING


def test_settings_that_need_a_restart_change_nothing(world):
    vm = idle(world)
    changed = vm.settings.replaced({"runner.user": "root"}).as_dict()
    vm.handle(CommandReceived("c", "UpdateConfig", {}))
    vm.handle(CommandValidated("c", "UpdateConfig", {}, settings=changed))
    assert vm.orders(ApplySettings) == []
    (answer,) = [
        each for each in vm.journal.undelivered() if each["type"] == "CommandCompleted"
    ]
    assert answer["data"]["outcome"] == "rejected"


def test_a_reload_whose_child_is_lost_changes_nothing_and_is_logged(world, caplog):
    vm = idle(world)
    vm.handle(reload_task({}, {}).fallback)
    assert vm.orders(ApplySettings) == []
    assert "UpdateConfig by SIGHUP failed: the process that" in caplog.text


def test_a_level_is_set_in_every_process(world):
    vm = idle(world)
    vm.handle(CommandValidated("", "SetLogLevel", {"level": "info"}))
    assert vm.orders(SetLevel) == [SetLevel("info")]


def test_signals_reach_the_lifecycle_and_a_reload_a_child(world):
    vm = idle(world)
    vm.arbiter._signals.send("SIGHUP")
    vm.arbiter._signals.send("SIGTERM")
    vm.arbiter._wait()
    vm.arbiter._check_time()
    vm.handle()
    assert [task.name for task in vm.tasks.started] == ["reload"]
    assert vm.state is State.DRAINING


def test_a_changed_configuration_file_is_read_again_once(world, tmp_path):
    vm = world()
    (tmp_path / "miglet.yaml").write_text("pool_id: pool-1\n")
    vm.arbiter._check_time()
    vm.arbiter._check_time()
    assert [task.name for task in vm.tasks.started] == ["reload"]


def test_the_loop_ends_when_every_event_is_delivered(world):
    vm = idle(world)
    vm.handle(SignalReceived("SIGTERM"), gone(), RunnerRemoved("", "removed"))
    assert vm.orders(StopRunner)
    assert UPLINK not in vm.supervisor.released
    vm.arbiter.inbox.extend(
        EventDelivered(each["sequence"], each["type"])
        for each in vm.journal.undelivered()
    )
    assert vm.arbiter.run() == 0
    assert vm.events() == []


def test_the_log_says_what_the_end_waits_for_and_how_to_cut_it_short(world, caplog):
    caplog.set_level("INFO")
    vm = idle(world)
    vm.handle(SignalReceived("SIGTERM"), gone(), RunnerRemoved("", "removed"))
    left = len(vm.journal.undelivered())
    assert left and f"{left} events are left to send" in caplog.text
    assert "shutdown.delivery_timeout at most" in caplog.text
    assert "third SIGTERM" in caplog.text


def test_an_error_without_a_hint_is_logged_without_an_empty_one(world, caplog):
    vm = idle(world)
    vm.arbiter.emit(Error("user", "noise", "too loud", "job"))
    vm.arbiter.emit(Error("user", "noise", "too loud", "job", "turn it down"))
    lines = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert lines == ["noise: too loud", "noise: too loud; turn it down"]


def test_nothing_enters_the_journal_after_the_last_event(world):
    vm = idle(world)
    vm.handle(SignalReceived("SIGTERM"), gone(), RunnerRemoved("", "removed"))
    vm.arbiter.emit(Error("infrastructure", "late", "x", "journal"))
    assert vm.events()[-1] == "VMStopped"
    assert vm.journal.undelivered()[-1]["data"]["events_dropped"] == 0


def test_events_that_are_left_when_time_is_up_end_with_75(world):
    vm = idle(world)
    vm.handle(SignalReceived("SIGTERM"), gone(), RunnerRemoved("", "removed"))
    vm.clock.now += vm.settings.shutdown.delivery_timeout
    assert vm.arbiter.run() == 75
    assert "VMStopped" in vm.events()
    assert vm.journal.state()["flushing_since"] is not None


def test_a_runner_is_asked_for_under_a_name_of_this_boot(world):
    vm = world()
    vm.handle(PREPARED, EventDelivered(1, "VMStarted"))
    assert vm.orders(ProvideRunner)[0].name == "vm-1-b00t"


def test_commands_that_another_boot_left_open_are_answered(world):
    vm = idle(world)
    accepted = {"command_id": "old", "command_type": "Drain"}
    vm.journal.record(None, [], {"old": accepted})
    vm.arbiter._answer_former_commands()
    assert vm.events()[-1] == "CommandCompleted"
    assert vm.journal.open_commands() == {}


def test_timers_are_due_in_their_order_and_only_once():
    timers = Timers()
    timers.start("late", 3.0)
    timers.start("early", 1.0)
    timers.start("late", 2.0)
    timers.start("never", 1.5)
    timers.stop("never")
    assert timers.next_due() == 1.0
    assert timers.take_due(2.0) == ["early", "late"]
    assert timers.take_due(9.0) == []
    assert timers.next_due() is None


def test_a_file_has_changed_when_it_comes_changes_or_goes(tmp_path):
    path = tmp_path / "file"
    monitor = FileMonitor(str(path))
    assert not monitor.changed()
    path.write_text("a")
    assert monitor.changed() and not monitor.changed()
    path.write_text("bb")
    assert monitor.changed()
    path.unlink()
    assert monitor.changed()


@pytest.mark.parametrize(
    "forged",
    [
        EventDelivered(2, "VMStarted"),
        EventDelivered(1, "Error"),
        EventRefused(2, "VMStarted", 404, "who?"),
        EventSetAside(1, "Error", "", "it fails"),
    ],
)
def test_what_is_reported_of_an_event_that_is_not_in_hand_changes_nothing(
    world, forged
):
    vm = world()
    vm.handle(PREPARED)
    before = vm.arbiter.vm
    vm.handle(forged)
    assert vm.arbiter.vm is before and vm.events() == ["VMStarted"]
    vm.handle(EventDelivered(1, "VMStarted"))
    assert vm.state is State.REGISTERING_RUNNER


def flooding(fact, queue):
    """A worker that sends nothing but what it may, as fast as it can."""
    while True:
        queue.put(fact)


@pytest.mark.integration
@pytest.mark.parametrize(
    "fact",
    [
        MachineSampled({"cpu_percent": 1.0}),
        FaultNoted("user", "noise", "x", "metrics-sampler"),
        EventDelivered(1_000_000, "Error"),
    ],
    ids=lambda fact: type(fact).__name__,
)
def test_a_worker_that_floods_delays_no_timer_and_fills_no_journal(
    world, monkeypatch, fact
):
    # A busy machine may be too slow to spend the real budget.
    for name in ("BUDGET_AT_ONCE", "BUDGET_PER_SECOND"):
        monkeypatch.setattr(queues, name, 20.0 * fact.cost)
    settings = {"runner.idle_timeout": 1.0}
    vm = idle(world, clock=current_moment, supervisor=Supervisor, **settings)
    vm.supervisor.start("metrics-sampler", partial(flooding, fact), {type(fact)})
    began = time.monotonic()
    while vm.state is State.IDLE:
        vm.arbiter._wait()
        vm.arbiter._check_time()
        vm.handle()
    assert time.monotonic() - began < 10.0
    faults = [
        each["data"]
        for each in vm.journal.undelivered()
        if each["type"] == "Error" and each["data"]["code"] == "protocol_violation"
    ]
    assert 1 <= len(faults) <= 5
    assert "faster than they may" in faults[0]["message"]
    assert len(vm.events()) < 300


def test_the_control_socket_is_for_the_group_miglet(world, tmp_path, monkeypatch):
    groups = {"miglet": 54321 if os.geteuid() == 0 else os.getegid()}
    monkeypatch.setattr(arbiter_module, "group_id", groups.get)
    path = str(tmp_path / "control.sock")
    vm = world()
    vm.arbiter.open_control(path, lambda *call: None, frozenset())
    with contextlib.closing(vm.arbiter._control):
        assert os.stat(path).st_gid == groups["miglet"]
