"""Waking up when a directory changes: the kernel's inotify(7), through ctypes.

An event only says "look again": the reader drains first and then reads the files,
so a change between the two wakes it once more and nothing is missed.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import NamedTuple

#: Masks, from <sys/inotify.h>.
MODIFIED = 0x002
CLOSED_AFTER_WRITE = 0x008
MOVED_IN = 0x080
CREATED = 0x100
OVERFLOWED = 0x4000
_IGNORED = 0x8000
_DONT_FOLLOW = 0x2000000
_MASK_ADD = 0x20000000

_HEADER = struct.Struct("iIII")
_ROOM = 65536
#: What one `drain` reads at most, so that a flood of events cannot hold the reader.
_READS = 16

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


class Event(NamedTuple):
    """One change. `watch` is -1 when the kernel's queue ran over."""

    watch: int
    mask: int
    name: str


class Inotify:
    """A non-blocking, close-on-exec inotify descriptor and what it watches.

    Raises OSError where the kernel grants none (EMFILE: max_user_instances reached)
    and from `watch` where it grants no further watch (ENOSPC): the caller then polls.
    """

    def __init__(self) -> None:
        self._descriptor = _checked(
            _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1"
        )
        self._watched: dict[int, tuple[Path, int]] = {}
        self._awaited: dict[Path, int] = {}

    def fileno(self) -> int:
        """The descriptor that becomes readable when something happened."""
        return self._descriptor

    def watch(self, path: Path, mask: int) -> int:
        """Watch `path`; while it does not exist, its nearest parent that does.

        Returns the number that events about it carry. Watching a path twice adds the
        masks up. A symbolic link itself is watched, never what it points to.
        """
        try:
            number = self._add(path, mask)
        except FileNotFoundError:
            self._awaited[path] = mask
            return self.watch(path.parent, CREATED | MOVED_IN)
        self._watched[number] = (path, mask | self._watched.get(number, (path, 0))[1])
        return number

    def drain(self) -> list[Event]:
        """What happened since the last call, without waiting."""
        events: list[Event] = []
        for _ in range(_READS):
            fresh = self._read()
            if not fresh:
                break
            events += fresh
        self._forget_the_gone(events)
        self._watch_the_awaited()
        return events

    def close(self) -> None:
        """Give the descriptor and every watch back."""
        os.close(self._descriptor)
        self._watched.clear()
        self._awaited.clear()

    def _add(self, path: Path, mask: int) -> int:
        return _checked(
            _libc.inotify_add_watch(
                self._descriptor, os.fsencode(path), mask | _DONT_FOLLOW | _MASK_ADD
            ),
            str(path),
        )

    def _read(self) -> list[Event]:
        try:
            return _events(os.read(self._descriptor, _ROOM))
        except BlockingIOError:
            return []

    def _forget_the_gone(self, events: list[Event]) -> None:
        for event in events:
            if event.mask & _IGNORED and event.watch in self._watched:
                path, mask = self._watched.pop(event.watch)
                self._awaited[path] = mask

    def _watch_the_awaited(self) -> None:
        awaited, self._awaited = self._awaited, {}
        for path, mask in awaited.items():
            try:
                self.watch(path, mask)
            except OSError:
                self._awaited[path] = mask


def _checked(answer: int, what: str) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return answer


def _events(raw: bytes) -> list[Event]:
    events, offset = [], 0
    while offset < len(raw):
        watch, mask, _, length = _HEADER.unpack_from(raw, offset)
        offset += _HEADER.size
        name = raw[offset : offset + length].rstrip(b"\0")
        events.append(Event(watch, mask, os.fsdecode(name)))
        offset += length
    return events
