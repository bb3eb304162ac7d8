"""Starts the daemon: forks the bootstrap child, imports what the workers share, waits
for the settings, takes the lock, then calls `daemon.serve`.

The child that loads the configuration is forked before anything heavy is imported:
while it reads YAML, this process imports what the workers will share.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# First: it has to spare this process what the imports below would bring along.
from miglet.supervisor import lean_imports, signals

# isort: split
from miglet.agent.failed_starts import (
    ALIVE_SECONDS,
    EarlyFailures,
    wait_before_start,
)
from miglet.errors import (
    INTERNAL,
    NO_ROOM,
    Fault,
    MigletError,
    Misconfigured,
    NoRoom,
)
from miglet.formats import one_line
from miglet.messages.codec import Fact
from miglet.messages.facts import (
    FaultNoted,
    PreflightDone,
    SettingsLoaded,
    SettingsRefused,
)
from miglet.runner.identity import boot_id
from miglet.supervisor.children import ChildTask, RunningTask, by_name
from miglet.supervisor.systemd import Notifier

#: Seconds in which a configuration must be loaded.
LOAD_SECONDS = 30.0


class AlreadyRunning(MigletError):
    """Another MIGlet has the runtime folder."""

    exit_status = INTERNAL


def start(sources: dict[str, Any]) -> int:
    """Run the daemon; its exit status. Raises Misconfigured when nothing can run."""
    signals.die_by_interrupt()
    # No holes in the pages that the workers will share; see the note in gc.freeze's
    # documentation. Collection begins again in the arbiter, and in each child.
    gc.disable()
    # Nobody reads it, and multiprocess would open another one in every child.
    sys.stdin = None
    notifier = Notifier(os.environ)
    with EarlyFailures(os.environ, boot_id(), (AlreadyRunning,)) as failures:
        if failures.last:
            wait_before_start(notifier, failures.last.reason, failures.last.repeats)
        bootstrap = RunningTask(bootstrap_task(sources))
        lean_imports.import_for_workers()
        daemon = importlib.import_module("miglet.agent.daemon")
        heard = first_facts(bootstrap, notifier)
        with lock(runtime_folder(heard)):
            again = functools.partial(load, sources, notifier)
            return daemon.serve(heard, bootstrap, sources, again, notifier, failures)


def first_facts(bootstrap: RunningTask, notifier: Notifier) -> list[Fact]:
    """What the bootstrap reports first; the service manager hears that MIGlet lives."""
    heard: list[Fact] = []
    while not heard:
        notifier.alive()
        heard = bootstrap.wait(ALIVE_SECONDS)
    return heard


def load(sources: dict[str, Any], notifier: Notifier) -> tuple[list[Fact], RunningTask]:
    """Load the configuration; what is known by now, and who checks the machine.

    Raises Misconfigured when nothing can run with it.
    """
    bootstrap = RunningTask(bootstrap_task(sources))
    heard = first_facts(bootstrap, notifier)
    runtime_folder(heard)
    return heard, bootstrap


def runtime_folder(heard: list[Fact]) -> Path:
    """The folder that the settings name; prints what is wrong with the others.

    Raises Misconfigured when nothing can run with them.
    """
    first = next(
        each for each in heard if isinstance(each, SettingsLoaded | SettingsRefused)
    )
    if isinstance(first, SettingsRefused):
        faults = [Fault(**fault) for fault in first.faults]
        if first.settings is None:
            raise Misconfigured(faults, first.exit_status)
        for fault in faults:
            print(one_line(f"miglet: {fault}"), file=sys.stderr)  # noqa: T201
    assert first.settings is not None
    return Path(first.settings["paths"]["runtime"])


def bootstrap_task(sources: dict[str, Any]) -> ChildTask:
    """Load the configuration, then check the machine."""
    reason = f"it could not be loaded within {LOAD_SECONDS:g} s"
    fault = Fault("", "configuration", reason, "MIGlet's log says why")
    return ChildTask(
        name="bootstrap",
        main=by_name("miglet.bootstrap.main", "main", sources),
        timeout_seconds=LOAD_SECONDS,
        fallback=SettingsRefused([fault._asdict()], exit_status=INTERNAL),
        facts=frozenset({SettingsLoaded, PreflightDone, FaultNoted}),
        last_results=frozenset({PreflightDone}),
    )


@contextlib.contextmanager
def lock(runtime: Path) -> Iterator[None]:
    """Hold the runtime folder against a second MIGlet; AlreadyRunning if one has it."""
    try:
        runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(runtime / "lock", flags, 0o600)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise NoRoom(f"{runtime}: {error.strerror}") from None
        fault = Fault("paths.runtime", str(runtime), f"cannot be used: {error}")
        raise Misconfigured([fault]) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"another MIGlet runs with {runtime}") from None
        yield
    finally:
        os.close(descriptor)
