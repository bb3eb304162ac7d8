"""Named points at which a test can have MIGlet die; on a real machine they do nothing.

``MIGLET_FAILPOINTS`` names a file with a line for each point that is to do something.
A file that somebody else than root or we ourselves could have written is ignored.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "MIGLET_FAILPOINTS"


def kill() -> None:
    """Die without a last word."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_with_parent() -> None:
    """Have the parent die first: a worker takes all of MIGlet along."""
    os.kill(os.getppid(), signal.SIGKILL)
    kill()


def stop() -> None:
    """Stand still until somebody sends SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)


def leave() -> None:
    """End with a status that says that something is wrong."""
    os._exit(1)


#: What a line of the file may order.
ACTIONS: dict[str, Callable[[], None]] = {
    "kill": kill,
    "stop": stop,
    "kill-with-parent": kill_with_parent,
    "exit": leave,
}


@dataclass
class Point:
    """What is to happen at one point, and how often this process has reached it."""

    number: int
    #: Whether it happens from then on each time, or once in all processes' lives.
    always: bool
    act: Callable[[], None]
    #: Is there as soon as it has happened, for the processes that come after.
    mark: Path
    reached: int = 0

    def reach(self) -> None:
        """Count, and act when it is time."""
        self.reached += 1
        if self.always and self.reached >= self.number:
            self.act()
        if self.reached == self.number and self._is_first():
            self.act()

    def _is_first(self) -> bool:
        try:
            os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        return True


def planned(environ: Mapping[str, str]) -> dict[str, Point]:
    """The points of the file that the environment names: ``NAME NUMBER[+] ACTION``.

    Raises OSError, KeyError or ValueError for a file that is none.
    """
    named = environ.get(VARIABLE)
    if not named or not is_ours(Path(named)):
        return {}
    plan = {}
    for line in Path(named).read_text(encoding="ascii").splitlines():
        name, number, action = line.split()
        mark = Path(f"{named}.{name}")
        always = number.endswith("+")
        plan[name] = Point(int(number.rstrip("+")), always, ACTIONS[action], mark)
    return plan


def is_ours(path: Path) -> bool:
    """Whether nobody but root and ourselves could have written the file."""
    seen = path.lstat()
    safe = stat.S_ISREG(seen.st_mode) and not seen.st_mode & 0o022
    return safe and seen.st_uid in (0, os.geteuid())


#: Read once, before anything is forked.
PLAN = planned(os.environ)


def reach(name: str) -> None:
    """This point of the program is reached."""
    if name in PLAN:
        PLAN[name].reach()
