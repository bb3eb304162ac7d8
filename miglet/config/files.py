"""The configuration file: found, read within limits, and turned into a layer.

A file that somebody named must exist; the one in the usual place may be missing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping

from miglet.config.reading import Unreadable
from miglet.config.sources import (
    Layer,
    Layers,
    command_line_layer,
    document_layer,
    environment_layer,
    unusable,
)

DEFAULT_FILE = "/etc/miglet/miglet.yaml"

#: The variable that names another file.
FILE_VARIABLE = "MIGLET_CONFIG"

LARGEST_BYTES = 1024 * 1024


def layers_of(
    environ: Mapping[str, str],
    assignments: Iterable[str] = (),
    file: str | None = None,
    metadata: Layer | None = None,
    machine: Layer | None = None,
) -> Layers:
    """Every source of a start, read; nothing is raised, faults stay in the layers.

    `file` is that of ``--config``; without it ``MIGLET_CONFIG`` and then
    ``/etc/miglet/miglet.yaml`` are taken.
    """
    named = file or environ.get(FILE_VARIABLE)
    return Layers(
        command_line=command_line_layer(assignments),
        metadata=metadata or Layer("metadata"),
        environment=environment_layer(environ),
        file=file_layer(named) if named else default_file_layer(DEFAULT_FILE),
        machine=machine or Layer("machine"),
    )


def default_file_layer(path: str) -> Layer:
    """The file in the usual place; an empty layer where there is none."""
    return file_layer(path) if os.path.lexists(path) else Layer(path)


def file_layer(path: str) -> Layer:
    """The settings in the file at `path`; it must be there and readable."""
    try:
        return document_layer(path, text_of(path))
    except OSError as error:
        return unusable(path, f"cannot be read: {error.strerror or error}")
    except (Unreadable, ValueError) as error:
        return unusable(path, str(error))


def text_of(path: str) -> str:
    """The text of the regular file at `path`; raises OSError or Unreadable."""
    # Non-blocking, so that a FIFO in the place of the file delays no boot.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise Unreadable("not a regular file")
        content = stream.read(LARGEST_BYTES + 1)
    return decoded(content)


def decoded(content: bytes) -> str:
    """`content` as text; raises Unreadable if it is too long or not UTF-8."""
    if len(content) > LARGEST_BYTES:
        raise Unreadable(f"larger than {LARGEST_BYTES // 1024} KiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8 at byte {error.start + 1}") from None
