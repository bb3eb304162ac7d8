"""The arbiter: the one loop that owns the state, the journal and the decisions.

Each turn of the loop waits, receives, and handles one fact after the other: observe
it, let the lifecycle decide, persist what was decided, and only then act. It never
waits for a worker; what takes time is done in workers and child tasks.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import logging
import os
import selectors
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from miglet import logger
from miglet.agent.delivery import EventDelivery
from miglet.agent.status import Knowledge, StatusPublisher
from miglet.commands import registry  # noqa: F401 - its commands become rows
from miglet.commands.intake import (
    RELOAD,
    reload_task,
    validation_task,
    with_settings_checked,
)
from miglet.config.settings import Settings
from miglet.control.server import ControlServer
from miglet.formats import one_line
from miglet.journal.failover import JournalFinding
from miglet.journal.journal import Journal
from miglet.lifecycle import effects
from miglet.lifecycle.shutdown import CUT_SHORT
from miglet.lifecycle.table import change_policy, step
from miglet.lifecycle.vm import Moment, Policy, Vm
from miglet.messages import facts
from miglet.messages.codec import Fact, cache_order_types
from miglet.messages.events import CommandCompleted, Error, Event, VMStopped, seal
from miglet.messages.orders import ApplySettings, FollowJob, SetLevel
from miglet.runner.launcher import runner_launcher
from miglet.supervisor.children import ChildTask, ChildTasks, by_name
from miglet.supervisor.failpoints import reach
from miglet.supervisor.linux import RunQueue
from miglet.supervisor.memory import MemoryTimer, share_with_children
from miglet.supervisor.privileges import group_id, unprivileged_uids
from miglet.supervisor.queues import Queue
from miglet.supervisor.signals import PARENT, SignalPipe
from miglet.supervisor.supervisor import Supervisor
from miglet.supervisor.systemd import Notifier
from miglet.workers.registry import (
    CRITICAL,
    IN_A_CLOUD,
    NAMES,
    UPLINK,
    facts_of,
    worker_class,
)

#: Longest sleep of the loop in seconds: so often the supervisor checks its workers.
TICK_SECONDS = 1.0

#: Seconds that workers get to stop at the very end.
LAST_GRACE_SECONDS = 1.0

#: Seconds that a child may take to kill a run.
KILL_SECONDS = 10.0

#: Seconds by which each turn of the loop extends the service manager's timeout while
#: MIGlet ends.
EXTENSION_SECONDS = 60.0

#: The signals that the arbiter handles itself; the others are facts.
RELOADING, DUMP = "SIGHUP", "SIGUSR1"

log = logging.getLogger(__name__)


def current_moment() -> Moment:
    """Wall and monotonic time now."""
    return Moment(time.time(), time.monotonic())


class Timers:
    """One-shot timers by name, on the monotonic clock."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def start(self, name: str, due: float) -> None:
        """Schedule `name` at `due`, replacing a pending timer of the same name."""
        self._due[name] = due

    def stop(self, name: str) -> None:
        """Remove the timer `name`; nothing happens if it is not running."""
        self._due.pop(name, None)

    def next_due(self) -> float | None:
        """When the earliest timer is due; None if none runs."""
        return min(self._due.values(), default=None)

    def take_due(self, now: float) -> list[str]:
        """Remove the timers that are due at `now`; their names, the earliest first."""
        names = [name for name, due in self._due.items() if due <= now]
        names.sort(key=self._due.__getitem__)
        for name in names:
            del self._due[name]
        return names


