"""Puts the daemon together from settings, and runs it.

Everything that the workers share is imported by the imports of this module, before
the first of them is forked.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from miglet import __version__, logger
from miglet.agent import control_api
from miglet.agent.arbiter import Arbiter, current_moment
from miglet.agent.failed_starts import EarlyFailures, wait_before_start
from miglet.agent.last_resort import writing_task
from miglet.agent.status import Knowledge
from miglet.config.settings import Settings
from miglet.errors import DONE, UNDELIVERED, MigletError
from miglet.journal.journal import Journal
from miglet.lifecycle.job import lose_job
from miglet.lifecycle.vm import End, Moment, Policy, Vm
from miglet.messages.codec import Fact
from miglet.messages.events import Identity
from miglet.messages.facts import (
    EventsWritten,
    MachineDescription,
    PreflightDone,
    SettingsLoaded,
    SettingsRefused,
)
from miglet.runner.identity import ProcessIdentity, boot_id
from miglet.runner.launcher import runner_launcher
from miglet.supervisor import privileges, systemd
from miglet.supervisor.children import RunningTask
from miglet.supervisor.systemd import Notifier, systemd_usable
from miglet.workers.registry import ALWAYS, UPLINK
from miglet.workers.warmup import warm_up

#: Seconds on top of bootstrap.timeout after which the bootstrap counts as hung.
BOOTSTRAP_MARGIN = 5.0

#: The longest vm_id that is part of a runner's name as it is: the name has at most 64
#: characters, of which nine are the boot's and up to seven a number's.
LONGEST_VM_ID = 48

#: How long the order to switch off may take to be accepted; it takes about 10 ms.
ORDER_SECONDS = 10.0

#: What `systemctl poweroff` asks of the service manager, without asking logind first,
#: which wants capabilities that the unit has not (systemctl(1), systemd.special(7)).
UNDER_SYSTEMD = (
    *("systemctl", "--no-block", "--job-mode=replace-irreversibly"),
    *("start", "poweroff.target"),
)
ELSEWHERE = ("poweroff",)

log = logging.getLogger(__name__)


def serve(
    heard: list[Fact],
    bootstrap: RunningTask,
    sources: dict[str, Any],
    load: Callable[[], tuple[list[Fact], RunningTask]],
    notifier: Notifier,
    failures: EarlyFailures,
) -> int:
    """Serve with what the bootstrap has reported so far; the exit status.

    `load` starts another bootstrap: one after a failed start begins when the wait is
    over.
    """
    first = first_result(heard)
    knowledge = learn(first, sources)
    journal = open_journal(knowledge.settings)
    vm = restore_vm(journal, new_vm(knowledge))
    if vm.failed_start and vm.failed_start.repeats:
        bootstrap.finish()
        wait_before_start(notifier, vm.failed_start.code, vm.failed_start.repeats)
        heard, bootstrap = load()
        first = first_result(heard)
        knowledge = learn(first, sources)
        vm = vm.replace(policy=Policy.of(knowledge.settings))
    settings = knowledge.settings
    warn_about_privileges()
    arbiter = Arbiter(vm, knowledge, journal, notifier, configuration_file(sources))
    close_job_of_another_boot(arbiter, journal)
    arbiter.inbox.extend(heard)
    if isinstance(first, SettingsLoaded):
        limit = settings.bootstrap.timeout + BOOTSTRAP_MARGIN
        bootstrap.extend(limit, hung_bootstrap())
        arbiter.follow(bootstrap)
    else:
        bootstrap.finish()
    socket_path = str(Path(settings.paths.runtime) / "control.sock")
    changing = frozenset(control_api.COMMAND_OF)
    arbiter.open_control(socket_path, control_api.answer, changing)
    notifier.ready(arbiter.vm.state.value)
    warm_up(settings, knowledge.identity)
    failures.passed()
    workers = [UPLINK] if isinstance(first, SettingsRefused) else ALWAYS
    status = run(arbiter, journal, workers)
    log.info("exit status %d", status)
    action = arbiter.knowledge.settings.shutdown.action
    if power_off_is_due(action, arbiter.vm.end, status):
        power_off(UNDER_SYSTEMD if systemd_usable() else ELSEWHERE)
    return status


def run(arbiter: Arbiter, journal: Journal, workers: Iterable[str]) -> int:
    """Run the arbiter with these workers; leave in the journal what a start needs."""
    status = None
    with logger.last_words():
        try:
            arbiter.start_workers(workers)
            status = arbiter.run()
        finally:
            if status is None:
                # The runner goes on, and the next start adopts it.
                with contextlib.suppress(MigletError):
                    journal.record(arbiter.vm.after_crash().to_json(), [])
    vm, settings = arbiter.vm, arbiter.knowledge.settings
    if vm.flushing and vm.end and status != UNDELIVERED:
        mark_runner_reported(settings)
        if vm.end.final:
            # An end in order leaves nothing to go on with: the next start is a new one.
            write_last_resort(settings, journal, rejected=True)
            journal.discard_state()
        else:
            journal.record(vm.for_next_start().to_json(), [])
    elif vm.flushing:
        write_last_resort(settings, journal, rejected=False)
    journal.close()
    return status


def write_last_resort(settings: Settings, journal: Journal, rejected: bool) -> None:
    """Write what was not delivered to shutdown.last_resort.

    `rejected`: the controller was asked for the last time, and no start asks again.
    """
    events = journal.undelivered()
    target = settings.shutdown.last_resort
    if not events:
        return
    log.error("%d events were not delivered", len(events))
    if target != "none":
        for fact in RunningTask(writing_task(target, events)).wait():
            if isinstance(fact, EventsWritten):
                log.warning("%d written to %s %s", fact.count, target, fact.reason)
    for event in events if rejected else ():
        journal.refused(event["sequence"], None, "not accepted before the end")


def first_result(heard: list[Fact]) -> SettingsLoaded | SettingsRefused:
    """What became of the configuration."""
    return next(
        each for each in heard if isinstance(each, SettingsLoaded | SettingsRefused)
    )


def open_journal(settings: Settings) -> Journal:
    """The journal in its first usable place."""
    places = [Path(settings.paths.state), Path(settings.paths.runtime)]
    return Journal.open([place / "journal.db" for place in places], boot_id())


def learn(
    first: SettingsLoaded | SettingsRefused, sources: dict[str, Any]
) -> Knowledge:
    """What is known at the start; logging works from here on."""
    settings = Settings.of(first.settings or {})
    identity = Identity(
        settings.vm_id, settings.pool_id, settings.org_id, uuid.uuid4().hex
    )
    who = {"vm_id": identity.vm_id, "pool_id": identity.pool_id}
    who |= {"org_id": identity.org_id, "component": "arbiter"}
    wanted = settings.logging
    logger.install(who, wanted.level, wanted.format, wanted.redact_secrets)
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    log.info("MIGlet %s starts as %s", __version__, identity.vm_id)
    return Knowledge(
        settings=settings,
        identity=identity,
        origins=getattr(first, "origins", []),
        sources=sources,
        pid=os.getpid(),
        boot_id=boot_id(),
        started_now=time.monotonic(),
        log_level=settings.logging.level,
    )


def configuration_file(sources: dict[str, Any]) -> str:
    """The configuration file that is watched for changes."""
    named = sources.get("file") or os.environ.get("MIGLET_CONFIG")
    return named or "/etc/miglet/miglet.yaml"


def new_vm(known: Knowledge) -> Vm:
    """A machine at the beginning of a boot."""
    policy = Policy.of(known.settings)
    return Vm(
        runner_name(known.identity.vm_id, boot_id()),
        policy,
        since=time.time(),
        timeline=first_steps(),
    )


def runner_name(vm_id: str, boot: str) -> str:
    """The name of a boot's first registration: one that GitHub has not seen before.

    GitHub takes at most 64 characters; those of later registrations have a number, too.
    """
    if len(vm_id) > LONGEST_VM_ID:
        digest = hashlib.sha256(vm_id.encode()).hexdigest()[:8]
        vm_id = f"{vm_id[: LONGEST_VM_ID - 9]}-{digest}"
    return f"{vm_id}-{boot[:8]}"


def first_steps() -> dict[str, float]:
    """When the kernel and this process started, in ms since the former."""
    us = ProcessIdentity.of(os.getpid())
    ticks = us.start_time if us else 0
    return {"kernel": 0.0, "miglet": ticks * 1000 / os.sysconf("SC_CLK_TCK")}


def restore_vm(journal: Journal, vm: Vm) -> Vm:
    """The machine as a MIGlet of this boot left it, or the new one."""
    kept = journal.state()
    if kept is None or journal.saved_boot_id != boot_id():
        return vm
    return Vm.restore(kept, vm.policy, current_moment())


def close_job_of_another_boot(arbiter: Arbiter, journal: Journal) -> None:
    """Complete the job that a restart of the machine has ended; forget that boot."""
    kept = journal.state()
    if kept is None or journal.saved_boot_id == boot_id():
        return
    former = Vm.restore(kept, arbiter.vm.policy, current_moment())
    if former.job is None:
        journal.discard_state()
        return
    since = max(0.0, time.time() - former.job.seen_at)
    moment = Moment(time.time(), former.job.seen_now + since)
    reason = "the machine was started again"
    _, wanted = lose_job(former, moment, "machine_restarted", reason)
    arbiter.close_lost_job(wanted, moment)


def mark_runner_reported(settings: Settings) -> None:
    """All that the last runner did is reported: the next start does not repeat it."""
    run = runner_launcher(settings).recorded()
    with contextlib.suppress(OSError):
        if run:
            run.mark_reported()


def hung_bootstrap() -> PreflightDone:
    """What is reported when the child that checks the machine does not answer."""
    fault = {
        "id": "bootstrap",
        "status": "fail",
        "milliseconds": 0.0,
        "detail": "the checks of the machine did not end",
        "hint": "see bootstrap.timeout, and MIGlet's log",
        "category": "infrastructure",
    }
    machine: dict[str, Any] = dict.fromkeys(MachineDescription.__annotations__)
    machine |= {"version": __version__, "boot_id": boot_id(), "timeline": {}}
    return PreflightDone([fault], machine)


def warn_about_privileges() -> None:
    """Say once when less is separated than could be."""
    if os.geteuid() != 0:
        log.warning("not started as root: no worker drops privileges")
        return
    for user in privileges.USERS:
        found = privileges.unprivileged_account(user)
        if found is None:
            log.warning("there is no user %s: its process stays root", user)
        elif found.name != user:
            log.warning("there is no user %s: its process is %s", user, found.name)


def power_off_is_due(action: str, end: End | None, exit_status: int) -> bool:
    """Whether the machine is switched off: its work is done, and nobody else ends it.

    After any other exit status MIGlet is started again, or somebody has to look.
    """
    ours = end is not None and end.requested_by != "signal"
    return action == "poweroff" and ours and exit_status == DONE


def power_off(command: Sequence[str]) -> None:
    """Have the machine switched off, in order; only a log line tells of a failure."""
    log.info("the machine is switched off: %s", " ".join(command))
    try:
        systemd.order(command, ORDER_SECONDS)
    except systemd.CommandFailed as error:
        log.error("the machine cannot be switched off: %s", error)
