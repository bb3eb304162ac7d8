"""What a log line looks like: a JSON object for machines, a short line for people.

The rule that holds here: secrets are masked in every field before a line is cut to
LINE_BYTES, so that no cut leaves half a secret that nothing recognises.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from miglet.formats import rfc3339

try:
    from pythonjsonlogger.json import JsonFormatter
except ImportError:  # before 3.1
    from pythonjsonlogger.jsonlogger import JsonFormatter

#: PIPE_BUF of Linux: a write of at most so many bytes to a pipe is not split.
LINE_BYTES = 4096

#: What a line that is too long is cut down to, in characters a field, until it fits.
FIELD_CHARACTERS = (2000, 800, 300, 60, 16)

IDENTITY = ("component", "vm_id", "pool_id", "org_id")
JOB = ("job_id", "run_id", "trace_id")

#: The attributes that every record has, and so are no extra fields of a line.
ORDINARY = (*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName")

#: Escapes for what moves a terminal's cursor or fakes a line (C0, DEL, C1).
VISIBLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
VISIBLE |= {9: "\t", 10: "\\n", 13: "\\r"}
VISIBLE_LINES = VISIBLE | {10: "\n"}


class JsonLines(JsonFormatter):
    """A record as one JSON object of at most LINE_BYTES bytes."""

    def __init__(self, context: Mapping[str, str | None], mask: Callable) -> None:
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

    def __init__(self, context: Mapping[str, str | None], mask: Callable) -> None:
        super().__init__()
        self._context = context
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        """The line, redacted and at most LINE_BYTES bytes long."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        head = f"{clock}.{int(record.msecs):03d} {record.levelname:<5} "
        message = self._mask(record.getMessage()).translate(VISIBLE)
        text = head + f"{self._context.get('component')}  {message}"
        if dropped := getattr(record, "lines_dropped", 0):
            text += f" (lines dropped before this one: {dropped})"
        if record.exc_info:
            trace = self._mask(self.formatException(record.exc_info))
            text += "\n  " + trace.translate(VISIBLE_LINES).replace("\n", "\n  ")
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