class FileMonitor:
    """Detects changes to a path. The first snapshot is taken in the constructor."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._snapshot = self._take_snapshot()

    def changed(self) -> bool:
        """Whether the file was changed or replaced since the last call."""
        before, self._snapshot = self._snapshot, self._take_snapshot()
        return self._snapshot != before

    def _take_snapshot(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


class StallMeter:
    """Measures how long a turn of the loop keeps it from waiting for I/O.

    Time for which the process was runnable while others had the processors is not
    counted.
    """

    def __init__(self) -> None:
        self._run_queue = RunQueue()
        self.start()

    def start(self) -> None:
        """A turn begins: no I/O is handled until the next `select`."""
        self._began, self._waited = time.monotonic(), self._run_queue.waited()

    def seconds(self) -> float:
        """How long the turn has taken by now."""
        waited = self._run_queue.waited() - self._waited
        return time.monotonic() - self._began - waited


class Arbiter:
    """Handles one fact after the other: observes, decides, persists, acts."""

    def __init__(
        self,
        vm: Vm,
        knowledge: Knowledge,
        journal: Journal,
        notifier: Notifier,
        configuration_path: str,
        make_supervisor: Callable[..., Supervisor] = Supervisor,
        make_tasks: Callable[..., ChildTasks] = ChildTasks,
        make_signals: Callable[..., SignalPipe] = SignalPipe,
        clock: Callable[[], Moment] = current_moment,
    ) -> None:
        self.vm = vm
        self.knowledge = knowledge
        self.journal = journal
        self.inbox: deque[Fact] = deque()
        #: Set by the effect `Exit`, which ends the loop.
        self.exit_status: int | None = None
        self._notifier = notifier
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._supervisor = make_supervisor(self._selector, self.inbox)
        self._tasks = make_tasks(self._selector, self.inbox)
        self._delivery = EventDelivery(journal, self._supervisor)
        self._publisher = StatusPublisher(
            knowledge, journal, self._supervisor, notifier, clock
        )
        self._timers = Timers()
        #: Workers that the next turn of the loop starts.
        self._waiting_workers: list[str] = []
        #: A change of the configuration file leads to a reload.
        self._configuration = FileMonitor(configuration_path)
        #: Whether a reload is due; it waits for one that is under way.
        self._reload_wanted = False
        self._control: ControlServer | None = None
        self._memory_timer = MemoryTimer()
        self._stall = StallMeter()
        self._signals = make_signals(PARENT)
        self._listen(self._signals, self._receive_signals)

    def open_control(
        self, path: str, answer: Callable[..., Any], changing: frozenset[str]
    ) -> None:
        """Open the control socket at `path`; `answer` handles its calls.

        Only root and our own user may call the methods named in `changing`. Raises
        what `ControlServer` raises.
        """
        control = ControlServer(
            path,
            functools.partial(answer, self),
            changing,
            gid=group_id("miglet"),
            # Without root the workers run as our own user, which may call all methods.
            refused=unprivileged_uids() - {os.geteuid()},
        )
        self._listen(control, control.serve)
        self._control = self._publisher.control = control

    def follow(self, task: Any) -> None:
        """Receive the facts of a child task that was started before the loop."""
        self._tasks.follow(task)

    def start_workers(self, names: Iterable[str]) -> None:
        """Handle what is known by now, then fork the workers, which share the memory.

        The first one can deliver the event that announces the machine while the others
        are forked.
        """
        self._answer_former_commands()
        self._receive(0.0)
        self._handle_inbox()
        cache_order_types()
        share_with_children()
        gc.enable()
        self._waiting_workers[:0] = names
        self._start_waiting_workers()

    def run(self) -> int:
        """Handle facts until the lifecycle ends the program; the exit status."""
        self._stall.start()
        while self.exit_status is None:
            self._wait()
            self._check_time()
            self._handle_inbox()
            self._report_findings()
        self._stop()
        return self.exit_status

    def status(self) -> dict[str, Any]:
        """The status object."""
        return self._publisher.status(self.vm)

    # Wait and receive.

    def _listen(self, source: Any, callback: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, callback)

    def _wait(self) -> None:
        """Sleep until something is readable or due, and receive what is there."""
        self.knowledge.note_stall(self._stall.seconds())
        now = self._clock().now
        dues = (self._timers.next_due(), self._supervisor.next_due())
        waits = [due - now for due in dues if due is not None]
        busy = self.inbox or self._waiting_workers
        seconds = 0.0 if busy else max(0.0, min([TICK_SECONDS, *waits]))
        self._receive(seconds)

    def _receive(self, seconds: float) -> None:
        """Receive what is readable within so many seconds."""
        ready = self._selector.select(seconds)
        self._stall.start()
        for key, _ in ready:
            key.data()

    def _check_time(self) -> None:
        now = self._clock().now
        self._supervisor.check(now)
        self._start_waiting_workers()
        self._tasks.check(now)
        if self._control:
            self._control.expire(now)
        self._reload_wanted |= self._configuration.changed()
        if self._reload_wanted and not self._tasks.under_way(RELOAD):
            self._reload_wanted = False
            known = self.knowledge
            self._tasks.start(reload_task(known.sources, known.current()))
        for name in self._timers.take_due(now):
            self.inbox.append(facts.DeadlinePassed(name))
        self._publisher.publish_line(self.vm)
        self._memory_timer.release_if_due(now)
        if self._supervisor.healthy(CRITICAL):
            self._notifier.alive()
        if self.vm.end:
            self._notifier.extend_timeout(EXTENSION_SECONDS)

    def _receive_signals(self) -> None:
        for name in self._signals.drain():
            if name == RELOADING:
                self._reload_wanted = True
            elif name == DUMP:
                log.warning("status: %s", self.status())
            else:
                self.inbox.append(facts.SignalReceived(name))

    # One fact.

    def _handle_inbox(self) -> None:
        while self.inbox and self.exit_status is None:
            self._handle(self.inbox.popleft())

    def _handle(self, fact: Fact) -> None:
        """Observe, decide, persist, act."""
        if self._is_repeated(fact) or not self._delivery.expects(fact):
            log.debug("ignored: %r", fact)
            return
        if isinstance(fact, facts.CommandValidated):
            fact = with_settings_checked(fact, self.knowledge.settings)
        observe = OBSERVERS.get(type(fact))
        if observe:
            observe(self, fact)
        moment = self._clock()
        before, (after, wanted) = self.vm, step(self.vm, fact, moment)
        if after is before and not wanted:
            log.debug("nothing to do in %s on %r", after.state.value, fact)
        else:
            self._persist(after, wanted, moment)
            self.vm = after
            if after.state is not before.state:
                cause = type(fact).__name__
                log.info("%s -> %s on %s", before.state.value, after.state.value, cause)
            if after.flushing and not before.flushing:
                self._log_pending_events()
            self._act(wanted)
            self._publisher.publish(before, after)
            reach("arbiter.acted")
        if isinstance(fact, facts.CommandValidated):
            reach("arbiter.obeyed")
        self._deliver(fact)

    def _is_repeated(self, fact: Fact) -> bool:
        """Whether this is a command that was accepted before, in whichever boot."""
        if not isinstance(fact, facts.CommandReceived) or not fact.id:
            return False
        known = self.journal.command(fact.id) is not None
        if known:
            log.info("command %s is known already", fact.id)
        return known

    def _deliver(self, fact: Fact) -> None:
        """Record the delivery that the fact reports, and hand over the next event.

        An event leaves the journal only when all that its delivery led to is in it.
        """
        self._delivery.record(fact)
        if self._delivery.offer() and self.vm.flushing and not self.inbox:
            self.inbox.append(facts.EventsFlushed())

    # Observe: what is remembered beside the state, and who is notified.

    def _observe_worker(self, fact: facts.WorkerStarted) -> None:
        if fact.worker == UPLINK:
            self._delivery.renew(fact.pid)
        reference = self.vm.job.reference if self.vm.job else ()
        self._supervisor.send(fact.worker, FollowJob(*reference))
        self._publisher.publish_heartbeat(self.vm)

    def _observe_sample(self, fact: facts.MachineSampled) -> None:
        self.knowledge.vm_health = fact.vm_health
        self._publisher.publish_heartbeat(self.vm)

    def _observe_machine(self, fact: facts.PreflightDone) -> None:
        """Print the checks that failed; in a cloud, start the notice-watcher."""
        for row in fact.report:
            if row["status"] == "fail":
                hint = f"; {row['hint']}" if row["hint"] else ""
                line = f"miglet: {row['id']}: {row['detail']}{hint}"
                sys.stderr.write(one_line(line) + "\n")
        if fact.machine.get("cloud"):
            self._waiting_workers.append(IN_A_CLOUD)

    def _observe_answer(self, fact: facts.ControllerAnswered) -> None:
        self.knowledge.note_answer(fact, self._clock().now)

    def _observe_failure(self, fact: facts.ControllerFailed) -> None:
        self.knowledge.note_failure(fact)

    def _observe_command(self, fact: facts.CommandValidated) -> None:
        """Log why it was not obeyed: an operator and a reload get no event."""
        if fact.failure:
            log.error("%s by %s failed: %s", fact.type, fact.requested_by, fact.failure)
        elif fact.faults:
            reasons = "; ".join(fact.faults)
            log.warning("%s by %s rejected: %s", fact.type, fact.requested_by, reasons)

    def _observe_token(self, fact: facts.ControllerTokenTaken) -> None:
        """Send a heartbeat: its success shows that the controller accepts the token."""
        self._publisher.publish_heartbeat(self.vm, at_once=True)

    def _observe_removal(self, fact: facts.RunnerRemoved) -> None:
        log.info("deregistration: %s: %s", fact.removal, fact.detail)

    def _observe_kill(self, fact: facts.RunKilled) -> None:
        log.warning("kill of run %s: %s", fact.run_id, fact.outcome)

    # Persist.

    def emit(self, event: Event) -> None:
        """Journal an event that no rule of the lifecycle emitted.

        After the last event, which is VMStopped, it is only logged.
        """
        if self.vm.flushing:
            log.warning("not reported after the last event: %s", event)
            return
        self._persist(self.vm, [effects.Emit(event)], self._clock())

    def close_lost_job(self, wanted: list[effects.Effect], moment: Moment) -> None:
        """Persist the end of a job that another boot began."""
        self._persist(self.vm, wanted, moment)

    def _persist(self, after: Vm, wanted: list[effects.Effect], moment: Moment) -> None:
        """One transaction: the new state, its events, commands and their answers."""
        emitted = [each for each in wanted if isinstance(each, effects.Emit)]
        if not emitted and not after.differs_from(self.vm):
            return
        state, identity, at = after.state.value, self.knowledge.identity, moment.at
        events = [
            seal(self._with_dropped_count(each.event), identity, each.job, state, at)
            for each in emitted
        ]
        commands: dict[str, dict[str, Any]] = {
            each.command.id: {
                "command_id": each.command.id,
                "command_type": each.command.type,
            }
            for each in wanted
            if isinstance(each, effects.AcceptCommand)
        }
        commands |= {
            each.event.command_id: dataclasses.asdict(each.event)
            for each in emitted
            if isinstance(each.event, CommandCompleted)
        }
        self.journal.record(after.to_json(), events, commands)
        for each in emitted:
            self._log(each.event)

    def _with_dropped_count(self, event: Event) -> Event:
        """VMStopped with what only the journal knows; any other event as it is."""
        if isinstance(event, VMStopped):
            dropped = self.journal.counts().dropped
            return dataclasses.replace(event, events_dropped=dropped)
        return event

    def _log(self, event: Event) -> None:
        if isinstance(event, Error):
            self.knowledge.last_error = f"{event.code}: {event.message}"
            hint = f"; {event.hint}" if event.hint else ""
            log.error("%s: %s%s", event.code, event.message, hint)
        elif isinstance(event, CommandCompleted):
            outcome = event.outcome + (f": {event.reason}" if event.reason else "")
            log.info("%s %s: %s", event.command_type, event.command_id, outcome)

    def _log_pending_events(self) -> None:
        """Log what the end waits for: somebody may have just pressed Ctrl-C."""
        end = self.vm.end
        final = end is None or end.final
        log.info(
            "%d events are left to send, for shutdown.%s at most;"
            " the third SIGTERM or SIGINT ends MIGlet at once",
            self.journal.counts().pending,
            "delivery_timeout" if final else "grace_period",
        )

    def _answer_former_commands(self) -> None:
        """Answer the commands that an earlier boot accepted and did not answer."""
        for identity, accepted in self.journal.open_commands().items():
            if identity not in self.vm.commands:
                kind = accepted["command_type"]
                self.emit(CommandCompleted(identity, kind, "failed", CUT_SHORT))

    def _report_findings(self) -> None:
        """Report each finding of the journal as an event."""
        for found in self.journal.take_findings():
            self.emit(error_of(found))

    # Act.

    def _act(self, wanted: list[effects.Effect]) -> None:
        for effect in wanted:
            perform = PERFORMERS.get(type(effect))
            if perform:
                perform(self, effect)

    def _give_order(self, effect: effects.GiveOrder) -> None:
        self._supervisor.send(effect.order.to, effect.order)

    def _set_timer(self, effect: effects.SetTimer) -> None:
        self._timers.start(effect.name, self._clock().now + effect.seconds)

    def _stop_timer(self, effect: effects.StopTimer) -> None:
        self._timers.stop(effect.name)

    def _post(self, effect: effects.Post) -> None:
        self.inbox.appendleft(effect.fact)

    def _accept_command(self, effect: effects.AcceptCommand) -> None:
        reach("command.accepted")
        at = self.knowledge.controllers_time(self._clock().at)
        task = validation_task(effect.command, self.knowledge.current(), at)
        self._tasks.start(task)

    def _change_settings(self, effect: effects.ChangeSettings) -> None:
        """Apply changed settings at once, here and in every worker."""
        before, settings = self.knowledge.settings, Settings.of(effect.settings)
        self.knowledge.settings = settings
        self.knowledge.origins = effect.origins or self.knowledge.origins
        logger.set_redaction(settings.logging.redact_secrets)
        if settings.logging.level != before.logging.level:
            # Otherwise the level that SetLogLevel has set stays.
            self._change_level(effects.ChangeLevel(settings.logging.level))
        self._supervisor.broadcast(ApplySettings(effect.settings))
        self.vm, timers = change_policy(self.vm, Policy.of(settings), self._clock())
        self._act(timers)

    def _change_level(self, effect: effects.ChangeLevel) -> None:
        self.knowledge.log_level = effect.level
        logger.set_level(effect.level)
        self._supervisor.broadcast(SetLevel(effect.level))

    def _kill_run(self, effect: effects.KillRun) -> None:
        settings = self.knowledge.settings.as_dict()
        main = by_name(__name__, kill_run.__name__, settings, effect.run_id)
        failed = facts.RunKilled(effect.run_id, "the child that was to do it failed")
        self._tasks.start(ChildTask("kill-run", main, KILL_SECONDS, failed))

    def _stop_workers(self, effect: effects.StopWorkers) -> None:
        self._waiting_workers.clear()
        self._supervisor.stop_workers(name for name in NAMES if name != UPLINK)

    def _exit(self, effect: effects.Exit) -> None:
        self.exit_status = effect.status

    # Workers, and the end.

    def _start_waiting_workers(self) -> None:
        """Fork one after the other; each gets its orders before the next is forked."""
        while self._waiting_workers:
            name = self._waiting_workers.pop(0)
            main = functools.partial(self._work, name)
            self._supervisor.start(name, main, facts_of(name))
            self._handle_inbox()

    def _work(self, name: str, queue: Queue) -> None:
        """In the child: run the worker with the settings of this moment."""
        known = self.knowledge
        worker_class(name)(known.settings, known.identity)(queue)

    def _stop(self) -> None:
        reach("arbiter.leaving")
        self._notifier.stopping()
        self._tasks.stop()
        self._supervisor.stop(LAST_GRACE_SECONDS)
        if self._control:
            self._control.close()
        self._signals.close()


#: What is observed of each fact before the lifecycle decides.
OBSERVERS: dict[type[Fact], Callable[[Arbiter, Any], None]] = {
    facts.WorkerStarted: Arbiter._observe_worker,
    facts.MachineSampled: Arbiter._observe_sample,
    facts.PreflightDone: Arbiter._observe_machine,
    facts.ControllerAnswered: Arbiter._observe_answer,
    facts.ControllerFailed: Arbiter._observe_failure,
    facts.CommandValidated: Arbiter._observe_command,
    facts.ControllerTokenTaken: Arbiter._observe_token,
    facts.RunnerRemoved: Arbiter._observe_removal,
    facts.RunKilled: Arbiter._observe_kill,
}

#: How each effect is performed. `Emit` is not here: events are persisted, with the new
#: state, before anything is done.
PERFORMERS: dict[type[effects.Effect], Callable[[Arbiter, Any], None]] = {
    effects.GiveOrder: Arbiter._give_order,
    effects.SetTimer: Arbiter._set_timer,
    effects.StopTimer: Arbiter._stop_timer,
    effects.Post: Arbiter._post,
    effects.AcceptCommand: Arbiter._accept_command,
    effects.ChangeSettings: Arbiter._change_settings,
    effects.ChangeLevel: Arbiter._change_level,
    effects.KillRun: Arbiter._kill_run,
    effects.StopWorkers: Arbiter._stop_workers,
    effects.Exit: Arbiter._exit,
}


def error_of(found: JournalFinding) -> Error:
    """The Error event that reports a finding of the journal."""
    counts = ", ".join(f"{name}: {number}" for name, number in found.counts.items())
    message = f"{found.message} ({counts})" if counts else found.message
    return Error("infrastructure", found.code, message, "journal")


def kill_run(queue: Queue, settings: dict[str, Any], run_id: str) -> None:
    """In a child: SIGKILL for all processes of this run."""
    run = runner_launcher(Settings.of(settings)).recorded()
    if run is None or run.run_id != run_id:
        queue.put(facts.RunKilled(run_id, "there is no record of it"))
        return
    run.kill(KILL_SECONDS / 2)
    queue.put(facts.RunKilled(run_id, "still alive" if run.alive() else "dead"))
