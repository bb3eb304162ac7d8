"""The lifecycle, explored: every reachable machine in a world of runners and deaths.

Breadth-first over (machine, world): the world is an abstraction of what happens around
the machine, and keeps the score of what was promised. Whatever breaks a promise is
printed as the history of facts that leads to it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from miglet.commands import registry  # noqa: F401 - its commands are rows
from miglet.errors import DONE, MISCONFIGURED, REFUSED, UNDELIVERED
from miglet.job.evidence import Evidence
from miglet.job.verdict import RunnerExit
from miglet.lifecycle.effects import (
    Effect,
    Emit,
    Exit,
    GiveOrder,
    KillRun,
    Post,
    SetTimer,
    StopTimer,
    StopWorkers,
)
from miglet.lifecycle.table import due_times, step
from miglet.lifecycle.vm import Moment, Policy, State, Vm
from miglet.messages import facts
from miglet.messages.codec import Fact, Order
from miglet.messages.events import Event
from miglet.messages.orders import DrainRunner, ProvideRunner, StopRunner, WatchRunner
from tests.histories import AT, MACHINE

#: How many machines are explored for each policy in `make quick`, in `make test` and in
#: `make test-all`; breadth-first, so that the shortest histories come first.
QUICK_NODES, NODES, ALL_NODES = 1_500, 10_000, 51_000

#: Monotonic seconds at the first start, and how long everything but a timer takes.
START = Moment(AT, 50.0)
STEP_SECONDS = 0.5
FINAL = (DONE, REFUSED, MISCONFIGURED)
WATCHER = "runner-watcher"

#: The bounds of the world.
MOST_RUNS = 2
MOST_LIVES = 3
MOST_COMMANDS = 2

NO_EVIDENCE = Evidence().as_json()


class Broken(Exception):
    """A promise is broken; the text says which."""


class Run(NamedTuple):
    """The runner as it really is, whether anybody watches it or not."""

    number: int = 0
    name: str = ""
    #: none, launched, listening, job, orphan, done, gone
    phase: str = "none"

    @property
    def id(self) -> str:
        return str(self.number) * 32

    @property
    def alive(self) -> bool:
        return self.phase not in ("none", "gone")


class World(NamedTuple):
    """What happens around the machine, and the score of what it has promised."""

    run: Run = Run()
    #: What the present runner-watcher was ordered to do and has not done.
    providing: str = ""
    watching: bool = False
    stopping: bool = False
    draining: bool = False
    #: Whether a launch was under way when it was ordered to stop.
    late_launch: bool = False
    #: Which facts of the start are still to come in this life.
    checks_pending: bool = True
    timers: frozenset[str] = frozenset()
    lives: int = 1
    exit_status: int | None = None
    watcher_deaths: int = 0
    notices: int = 0
    #: Events that the controller has not taken yet, as far as the machine waits.
    start_pending: bool = False
    error_pending: bool = False
    # The score.
    started: bool = False
    shutting_down: bool = False
    stopped: bool = False
    #: The run whose job was seen and is not completed, and what was announced of it.
    open_job: int = 0
    announced: tuple[str | None, str | None] | None = None
    completed: frozenset[int] = frozenset()
    commands_sent: tuple[str, ...] = ()
    commands_open: frozenset[str] = frozenset()
    to_validate: frozenset[str] = frozenset()
    told_to_exit: bool = False


class Node(NamedTuple):
    vm: Vm
    world: World
    moment: Moment = START


COMMANDS = {
    "c1": ("Drain", {}),
    "c2": ("Shutdown", {"mode": "immediate"}),
    "c3": ("RotateCredentials", {}),
}

IDENTITIES = {
    "": {"job_id": None, "run_id": None},
    "A": {"job_id": "1", "run_id": "10"},
    "B": {"job_id": "2", "run_id": "10"},
}


def enabled(node: Node) -> Iterator[tuple[str, Any]]:
    """What may happen next: a label, and a fact or the name of an incident."""
    vm, world, moment = node
    if world.exit_status is not None:
        if world.exit_status not in FINAL and world.lives < MOST_LIVES:
            yield "the service manager starts it again", "restart"
        return
    if world.lives < MOST_LIVES:
        yield "MIGlet is killed", "kill"
    if world.watcher_deaths < 1:
        yield "the runner-watcher dies", "watcher dies"
        lost = facts.WorkerLost(WATCHER, 5, "exit status 1")
        yield "the runner-watcher is lost", lost
    if vm.state is State.INITIALIZING and world.checks_pending:
        yield "checks passed", facts.PreflightDone([], MACHINE)
        fault = {"id": "disk", "status": "fail", "detail": "", "hint": ""}
        broken = [{**fault, "category": "infrastructure"}]
        yield "a check failed", facts.PreflightDone(broken, MACHINE)
    yield from events_arrive(world, vm)
    yield from registration_happens(world)
    if world.watching:
        yield from runner_happens(world.run, moment.at)
    yield from orders_are_given(vm, world, moment.at)
    for name in sorted(world.timers):
        yield f"timer {name}", facts.DeadlinePassed(name)


def events_arrive(world: World, vm: Vm) -> Iterator[tuple[str, Any]]:
    if world.start_pending:
        yield "VMStarted is acknowledged", facts.EventDelivered(1, "VMStarted")
        refused = facts.EventRefused(1, "VMStarted", 404, "who?")
        yield "VMStarted is refused", refused
    if world.error_pending and vm.state is State.ERROR:
        yield "the Error is delivered", facts.EventDelivered(2, "Error")
    if vm.flushing and vm.state is not State.INITIALIZING:
        yield "all is delivered", facts.EventsFlushed()


def registration_happens(world: World) -> Iterator[tuple[str, Any]]:
    if world.providing:
        yield "a runner is launched", "launch"
        for category, status in (("permanent", 77), ("infrastructure", 69)):
            failure = facts.RegistrationFailed(category, "no", "no", "", status)
            yield f"registration failed ({category})", failure
    elif world.late_launch:
        yield "a launch under way ends", "launch"
    if world.stopping and not world.run.alive:
        for removal in ("removed", "failed"):
            removed = facts.RunnerRemoved("", removal)
            yield f"the registration: {removal}", removed


def runner_happens(run: Run, at: float) -> Iterator[tuple[str, Any]]:
    seen = facts.JobSeen(run.id, "output", at)
    if run.phase in ("launched", "listening"):
        described = {"run_id": run.id, "name": run.name}
        yield "it listens", facts.RunnerListening(described, 1, 1.0)
        yield "a job is seen", seen
        yield "it is a ghost", facts.RunnerFailing(run.id, "ghost", "")
    if run.phase in ("job", "orphan", "done"):
        yield "the job is seen again", seen
        yield "the job ends", job_end(run, at, "succeeded", "success", 0)
    if run.phase in ("job", "orphan"):
        for name in ("A", "B"):
            known = facts.JobIdentified(run.id, "worker_log", IDENTITIES[name])
            yield f"the job is {name}", known
        crash = {"exit_code": None, "signal": 9, "last_lines": []}
        died = job_end(run, at, "unknown", "worker_crash", None, crash)
        yield "the Worker dies", died
    if run.phase == "job":
        dead = facts.ListenerDied(run.id, None, 9, [])
        yield "the Listener dies, the job goes on", dead
        stuck = facts.RunnerFailing(run.id, "worker_stuck", "")
        yield "the Worker is stuck", stuck
    if run.phase != "none":
        runner_exit = RunnerExit(exit_code=2, known=True).as_json()
        gone = facts.RunnerExited(run.id, NO_EVIDENCE, runner_exit, {}, [])
        yield "the runner exits", gone


def job_end(run: Run, at: float, result: str, cause: str, code: int | None, crash=None):
    return facts.JobEnded(run.id, result, cause, code, at, [], {}, crash)


def orders_are_given(vm: Vm, world: World, at: float) -> Iterator[tuple[str, Any]]:
    if vm.signals < 3:
        yield "SIGTERM", facts.SignalReceived("SIGTERM")
    if world.notices < 1:
        notice = facts.TerminationNoticed("preempted", at + 30.0, "gce")
        yield "the cloud gives notice", notice
    if len(world.commands_sent) < MOST_COMMANDS:
        for identity, (name, parameters) in COMMANDS.items():
            if identity not in world.commands_sent and not vm.flushing:
                received = facts.CommandReceived(identity, name, parameters)
                yield f"command {name}", received
    for identity in sorted(world.to_validate):
        name, parameters = COMMANDS[identity]
        validated = facts.CommandValidated(identity, name, parameters)
        yield f"command {name} is valid", validated
        faulty = facts.CommandValidated(identity, name, {}, ["wrong"])
        yield f"command {name} is not", faulty
    if "c3" in world.commands_open and "c3" not in world.to_validate:
        yield "credentials renewed", facts.CredentialsRenewed("c3", None)


def follow(node: Node, happening: Any) -> Node:
    """The machine and the world after this happened; raises Broken."""
    vm, world, moment = node = pass_time(node, happening)
    if happening == "kill":
        return start_again(node, vm.to_json())
    if happening == "restart":
        kept = vm if world.exit_status == UNDELIVERED else vm.for_next_start()
        world = world._replace(told_to_exit=False)
        return start_again(Node(vm, world, moment), kept.to_json())
    if happening == "watcher dies":
        world = forget_orders(world)._replace(watcher_deaths=1)
        return handle(Node(vm, world, moment), facts.WorkerStarted(WATCHER, 2, 1, 1))
    if happening == "launch":
        return handle(*launch(node))
    return handle(Node(vm, before(world, vm, happening), moment), happening)


def pass_time(node: Node, happening: Any) -> Node:
    """A timer fires when it is due; all else takes a moment."""
    at, now = node.moment
    later = now + STEP_SECONDS
    if isinstance(happening, facts.DeadlinePassed):
        later = max(now, due_times(node.vm).get(happening.name, now))
    return node._replace(moment=Moment(at + later - now, later))


def launch(node: Node) -> tuple[Node, Fact]:
    """The runner-watcher obeys its orders, or adopts what it finds."""
    vm, world, moment = node
    run = world.run
    if not (run.alive and run.name == vm.name):
        if run.number >= MOST_RUNS:
            failure = facts.RegistrationFailed("permanent", "no", "no", "", 77)
            world = world._replace(providing="", late_launch=False)
            return Node(vm, world, moment), failure
        run = Run(run.number + 1, vm.name, "launched")
    world = world._replace(run=run, providing="", watching=True, late_launch=False)
    launched = facts.RunnerLaunched({"run_id": run.id, "name": run.name})
    return Node(vm, world, moment), launched


def start_again(node: Node, kept: dict[str, Any]) -> Node:
    """Another MIGlet begins with what the journal has; its workers know nothing."""
    former, world, moment = node
    vm = Vm.restore(json.loads(json.dumps(kept)), former.policy, moment)
    world = forget_orders(world)._replace(
        lives=world.lives + 1,
        timers=frozenset(),
        checks_pending=True,
        exit_status=None,
        to_validate=frozenset(),
    )
    return load_settings(Node(vm, world, moment))


def load_settings(node: Node) -> Node:
    node = handle(node, facts.SettingsLoaded({}, []))
    return handle(node, facts.WorkerStarted(WATCHER, 1, 0))


def forget_orders(world: World) -> World:
    return world._replace(
        providing="",
        watching=False,
        stopping=False,
        draining=False,
        late_launch=False,
    )


def before(world: World, vm: Vm, fact: Fact) -> World:
    """The world in which the fact is reported."""
    change = CHANGES.get(type(fact))
    return change(world, vm, fact) if change else world


def phase(name: str, **changes: Any) -> Callable[[World, Vm, Any], World]:
    """The run is in this phase from now on."""
    return lambda world, vm, fact: world._replace(
        run=world.run._replace(phase=name), **changes
    )


def job_appears(world: World, vm: Vm, fact: facts.JobSeen) -> World:
    run = world.run
    if run.phase not in ("launched", "listening"):
        return world
    fresh = run.number not in world.completed and not vm.flushing
    if fresh and world.open_job == 0:
        world = world._replace(open_job=run.number)
    return world._replace(run=run._replace(phase="job"))


def event_arrives(world: World, vm: Vm, fact: Any) -> World:
    if fact.type == "VMStarted":
        return world._replace(start_pending=False)
    return world._replace(error_pending=False)


CHANGES: dict[type[Fact], Callable[[World, Vm, Any], World]] = {
    facts.RunnerListening: phase("listening"),
    facts.JobSeen: job_appears,
    facts.ListenerDied: phase("orphan"),
    facts.JobEnded: phase("done"),
    facts.RunnerExited: phase("gone", watching=False),
    facts.RegistrationFailed: lambda world, vm, fact: world._replace(providing=""),
    facts.RunnerRemoved: lambda world, vm, fact: world._replace(stopping=False),
    facts.PreflightDone: lambda world, vm, fact: world._replace(checks_pending=False),
    facts.EventDelivered: event_arrives,
    facts.EventRefused: event_arrives,
    facts.DeadlinePassed: lambda world, vm, fact: world._replace(
        timers=world.timers - {fact.name}
    ),
    facts.TerminationNoticed: lambda world, vm, fact: world._replace(
        notices=world.notices + 1
    ),
    facts.WorkerLost: lambda world, vm, fact: forget_orders(world)._replace(
        watcher_deaths=1
    ),
    facts.SignalReceived: lambda world, vm, fact: world._replace(
        told_to_exit=world.told_to_exit or vm.signals == 2
    ),
    facts.CommandReceived: lambda world, vm, fact: world._replace(
        commands_sent=(*world.commands_sent, fact.id)
    ),
    facts.CommandValidated: lambda world, vm, fact: world._replace(
        to_validate=world.to_validate - {fact.id}
    ),
}


def handle(node: Node, fact: Fact) -> Node:
    """Let the lifecycle decide, and hold what it does against its promises."""
    vm, world, moment = node
    inbox = deque([fact])
    while inbox:
        fact = inbox.popleft()
        after, effects = step(vm, fact, moment)
        if isinstance(fact, facts.CommandReceived) and fact.id in after.commands:
            world = world._replace(
                commands_open=world.commands_open | {fact.id},
                to_validate=world.to_validate | {fact.id},
            )
        vm = after
        for effect in effects:
            if isinstance(effect, Post):
                inbox.append(effect.fact)
            world = perform(world, vm, effect)
    check(vm, world)
    return Node(vm, world, moment)


def perform(world: World, vm: Vm, effect: Effect) -> World:
    match effect:
        case Emit(event=event):
            return score(world, event, effect)
        case GiveOrder(order=order):
            return give(world, order)
        case SetTimer(name=name):
            return world._replace(timers=world.timers | {name})
        case StopTimer(name=name):
            return world._replace(timers=world.timers - {name})
        case StopWorkers():
            return forget_orders(world)
        case KillRun():
            return world._replace(run=world.run._replace(phase="gone"))
        case Exit(status=status):
            return at_exit(world, status)
    return world


def give(world: World, order: Order) -> World:
    run = world.run
    match order:
        case ProvideRunner(name=name):
            if run.alive and run.name != name:
                # Seen to its end before the next one is launched.
                run = run._replace(phase="gone")
            return world._replace(
                run=run, providing=name, watching=False, late_launch=False
            )
        case WatchRunner(run_id=run_id):
            return world._replace(watching=run_id == run.id and run.number > 0)
        case DrainRunner():
            return world._replace(draining=True)
        case StopRunner():
            return world._replace(
                stopping=True,
                watching=run.alive,
                late_launch=bool(world.providing),
                providing="",
            )
    return world


def score(world: World, event: Event, effect: Emit) -> World:
    """What this event does to the score; raises Broken."""
    if world.stopped:
        raise Broken(f"{event.type} after VMStopped")
    count = SCORES.get(event.type)
    return count(world, event, effect) if count else world


def vm_started(world: World, event: Event, effect: Emit) -> World:
    if world.started:
        raise Broken("VMStarted twice in one boot")
    return world._replace(started=True, start_pending=True)


def job_started(world: World, event: Event, effect: Emit) -> World:
    if not world.open_job or world.announced is not None:
        raise Broken("JobStarted without a job, or twice")
    if not effect.job or effect.job.trace_id != str(world.open_job) * 32:
        raise Broken("JobStarted is about another run")
    return world._replace(announced=tuple(effect.job[:2]))


def job_completed(world: World, event: Event, effect: Emit) -> World:
    if world.announced is None or not effect.job:
        raise Broken("JobCompleted without JobStarted")
    for known, now in zip(world.announced, effect.job[:2], strict=True):
        if known is not None and known != now:
            raise Broken(f"the job's identity changed: {known} -> {now}")
    done = world.completed | {world.open_job}
    return world._replace(open_job=0, announced=None, completed=done)


def vm_shutting_down(world: World, event: Event, effect: Emit) -> World:
    if world.shutting_down:
        raise Broken("VMShuttingDown twice")
    return world._replace(shutting_down=True)


def vm_stopped(world: World, event: Event, effect: Emit) -> World:
    if not world.shutting_down:
        raise Broken("VMStopped without VMShuttingDown")
    if world.open_job or world.commands_open:
        raise Broken("VMStopped while something is open")
    return world._replace(stopped=True)


def error(world: World, event: Event, effect: Emit) -> World:
    return world._replace(error_pending=True)


def command_completed(world: World, event: Any, effect: Emit) -> World:
    if event.command_id not in world.commands_open:
        raise Broken(f"{event.command_id} answered twice, or never accepted")
    left = world.commands_open - {event.command_id}
    return world._replace(commands_open=left)


SCORES: dict[str, Callable[[World, Any, Emit], World]] = {
    "VMStarted": vm_started,
    "JobStarted": job_started,
    "JobCompleted": job_completed,
    "VMShuttingDown": vm_shutting_down,
    "VMStopped": vm_stopped,
    "Error": error,
    "CommandCompleted": command_completed,
}


def at_exit(world: World, status: int) -> World:
    if world.open_job:
        raise Broken(f"exit {status} with an open job")
    if not world.told_to_exit:
        if world.commands_open:
            raise Broken(f"exit {status} with open commands")
        if status in (*FINAL, UNDELIVERED) and not world.stopped:
            raise Broken(f"exit {status} without VMStopped")
    if status not in (*FINAL, UNDELIVERED) and world.shutting_down:
        raise Broken(f"exit {status}, which is no end, after VMShuttingDown")
    return world._replace(exit_status=status)


def check(vm: Vm, world: World) -> None:
    """What holds in every state; raises Broken."""
    if world.exit_status is not None:
        return
    due = due_times(vm).keys()
    if world.timers - due:
        raise Broken(f"timers run without a meaning: {sorted(world.timers - due)}")
    if due - world.timers:
        raise Broken(f"time limits without a timer: {sorted(due - world.timers)}")
    if bool(vm.job) != bool(world.open_job):
        raise Broken(f"open job: the machine has {vm.job}, the world {world.open_job}")
    if vm.commands.keys() != world.commands_open:
        raise Broken(f"open commands: {vm.commands} and {world.commands_open}")
    if world.providing and vm.name != world.providing:
        raise Broken("a runner is provided that the machine does not know")
    moving = bool(
        world.timers
        or world.watching
        or world.providing
        or world.stopping
        or world.start_pending
        or world.late_launch
    )
    if vm.state is State.INITIALIZING:
        moving |= world.checks_pending
    if not moving:
        raise Broken(f"nothing will ever happen in {vm.state.value}")


def key_of(node: Node) -> Any:
    """What two machines have in common that go on alike."""
    vm, world, _ = node
    job, end = vm.job, vm.end
    return (
        vm.state,
        vm.resumed_from,
        vm.announced,
        vm.acknowledged,
        vm.registrations,
        vm.name,
        vm.runner and vm.runner["run_id"],
        vm.former_run,
        vm.registered,
        vm.finished,
        job and (job.run, job.announced, job.contradicted, job.identity.get("job_id")),
        vm.orphaned_since is None,
        vm.crashes,
        end and (end.reason, end.exit_status, end.announced),
        vm.stopped_by,
        vm.stopping_since is None,
        len(vm.notices),
        vm.signals,
        vm.forced_since is None,
        vm.flushing,
        vm.failed_start,
        world,
    )


#: A machine that shuts down after its job, and one that registers again.
LIMITS: dict[str, Any] = {
    "max_restarts": 1,
    "idle_timeout": 60.0,
    "max_job_duration": 60.0,
    "token_in_metadata": True,
}
POLICIES = [Policy(**LIMITS), Policy(after_job="register", **LIMITS)]


def explore(policy: Policy, nodes: int) -> dict[Any, Any]:
    """Every machine that can be reached; how it was reached, by its key."""
    first = load_settings(Node(Vm("vm", policy=policy), World()))
    seen: dict[Any, tuple[Any, str]] = {key_of(first): (None, "MIGlet is started")}
    frontier = deque([(key_of(first), first)])
    escapes: set[Any] = set()
    while frontier and len(seen) < nodes:
        origin, node = frontier.popleft()
        label = "two signals, and every time limit passes"
        try:
            insist_on_a_way_out(node, escapes)
            for label, happening in enabled(node):
                after = follow(node, happening)
                key = key_of(after)
                if key not in seen:
                    seen[key] = origin, label
                    frontier.append((key, after))
        except Broken as broken:
            steps = "\n  ".join([*history(seen, origin), label])
            pytest.fail(f"{broken}, after:\n  {steps}", pytrace=False)
    return seen


def insist_on_a_way_out(node: Node, escapes: set[Any]) -> None:
    """Two signals and patience end every machine, though nobody answers it."""
    if node.world.exit_status is not None or node.vm.state is State.INITIALIZING:
        return
    path = []
    for _ in range(2 - min(2, node.vm.signals)):
        node = follow(node, facts.SignalReceived("SIGTERM"))
    while node.world.exit_status is None:
        key = key_of(node)
        if key in escapes:
            break
        path.append(key)
        timers = due_times(node.vm)
        if not timers or len(path) > 20:
            raise Broken(f"no way out of {node.vm.state.value}; timers: {timers}")
        node = follow(node, facts.DeadlinePassed(min(timers, key=timers.__getitem__)))
    escapes.update(path)


def history(seen: dict[Any, tuple[Any, str]], key: Any) -> list[str]:
    """How the machine was reached."""
    labels: list[str] = []
    while key is not None:
        key, label = seen[key]
        labels.append(label)
    return labels[::-1]


EACH_POLICY = pytest.mark.parametrize("policy", POLICIES, ids=["shutdown", "register"])


@EACH_POLICY
def test_no_history_breaks_a_promise(policy, quick):
    nodes = QUICK_NODES if quick else NODES
    assert len(explore(policy, nodes)) >= nodes


@pytest.mark.slow
@EACH_POLICY
def test_no_longer_history_breaks_a_promise(policy):
    assert len(explore(policy, ALL_NODES)) >= ALL_NODES
