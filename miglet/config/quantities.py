"""Durations and sizes as people write them, and back.

Inside MIGlet a duration is seconds as a float and a size is bytes as an int; what
``*_text`` writes, ``parse_*`` reads as the same value.
"""

from __future__ import annotations

import re

SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

#: Upper-case so that ``kB``, ``KB`` and ``kb`` are one unit.
BYTES = {"B": 1}
BYTES |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)}
BYTES |= {f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", 1)}

NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
PLAIN = re.compile(NUMBER)
PARTS = re.compile(
    rf"(?:({NUMBER})h)?(?:({NUMBER})m)?(?:({NUMBER})s)?(?:({NUMBER})ms)?"
)
SIZE = re.compile(rf"({NUMBER})([kmgt]?i?b)?", re.IGNORECASE)


def parse_duration(text: str) -> float:
    """Seconds in ``200ms``, ``30s``, ``1h30m`` or a plain number of seconds.

    Raises ValueError for anything else, negative numbers included.
    """
    if PLAIN.fullmatch(text):
        return round(float(text), 6)
    parts = PARTS.fullmatch(text)
    if not text or not parts:
        raise ValueError("not a duration")
    # Rounded, so that 1.2 s is the float 1.2 however it is put together.
    amounts = zip(parts.groups(), SECONDS.values(), strict=True)
    return round(sum(float(amount) * unit for amount, unit in amounts if amount), 6)


def duration_text(seconds: float) -> str:
    """The shortest usual form: ``1h30m``, ``200ms``, ``0s``."""
    milliseconds = round(seconds * 1000)
    if abs(seconds * 1000 - milliseconds) > 1e-6:
        return f"{seconds:.6f}".rstrip("0") + "s"
    text = ""
    for unit, length in (("h", 3600000), ("m", 60000), ("s", 1000), ("ms", 1)):
        amount, milliseconds = divmod(milliseconds, length)
        text += f"{amount}{unit}" if amount else ""
    return text or "0s"


def parse_size(text: str) -> int:
    """Bytes in ``5GB``, ``512MiB``, ``100kB`` or a plain number of bytes.

    ``5G`` is refused: some tools mean 1000s by it and others 1024s.
    """
    match = SIZE.fullmatch(text)
    if not match or (match[2] or "B").upper() not in BYTES:
        raise ValueError("not a size")
    return round(float(match[1]) * BYTES[(match[2] or "B").upper()])


def size_text(size: int) -> str:
    """The largest unit that divides `size` evenly: ``5GB``, ``512MiB``, ``1023B``."""
    evenly = [unit for unit, length in BYTES.items() if size and size % length == 0]
    unit = max(evenly, key=BYTES.__getitem__, default="B")
    return f"{size // BYTES[unit]}{SPELLINGS[unit]}"


SPELLINGS = {unit: unit.replace("KB", "kB").replace("IB", "iB") for unit in BYTES}
