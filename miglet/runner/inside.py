"""The shim as a transient unit's main process: `keep.py inside FOLDER UNIT ADDRESS`.

Through the launcher's socket in the folder come its lock, the pipe to report on, and
the order: that is in no file, on no command line, and in no property that any user can
read.
"""

from __future__ import annotations

import os
import socket

from miglet.runner import cgroup, shim


def receive_descriptors(folder: str, address: str) -> list[int]:
    """The two descriptors that come before the order, which is left on stdin."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as launcher:
        os.chdir(folder)  # a path may be longer than an address (unix(7))
        launcher.connect(address)
        os.chdir("/")
        _, descriptors, _, _ = socket.recv_fds(launcher, 1, 2)
        os.dup2(launcher.fileno(), 0)
    return descriptors


def main(folder: str, unit: str, address: str) -> None:
    """Run the program, and end with its status, so that systemd shows the same."""
    shim.detach()
    lock, report = receive_descriptors(folder, address)
    order = shim.read_order()
    order["unit"] = {
        "name": unit,
        "invocation_id": os.environ["INVOCATION_ID"],
        "group": cgroup.own(),
    }
    os._exit(shim.run(folder, order, lock, report))
