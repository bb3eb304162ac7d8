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
from pathlib import Path
from typing import Any

from miglet import __version__, logger
from miglet.agent import control_api, poweroff
from miglet.agent.arbiter import Arbiter
from miglet.agent.herald import present
from miglet.agent.house import House
from miglet.agent.status import Knowledge
from miglet.config.settings import Settings
from miglet.errors import UNDELIVERED
from miglet.journal.journal import Journal
from miglet.lifecycle.job import lose_job
from miglet.lifecycle.vm import Moment, Policy, Vm
from miglet.messages.codec import Fact
from miglet.messages.events import Identity
from miglet.messages.facts import (
    MachineDescription,
    PreflightDone,
    SettingsLoaded,
    SettingsRefused,
)
from miglet.runner.identity import ProcessIdentity, boot_id
from miglet.runner.launcher import runner_launcher
from miglet.supervisor import confinement
from miglet.supervisor.children import RunningTask
from miglet.supervisor.systemd import Notifier
from miglet.workers.registry import ALWAYS, UPLINK
from miglet.workers.warmup import rehearse

#: Seconds on top of bootstrap.timeout after which the bootstrap counts as hung.
BOOTSTRAP_MARGIN = 5.0

#: The longest vm_id that is part of a runner's name as it is: the name has at most 64
#: characters, of which nine are the boot's and up to seven a number's.
LONGEST_VM_ID = 48

log = logging.getLogger(__name__)


def serve(heard: list[Fact], bootstrap: RunningTask, sources: dict[str, Any]) -> int:
    """Serve with what the bootstrap has reported so far; the exit status."""
    first = next(
        each for each in heard if isinstance(each, SettingsLoaded | SettingsRefused)
    )
    known = knowledge(first, sources)
    settings = known.settings
    warn_about_privileges()
    places = [Path(settings.paths.state), Path(settings.paths.runtime)]
    journal = Journal.open([place / "journal.db" for place in places], boot_id())
    house = House(new_vm(known), known, journal, Notifier(os.environ))
    take_over(house)
    house.inbox.extend(heard)
    arbiter = Arbiter(house, configuration_file(sources))
    if isinstance(first, SettingsLoaded):
        limit = settings.bootstrap.timeout + BOOTSTRAP_MARGIN
        bootstrap.extend(limit, hung_bootstrap())
        house.tasks.follow(bootstrap)
    else:
        bootstrap.finish()
    socket_path = str(Path(settings.paths.runtime) / "control.sock")
    arbiter.open_control(socket_path, control_api.answer, control_api.CHANGING)
    rehearse(settings, known.identity)
    arbiter.hire([UPLINK] if isinstance(first, SettingsRefused) else ALWAYS)
    with logger.last_words():
        status = arbiter.run()
    if house.vm.flushing and status != UNDELIVERED:
        settle_runner(known.settings)
        if house.vm.end and house.vm.end.final:
            # An end in order leaves nothing to go on with: the next start is a new one.
            journal.discard_state()
        else:
            journal.record(house.vm.for_next_start().to_json(), [])
    journal.close()
    log.info("the end: exit status %d", status)
    if poweroff.due(known.settings.shutdown.action, house.vm.end, status):
        poweroff.power_off()
    return status


def knowledge(
    first: SettingsLoaded | SettingsRefused, sources: dict[str, Any]
) -> Knowledge:
    """What is known at the start; logging works from here on."""
    settings = Settings.of(first.settings or {})
    identity = Identity(
        settings.vm_id, settings.pool_id, settings.org_id, uuid.uuid4().hex
    )
    who = {"vm_id": identity.vm_id, "pool_id": identity.pool_id}
    who |= {"org_id": identity.org_id, "component": "arbiter"}
    logger.install(settings.logging, who)
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
    """The file that a change of is to be heeded."""
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


def take_over(house: House) -> None:
    """Go on where a MIGlet before this one has left off, or close what it left."""
    journal = house.journal
    kept = journal.state()
    if kept is None:
        return
    former = Vm.restore(kept, house.vm.policy, present())
    if journal.saved_boot_id == boot_id():
        house.vm = former
    elif former.job:
        since = max(0.0, time.time() - former.job.seen_at)
        moment = Moment(time.time(), former.job.seen_now + since)
        reason = "the machine was started again"
        _, effects = lose_job(former, moment, "machine_restarted", reason)
        house.record(house.vm, effects, moment)
    else:
        journal.discard_state()


def settle_runner(settings: Settings) -> None:
    """All that the last runner did is told: the next life is not to tell it again."""
    run = runner_launcher(settings).recorded()
    with contextlib.suppress(OSError):
        if run:
            run.settle()


def hung_bootstrap() -> PreflightDone:
    """What is reported when the child that checks the machine does not answer."""
    fault = {
        "id": "bootstrap",
        "status": "fail",
        "milliseconds": 0.0,
        "detail": "the checks of the machine did not come to an end",
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
    if not confinement.miglet_user_exists():
        log.warning(
            "there is no user %s: the workers stay root", confinement.MIGLET_USER
        )
