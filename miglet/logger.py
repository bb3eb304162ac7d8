"""Log lines on stdout, warnings and tracebacks of libraries on stderr, both redacted.

The rule that holds here: a line is written at once, whole, with one ``write``, and
never waited for. So lines of several processes do not mix, nothing is in a buffer
when a process forks, and a reader that stalls costs lines and not time.
"""

from __future__ import annotations

import io
import json
import logging
import os
import select
import stat
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

try:
    from pythonjsonlogger.json import JsonFormatter
except ImportError:  # before 3.1
    from pythonjsonlogger.jsonlogger import JsonFormatter

from miglet.errors import INTERNAL, MigletError
from miglet.formats import one_line, rfc3339
from miglet.redaction import redact, redact_tree

#: PIPE_BUF of Linux: a write of at most so many bytes to a pipe is not split.
LINE_BYTES = 4096

#: What a line that is too long is cut down to, in characters a field, until it fits.
FIELD_CHARACTERS = (2000, 800, 300, 60, 16)

IDENTITY = ("component", "vm_id", "pool_id", "org_id")
JOB = ("job_id", "run_id", "trace_id")

#: The attributes that every record has, and so are no extra fields of a line.
ORDINARY = (*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName")

#: Without a line's end, stderr is written out after so many characters.
PENDING_CHARACTERS = 65536

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


#: Other spellings of levels.
LEVEL_ALIASES = {"warn": "warning"}


class UnknownLevel(MigletError):
    """There is no log level of that name."""

    category = "user"
    hint = "one of " + ", ".join(LEVELS)


def level_named(text: str) -> str:
    """The name of a level, written in any case or as ``warn``; or UnknownLevel."""
    word = text.strip().lower()
    name = LEVEL_ALIASES.get(word, word)
    if name not in LEVELS:
        raise UnknownLevel(f"there is no log level {text!r}")
    return name


def written(fd: int, text: bytes) -> bool:
    """Whether `text` is gone: written, or discarded for lack of a reader.

    False: `fd` would not take it at once.
    """
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    try:
        if not poll.poll(0):
            return False
        os.write(fd, text)
    except BlockingIOError:
        return False
    except OSError:
        # EPIPE, EBADF, EIO, ENOSPC: no log is worth an agent.
        return True
    return True


class Sink(logging.Handler):
    """Writes records to a descriptor; without a lock, since a line is one write."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self.lines_dropped = 0

    def handle(self, record: logging.LogRecord) -> bool:
        """Write `record`; unlike the inherited one, without a lock to be found held."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record` as one line, or count it as dropped."""
        if self.lines_dropped:
            record.lines_dropped = self.lines_dropped
        if written(self._fd, encoded(self._text_of(record)) + b"\n"):
            self.lines_dropped = 0
        else:
            self.lines_dropped += 1

    def _text_of(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            # A log call with the wrong arguments is a bug, yet no reason to die.
            record.msg = f"{record.msg!r} cannot be formatted: {error!r}"
            record.args = ()
            return self.format(record)


class SafeStream(io.TextIOBase):
    """Stands in for `sys.stderr`: whole lines, masked, written when they can be."""

    def __init__(self, fd: int, mask: Callable[[str], str]) -> None:
        super().__init__()
        self._fd = fd
        self._mask = mask
        self._pending = ""

    encoding = "utf-8"
    errors = "backslashreplace"

    def fileno(self) -> int:
        """The descriptor, e.g. for faulthandler."""
        return self._fd

    def writable(self) -> bool:
        """Always true."""
        return True

    def isatty(self) -> bool:
        """Whether a person is watching."""
        return os.isatty(self._fd)

    def write(self, text: str) -> int:
        """Take `text`; it is written up to its last line's end.

        Tracebacks come in pieces, and half a secret is not recognised as one.
        """
        self._pending += text
        whole, end, rest = self._pending.rpartition("\n")
        if end or len(rest) > PENDING_CHARACTERS:
            self._pending = rest if end else ""
            self._write_out(whole + end if end else rest)
        return len(text)

    def flush(self) -> None:
        """Write what is left of a line."""
        pending, self._pending = self._pending, ""
        self._write_out(pending)

    def _write_out(self, text: str) -> None:
        masked = encoded(self._mask(text))
        for start in range(0, len(masked), LINE_BYTES):
            written(self._fd, masked[start : start + LINE_BYTES])


class last_words:  # noqa: N801 - reads as what it does: ``with last_words():``
    """Ends the process when an exception leaves the block, and logs why.

    Used around all that a forked worker does, so that no exception finds its way
    into the parent's code above. A SystemExit ends it with its own code.
    """

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        """Log `error` and leave with INTERNAL, or do nothing when there is none."""
        if error is None:
            return
        status = INTERNAL
        if isinstance(error, SystemExit) and isinstance(error.code or 0, int):
            status = int(error.code or 0)
        else:
            log.critical("died of %r", error, exc_info=error)
        sys.stderr.flush()
        os._exit(status)


def install(
    identity: Mapping[str, str | None], level: str, line_format: str, redact: bool
) -> None:
    """Log to stdout in lines of `line_format` (json or text); guard stderr.

    `identity` is in each line: component, vm_id, pool_id and org_id. Workers inherit
    all of this through the fork and need only `set_component`.
    """
    CONTEXT.clear()
    CONTEXT.update({name: identity.get(name) for name in IDENTITY})
    for fd in (1, 2):
        unshare_pipe(fd)
    set_redaction(redact)
    sys.stderr = SafeStream(2, mask_text)
    os.register_at_fork(before=sys.stderr.flush)
    lines = TextLines if line_format == "text" else JsonLines
    sink = Sink(1)
    sink.setFormatter(lines(CONTEXT, mask_fields))
    logging.root.handlers[:] = [sink]
    logging.captureWarnings(True)
    set_level(level)


def set_redaction(on: bool) -> None:
    """Mask secrets in this process's lines and on its stderr from now on, or do not."""
    global _redacting
    _redacting = on


def mask_text(text: str) -> str:
    """`text` without secrets, unless ``logging.redact_secrets`` is off."""
    return redact(text) if _redacting else text


def mask_fields(fields: Any) -> Any:
    """A line's fields without secrets, unless ``logging.redact_secrets`` is off."""
    return redact_tree(fields) if _redacting else fields


def unshare_pipe(fd: int) -> None:
    """Where `fd` is a pipe, have it not block, without touching anybody else's end.

    O_NONBLOCK belongs to the open file, which the shell and our neighbours share;
    opening the pipe anew gives us one of our own (proc_pid_fd(5)).
    """
    try:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return
        own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        # Closed, or not ours to open: polling before each write must do.
        return
    os.dup2(own, fd)
    os.close(own)


def set_component(name: str) -> None:
    """Have this process's lines say that `name` wrote them."""
    CONTEXT["component"] = name


def set_job(job_id: str | None, run_id: str | None, trace_id: str | None) -> None:
    """Have this process's lines name that job; all None: no job."""
    CONTEXT.update(job_id=job_id, run_id=run_id, trace_id=trace_id)


def set_level(name: str) -> None:
    """Log from level `name` up, from now on. Raises UnknownLevel."""
    logging.root.setLevel(LEVELS[level_named(name)])


log = logging.getLogger(__name__)

_redacting = True

#: Who writes, and for which job: set in each process anew.
CONTEXT: dict[str, str | None] = {}


# What a log line looks like: a JSON object for machines, a short line for people.
# Secrets are masked in every field before a line is cut to LINE_BYTES, so that no cut
# leaves half a secret that nothing recognises.


class JsonLines(JsonFormatter):
    """A record as one JSON object of at most LINE_BYTES bytes."""

    def __init__(
        self, context: Mapping[str, str | None], mask: Callable[[Any], Any]
    ) -> None:
        super().__init__(reserved_attrs=ORDINARY)
        self._context = context
        self._mask = mask

    def add_fields(self, log_data: Any, record: Any, message_dict: Any) -> None:
        """Fill `log_data` in the order in which people read it."""
        log_data["timestamp"] = rfc3339(record.created)
        log_data["level"] = record.levelname.lower()
        log_data.update({name: self._context.get(name) for name in (*IDENTITY, *JOB)})
        log_data["logger"] = record.name
        log_data["message"] = record.message
        log_data["pid"] = record.process
        super().add_fields(log_data, record, message_dict)

    def process_log_record(self, log_data: Any) -> Any:
        """The last step before `log_data` becomes text: mask its secrets."""
        return self._mask(dict(log_data))

    def jsonify_log_record(self, log_data: Any) -> str:
        """`log_data` as JSON, its long texts cut until the line fits."""
        line = json.dumps(log_data, default=str)
        for limit in FIELD_CHARACTERS:
            if len(line) < LINE_BYTES:
                break
            line = json.dumps({key: cut(log_data[key], limit) for key in log_data})
        return line if len(line) < LINE_BYTES else self._bare(log_data)

    def _bare(self, log_data: Mapping[str, Any]) -> str:
        """The fields that every line has: a record can carry any number of others."""
        names = ("timestamp", "level", *IDENTITY, *JOB, "logger", "message", "pid")
        return json.dumps({name: cut(log_data[name], 16) for name in names})


class TextLines(logging.Formatter):
    """A record as a line for people, local time, with its traceback below."""

    def __init__(
        self, context: Mapping[str, str | None], mask: Callable[[Any], Any]
    ) -> None:
        super().__init__()
        self._context = context
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        """The line, redacted and at most LINE_BYTES bytes long."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        head = f"{clock}.{int(record.msecs):03d} {record.levelname:<5} "
        message = one_line(self._mask(record.getMessage()))
        text = head + f"{self._context.get('component')}  {message}"
        if dropped := getattr(record, "lines_dropped", 0):
            text += f" (lines dropped before this one: {dropped})"
        if record.exc_info:
            trace = self._mask(self.formatException(record.exc_info))
            text += "".join(f"\n  {one_line(line)}" for line in trace.split("\n"))
        return cut_bytes(text)


def cut(value: Any, limit: int) -> Any:
    """`value`, or when its text is longer than `limit` both ends of it.

    Both ends: a message begins with what matters, a traceback ends with it.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    missing = len(text) - limit
    if missing <= 0:
        return value
    return f"{text[: limit // 2]} [{missing} characters cut] {text[-(limit // 2) :]}"


def cut_bytes(text: str) -> str:
    """`text`, cut in its middle until it is shorter than LINE_BYTES bytes."""
    for limit in (LINE_BYTES, 3900, 2000, 900):
        shorter = cut(text, limit)
        if len(encoded(shorter)) < LINE_BYTES:
            break
    return shorter


def encoded(text: str) -> bytes:
    """`text` in UTF-8; a lone surrogate, which UTF-8 does not know, is escaped."""
    return text.encode("utf-8", "backslashreplace")
