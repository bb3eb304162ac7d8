"""A place in the file system for a listening socket, taken and given back safely.

The rule that holds here: nothing but a dead socket of our own is ever replaced, and
nothing but our own socket is ever removed. At no moment is the socket more open
than it is meant to be.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import stat
from collections.abc import Iterator
from typing import NamedTuple

from miglet.errors import MISCONFIGURED, UNAVAILABLE, MigletError

#: sockaddr_un has room for so many bytes and a NUL (unix(7)).
LONGEST_PATH = 107

#: Connections that may wait to be accepted.
BACKLOG = 64

#: Connections accepted before those that are open have their turn.
ACCEPTS_A_TURN = 16

#: Owner and group may connect, others not.
MODE = 0o660


class SocketUnusable(MigletError):
    """The control socket cannot be where it should be."""

    category = "misconfig"
    exit_status = MISCONFIGURED
    hint = "set paths.runtime to a directory that only MIGlet writes to"


class SocketInUse(SocketUnusable):
    """Somebody listens there already: another MIGlet, most likely."""

    exit_status = UNAVAILABLE
    hint = "stop the other MIGlet first, or set another paths.runtime"


class Place(NamedTuple):
    """A socket's path and what is there: the socket that we put there."""

    path: str
    device: int
    inode: int


def group_id(name: str) -> int | None:
    """The number of group `name`; None when there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def listen_at(path: str, gid: int | None) -> tuple[socket.socket, Place]:
    """A non-blocking listening socket at `path` for members of group `gid`.

    The directory is made when it is missing. Raises SocketUnusable, SocketInUse.
    """
    folder = os.path.dirname(path) or "."
    draft = os.path.join(folder, f".{os.getpid()}")
    if max(len(os.fsencode(path)), len(os.fsencode(draft))) > LONGEST_PATH:
        raise SocketUnusable(f"{path}: longer than the {LONGEST_PATH} bytes of unix(7)")
    try:
        make_directory(folder)
        refuse_what_is_not_ours(path)
        listener = bind_hidden(draft, gid)
        os.rename(draft, path)
        found = os.lstat(path)
    except OSError as error:
        raise SocketUnusable(f"{path}: {error.strerror or error}") from error
    return listener, Place(path, found.st_dev, found.st_ino)


def make_directory(path: str) -> None:
    """Make `path`, which others may look into but not write to."""
    if not os.path.isdir(path):
        os.makedirs(path)
        os.chmod(path, 0o755)


def refuse_what_is_not_ours(path: str) -> None:
    """Raise SocketUnusable unless `path` is free or a dead socket of our own."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketUnusable(f"{path} is {kind_of(found.st_mode)}, not a socket")
    if found.st_uid not in (0, os.geteuid()):
        raise SocketUnusable(f"{path} belongs to user {found.st_uid}, not to MIGlet")
    if is_alive(path):
        raise SocketInUse(f"{path}: somebody listens there already")


def kind_of(mode: int) -> str:
    """What a file of that mode is, with its article."""
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a directory",
        stat.S_IFREG: "a regular file",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")


def is_alive(path: str) -> bool:
    """Whether a process listens at the socket `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            return True  # its backlog is full
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


def bind_hidden(path: str, gid: int | None) -> socket.socket:
    """A listening socket at `path`, closed to all until it has its final rights."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    umask = os.umask(0o177)
    try:
        listener.bind(path)
        if gid is not None:
            # Not root and no member: the socket stays with our own group.
            with contextlib.suppress(PermissionError):
                os.chown(path, -1, gid)
        os.chmod(path, MODE)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener


def leave(place: Place) -> None:
    """Remove the socket, if it is still the one that we put there."""
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(place.path)
        if (found.st_dev, found.st_ino) == (place.device, place.inode):
            os.unlink(place.path)


class Doorway:
    """A listening socket that goes on accepting when descriptors run out.

    accept(2) fails with EMFILE and leaves the connection waiting, so that a loop
    would spin; a descriptor kept in reserve serves to turn such callers away.
    """

    def __init__(self, path: str, gid: int | None) -> None:
        self._listener, self._place = listen_at(path, gid)
        self._spare = spare_descriptor()

    def fileno(self) -> int:
        """Readable when somebody waits at the door."""
        return self._listener.fileno()

    def arrivals(self) -> Iterator[socket.socket]:
        """The connections that wait, at most ACCEPTS_A_TURN."""
        for _ in range(ACCEPTS_A_TURN):
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    return  # nobody waits, or somebody gave up waiting
                self._turn_away()
            else:
                yield connection

    def close(self) -> None:
        """Stop listening, and remove the socket if it is still ours."""
        self._listener.close()
        if self._spare is not None:
            os.close(self._spare)
        leave(self._place)

    def _turn_away(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            connection.close()
        self._spare = spare_descriptor()


def spare_descriptor() -> int | None:
    """A descriptor to give up in need; None when there is none to be had."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
