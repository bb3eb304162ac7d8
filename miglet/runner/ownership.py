"""Says whether a job could change what is started with a token in the runner's folder.

A job runs as the runner's user. What is started in that folder with a token in its
environment must therefore be root's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from miglet.runner.installation import DEFAULT_PATH
from miglet.supervisor.privileges import Account

#: The Listener reads `.env` at each start, and what stands there goes before its
#: environment. Both exist from the start, so that the runner's user cannot make them.
ENVIRONMENT_FILES = {".env": "LANG=C.UTF-8\n", ".path": f"{DEFAULT_PATH}\n"}

#: What of a release is started with a token, or read by what is.
ROOT_OWNED = (*ENVIRONMENT_FILES, "config.sh", "env.sh", "bin", "externals")

REINSTALL = (
    "install the runner with `miglet install-runner ARCHIVE`, into a folder whose"
    " parents are root's"
)


def same_user(account: Account | None) -> bool:
    """Whether jobs run as the user that MIGlet runs as, or as root.

    Nothing is then kept from a job, and who owns the runner's files says nothing.
    """
    return account is None or account.uid in (0, os.geteuid()) or os.geteuid() != 0


def weakness(directory: Path) -> str | None:
    """How a job could change what is started there, the first way found; None: none."""
    return next(weaknesses(directory), None)


def weaknesses(directory: Path) -> Iterator[str]:
    """Each path by which another user than root could change what is started."""
    top = directory.resolve()
    for place in [*reversed(top.parents), top]:
        found = place.stat()
        if found.st_uid != 0:
            yield f"{place} is not root's"
        elif found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            yield f"{place} is writable by others, and not sticky"
    roots = [(top / name).resolve() for name in ROOT_OWNED]
    for name, root in zip(ROOT_OWNED, roots, strict=True):
        if top not in root.parents:
            yield f"{top / name} leads out of the folder"
            continue
        yield from foreign(top / name)
        yield from weaknesses_below(root, roots)


def weaknesses_below(path: Path, roots: list[Path]) -> Iterator[str]:
    """As `weaknesses`, for a file or for a folder and all that is in it."""
    yield from foreign(path)
    if not path.is_dir():
        return
    with os.scandir(path) as entries:
        for entry in entries:
            below = Path(entry.path)
            if not entry.is_symlink():
                yield from weaknesses_below(below, roots)
                continue
            yield from foreign(below)
            target = below.resolve()
            if not any(root in (target, *target.parents) for root in roots):
                yield f"{below} leads to what is not root's"


def foreign(path: Path) -> Iterator[str]:
    """What is wrong with the owner and the mode of `path`, not of a link's target."""
    try:
        found = path.lstat()
    except OSError as error:
        yield f"{path}: {error.strerror}"
        return
    if found.st_uid != 0:
        yield f"{path} is not root's"
    elif found.st_mode & 0o022 and not stat.S_ISLNK(found.st_mode):
        yield f"{path} is writable by others"
