"""What keeps the memory of processes small that are forked from one parent.

They share each page until one of them writes to it. ``supervisor.lean_imports`` keeps
modules out of it, ``workers.warmup`` writes before the fork what all would write after.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import time

#: Seconds between two full collections.
COLLECTION_SECONDS = 10.0

#: The head of a mapping of a file in smaps, if it can never be written to (proc(5)).
UNWRITABLE_FILE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) .-.. \S+ \S+ \d+ +/")

#: The line of smaps that says that all pages of a mapping equal the file's.
NO_PAGE_OF_ITS_OWN = re.compile(r"Anonymous: +0 kB")

#: Objects of up to so many bytes are in pools of the interpreter's (pymalloc), one pool
#: for each size in steps of 16; the first object begins behind the pool's header.
LARGEST_POOLED, STEP = 512, 16
POOL_BYTES, POOL_HEADER_BYTES = 16_384, 48

#: So many objects from the beginning of a pool show that it is a new one.
NEW_POOL_OBJECTS = 8

#: An interpreter that allocates in another way is not asked for more than this.
MOST_FILLED_BYTES = 1 << 20

#: madvise(2).
MADV_DONTNEED = 4

_LIBC = ctypes.CDLL(None)


def share_with_children() -> None:
    """Prepare what is in memory for being shared; call it right before the first fork.

    The garbage collector would write to each object that it looks at. Frozen objects
    are left alone by the collection here, which only empties the interpreter's lists
    of free tuples and the like: each child would do so, in pages all over the memory,
    0.4 MB in all. Last, the C library returns what is free in it.
    """
    gc.freeze()
    gc.collect()
    fill_pools()
    _LIBC.malloc_trim(0)


def fill_pools() -> None:
    """Leave no room in the pools: what a child makes comes to lie on pages of its own.

    A quarter of a megabyte, in pages that are shared, is given up for it; otherwise
    each child would copy those pages, 0.4 MB in all.
    """
    allocate = ctypes.pythonapi.PyObject_Malloc
    allocate.argtypes, allocate.restype = [ctypes.c_size_t], ctypes.c_size_t
    left = MOST_FILLED_BYTES
    for size in range(STEP, LARGEST_POOLED + 1, STEP):
        in_order = 0  # objects one behind the other, as only a new pool gives them out
        while left > 0 and in_order < NEW_POOL_OBJECTS:
            place = allocate(size) % POOL_BYTES - POOL_HEADER_BYTES
            in_order = in_order + 1 if place == in_order * size else int(place == 0)
            left -= size


def unmap_program_files() -> None:
    """Unmap the pages of programs and libraries; what runs again is mapped again.

    Imports, handshakes and the journal's opening run code that nobody runs any more
    when the machine is at rest: 6 of 14 MB. The kernel keeps the pages as long as
    it has room.
    """
    # Where /proc is not for us, memory stays as it is.
    with contextlib.suppress(OSError), open("/proc/self/smaps") as smaps:
        start = end = 0
        for line in smaps:
            if "-" in line:
                head = UNWRITABLE_FILE.match(line)
                start, end = (
                    (int(each, 16) for each in head.groups()) if head else (0, 0)
                )
            elif end and NO_PAGE_OF_ITS_OWN.match(line):
                size = ctypes.c_size_t(end - start)
                _LIBC.madvise(ctypes.c_void_p(start), size, MADV_DONTNEED)


class MemoryTimer:
    """Releases memory now and then, when the loop that owns it comes round.

    There is next to no garbage, but only a full collection gives back what the
    interpreter keeps of freed tuples, up to 2,000 of each length, and by itself it
    hardly ever makes one. What was there before the fork is frozen, so that it takes a
    fraction of a millisecond.
    """

    def __init__(self) -> None:
        self._due = time.monotonic() + COLLECTION_SECONDS
        self._started = False

    def release_if_due(self, now: float) -> None:
        """Collect if the last collection is long ago, by this monotonic time."""
        if now < self._due:
            return
        self._due = now + COLLECTION_SECONDS
        gc.collect()
        if not self._started:
            self._started = True
            unmap_program_files()
            _LIBC.malloc_trim(0)
