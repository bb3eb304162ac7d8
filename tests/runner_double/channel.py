"""Messages between Listener and Worker over two pipes: length, then JSON."""

from __future__ import annotations

import json
import os
import struct
from typing import Any


def send(target: int, kind: str, **content: Any) -> None:
    """Write one message; a dead reader is the reader's business."""
    body = json.dumps({"type": kind, **content}).encode()
    packet = struct.pack("<I", len(body)) + body
    try:
        while packet:
            packet = packet[os.write(target, packet) :]
    except BrokenPipeError:
        return


def exactly(source: int, size: int) -> bytes:
    """So many bytes, or fewer if the writer is gone."""
    parts = []
    while size and (part := os.read(source, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def receive(source: int) -> dict[str, Any] | None:
    """The next message; None when the writer is gone."""
    head = exactly(source, 4)
    if len(head) < 4:
        return None
    return json.loads(exactly(source, struct.unpack("<I", head)[0]))
