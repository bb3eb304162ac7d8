"""The shim as a transient unit's main process: `keep.py inside FOLDER UNIT DOOR`.

Through the launcher's socket in the folder come its lock, the end to answer on, and
the order: it is in no file, on no command line, and in no property for others to read.
"""

from __future__ import annotations

import os
import socket

from miglet.runner import cgroup, shim


def passed(folder: str, door: str) -> list[int]:
    """The two descriptors that come before the order, which is left on our stdin."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as launcher:
        os.chdir(folder)  # a path may be longer than an address (unix(7))
        launcher.connect(door)
        os.chdir("/")
        _, descriptors, _, _ = socket.recv_fds(launcher, 1, 2)
        os.dup2(launcher.fileno(), 0)
    return descriptors


def main(folder: str, unit: str, door: str) -> None:
    """Keep the program, and end as it ended, so that systemd tells the truth too."""
    shim.settle()
    lock, ready = passed(folder, door)
    order = shim.ordered()
    order["unit"] = {
        "name": unit,
        "invocation_id": os.environ["INVOCATION_ID"],
        "group": cgroup.own(),
    }
    os._exit(shim.keep(folder, order, lock, ready))
