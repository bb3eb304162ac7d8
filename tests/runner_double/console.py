"""What a process of the runner writes: its terminal, its `_diag` log, its counters.

Each write goes out at once; a terminal that nobody reads any more is no error, as in
.NET's console.
"""

from __future__ import annotations

import os
import time
from pathlib import Path


def stamp() -> str:
    """The time as the runner prints it."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())


def emit(target: int, content: bytes) -> None:
    """Write all of `content`."""
    try:
        while content:
            content = content[os.write(target, content) :]
    except BrokenPipeError:
        return


def masked(text: str, secrets: list[str]) -> str:
    """`text` with every secret made illegible; secrets that touch become one mask."""
    hidden = bytearray(len(text))
    for secret in filter(None, secrets):
        place = text.find(secret)
        while place >= 0:
            hidden[place : place + len(secret)] = b"\1" * len(secret)
            place = text.find(secret, place + 1)
    kept: list[str] = []
    for place, character in enumerate(text):
        if not hidden[place]:
            kept.append(character)
        elif not place or not hidden[place - 1]:
            kept.append("***")
    return "".join(kept)


class Trace:
    """`_diag/KIND_*.log`, begun with the first entry; a new page when one is full."""

    def __init__(self, root: Path, kind: str, page_bytes: int) -> None:
        megabytes = os.environ.get(f"{kind.upper()}_LOGSIZE", "")
        self._page_bytes = int(megabytes) << 20 if megabytes else page_bytes
        self._folder = root / "_diag"
        self._kind = kind
        self._copied = os.environ.get(
            "ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT", ""
        ).lower() in ("1", "true")
        self._folder.mkdir(exist_ok=True)
        self._file = -1
        #: What is masked in every entry from now on, its prefix excepted.
        self.secrets: list[str] = []

    def write(self, source: str, text: str, level: str = "INFO") -> None:
        """One entry; `text` may have several lines."""
        if self._file < 0:
            self._open()
        elif os.fstat(self._file).st_size > self._page_bytes > 0:
            os.close(self._file)
            self._open()
        text = masked(text, self.secrets)
        line = f"[{stamp()} {level:4} {source}] {text}\n".encode()
        emit(self._file, line)
        if self._copied:
            emit(1, b"[" + self._kind.upper().encode() + b" " + line[1:])

    def _open(self) -> None:
        now = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        path = self._folder / f"{self._kind}_{now}-utc.log"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)


class Terminal:
    """Standard output and error, mirrored in the log where the runner mirrors them."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def line(self, text: str = "") -> None:
        emit(1, f"{text}\n".encode())
        self._trace.write("Terminal", f"WRITE LINE: {text}")

    def error(self, text: str) -> None:
        emit(2, f"{text}\n".encode())
        self._trace.write("Terminal", f"WRITE ERROR: {text}", "ERR")

    def success(self, text: str) -> None:
        """The mark and the text, in two writes: a reader can see the mark alone."""
        emit(1, "√ ".encode())
        emit(1, f"{text}\n".encode())

    def section(self, title: str) -> None:
        emit(1, f"\n# {title}\n\n".encode())


def count(kind: str, counter: str) -> None:
    """Add a line to `KIND.perf` if RUNNER_PERFLOG names a folder."""
    folder = os.environ.get("RUNNER_PERFLOG")
    if not folder:
        return
    now = time.time()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    line = f"{counter}:{moment}.{int(now % 1 * 10_000_000):07}Z\n".encode()
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{kind}.perf")
    target = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    emit(target, line)
    os.close(target)
