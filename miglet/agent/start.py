"""The start of the daemon: settings, lock, journal, control socket, crew, loop.

The child that loads the configuration is forked before anything heavy is imported:
while it reads YAML, this process imports what the workers will share.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# First: it has to spare this process what the imports below would bring along.
from miglet.supervisor import lean_imports, signals

# isort: split
from miglet.errors import (
    INTERNAL,
    BadMessage,
    Fault,
    MigletError,
    Misconfigured,
)
from miglet.messages.facts import SettingsRefused
from miglet.supervisor.children import Child, by_name

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
    child = Child("bootstrap", by_name("miglet.bootstrap.main", "main", sources))
    lean_imports.import_for_workers()
    daemon = importlib.import_module("miglet.agent.daemon")
    heard = first_facts(child)
    first = heard[0]
    if isinstance(first, SettingsRefused):
        for fault in first.faults:
            print(f"miglet: {Fault(**fault)}", file=sys.stderr)  # noqa: T201
    if first.settings is None:
        return first.exit_status
    with lock(Path(first.settings["paths"]["runtime"])):
        return daemon.serve(heard, child, sources)


def first_facts(child: Child) -> list[Any]:
    """What became of the configuration, and what else the child has said by then."""
    ready = select.select([child.queue], [], [], LOAD_SECONDS)[0]
    try:
        heard = child.queue.drain() if ready else []
    except BadMessage as error:
        raise MigletError(f"the configuration could not be loaded: {error}") from None
    if not heard:
        raise MigletError(f"no configuration within {LOAD_SECONDS:g} s")
    return heard


@contextlib.contextmanager
def lock(runtime: Path) -> Iterator[None]:
    """Hold the runtime folder against a second MIGlet; AlreadyRunning if one has it."""
    try:
        runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(runtime / "lock", flags, 0o600)
    except OSError as error:
        fault = Fault("paths.runtime", str(runtime), f"cannot be used: {error}")
        raise Misconfigured([fault]) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise AlreadyRunning(f"another MIGlet runs with {runtime}") from None
    finally:
        os.close(descriptor)
