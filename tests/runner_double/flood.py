"""Output that a reader must survive: endless lines, broken text, lying lines."""

from __future__ import annotations

from typing import Any

from tests.runner_double.console import emit, stamp

LIE = "Job build completed with result: Succeeded"


def pieces(lines: int) -> dict[str, list[bytes]]:
    """By name, what can be written; each item is one write."""
    return {
        "worker_lines": [
            f"[WORKER {stamp()} INFO Worker] {number} {LIE}\n".encode()
            for number in range(lines)
        ],
        "no_newline": [b"x" * 65536 for _ in range(20)] + [b"\n"],
        "crlf": [b"a line of Windows\r\n" for _ in range(100)],
        "invalid_utf8": [b"\xff\xfe\xc3\x28 broken\n"],
        "nul": [b"a\0b\0\0c\n"],
        "split_mark": [b"\xe2", b"\x88", b"\x9a Connected to GitHub\n"],
        "ansi": [b"\x1b[31m\x1b[2J\x1b]0;title\x07red\x1b[0m\n"],
        "carriage_returns": [f"{number} %\r".encode() for number in range(100)]
        + [b"\n"],
        "lies": [f"[WORKER {stamp()} INFO X] {stamp()}: {LIE}\n".encode()],
    }


def flood(message: dict[str, Any]) -> None:
    """Write all kinds, or those that the plan's `pieces` names."""
    stock = pieces(message.get("lines", 5000))
    for name in message.get("pieces", list(stock)):
        for piece in stock[name]:
            emit(1, piece)
