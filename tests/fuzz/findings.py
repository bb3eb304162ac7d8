"""What the engines share: the cost of an input, and what is done about a finding."""

from __future__ import annotations

import gc
import hashlib
import time
import tracemalloc
from random import Random

from tests.fuzz.targets import LIMIT_BYTES, Target

#: Sizes of the inputs whose cost is compared, in bytes, and how much dearer a byte of
#: the larger one may be. The margin is wide: other processes use the caches too.
SMALL_BYTES, LARGE_BYTES, MOST_RATIO = LIMIT_BYTES // 8, LIMIT_BYTES, 5.0

#: Seconds below which nothing is concluded from a ratio.
CHEAP_SECONDS = 0.05

#: What an input may take in memory: for each of its bytes, and at all.
BYTES_PER_BYTE, BYTES_AT_ALL = 400, 16 << 20


#: How the names of files of findings begin.
PREFIX = "found-"


class TooExpensive(AssertionError):
    """An input takes time or memory out of proportion to its size."""


def keep(target: Target, data: bytes) -> None:
    """Store a finding in the target's corpus."""
    name = PREFIX + hashlib.sha256(data).hexdigest()[:12]
    target.corpus.mkdir(parents=True, exist_ok=True)
    (target.corpus / name).write_bytes(data)


def pumped(data: bytes, random: Random) -> tuple[bytes, bytes]:
    """A small and a large input that differ in how often a piece is there."""
    start = random.randint(0, len(data))
    end = start + random.choice((1, 2, 3, 8, 30))
    piece = data[start:end] or b"a"
    before, after = data[:start], data[end:]
    if random.randrange(2):
        after = b""
    return tuple(  # type: ignore[return-value]
        before + piece * max(1, (size - len(before) - len(after)) // len(piece)) + after
        for size in (SMALL_BYTES, LARGE_BYTES)
    )


def require_proportion(target: Target, small: bytes, large: bytes) -> None:
    """Raise TooExpensive unless the time for `large` is in proportion to its size."""
    after, factor = seconds_for(target, large), len(large) / len(small)
    if after < CHEAP_SECONDS:
        return
    # Once more, since something else may have run meanwhile.
    after = min(after, *(seconds_for(target, large) for _ in range(2)))
    before = min(seconds_for(target, small) for _ in range(3))
    if after > MOST_RATIO * factor * before and after > CHEAP_SECONDS:
        times = f"{before:.4f} s for {len(small)} bytes, {after:.4f} s for {len(large)}"
        raise TooExpensive(times)


def require_little_memory(target: Target, data: bytes) -> None:
    """Raise TooExpensive if the peak is out of proportion to the input."""
    gc.collect()
    tracemalloc.start()
    try:
        target.run(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if peak > BYTES_AT_ALL + BYTES_PER_BYTE * len(data):
        raise TooExpensive(f"{peak} bytes of memory for {len(data)}")


def seconds_for(target: Target, data: bytes) -> float:
    """The processor time that one input takes."""
    began = time.process_time()
    target.run(data)
    return time.process_time() - began
