"""Where the shim puts what its program prints: bounded, and never in the way.

Imported by the shim: it needs nothing but `os`. Plain bytes, stdout and stderr as they
came; a reader follows the renaming.
"""

from __future__ import annotations

import os

#: Size at which `output` becomes `output.1`: at most twice this is on the disk.
OUTPUT_BYTES = 4 << 20
CHUNK_BYTES = 1 << 16


class Output:
    """The last few megabytes of what was printed, in `output.1` and `output`."""

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/output"
        self.open()

    def open(self) -> None:
        """Begin a new file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self.file = os.open(self.path, flags, 0o600)
        self.room = OUTPUT_BYTES

    def write(self, chunk: bytes) -> None:
        """Append `chunk`; what a full disk does not take is lost, nothing else."""
        if len(chunk) > self.room:
            self.rotate()
        self.room -= len(chunk)
        try:
            left = chunk[os.write(self.file, chunk) :]
        except OSError:
            left = chunk
        if left:
            self.make_room(left)

    def rotate(self) -> None:
        """Let go of everything but the last `OUTPUT_BYTES`."""
        os.close(self.file)
        os.replace(self.path, f"{self.path}.1")
        self.open()

    def make_room(self, chunk: bytes) -> None:
        """On a full disk the newest lines, which tell the result, beat the oldest."""
        try:
            os.truncate(f"{self.path}.1", 0)
            os.write(self.file, chunk)
        except OSError:
            self.room += len(chunk)
