"""The shim in a unit: what it receives through the launcher's socket."""

from __future__ import annotations

import os
import socket

from miglet.runner import inside
from miglet.runner.launcher import listening


def test_descriptors_come_first_and_the_order_is_left_on_stdin(tmp_path):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    reading, writing = os.pipe()
    with listening(folder, "order-1") as listener:
        pid = os.fork()
        if pid == 0:
            _, report = inside.receive_descriptors(str(folder), "order-1")
            with open(0, "rb", closefd=False) as stdin:
                os.write(report, stdin.read())
            os._exit(0)
        with listener.accept()[0] as shim:
            socket.send_fds(shim, [b"o"], [reading, writing])
            shim.sendall(b"the order")
        os.close(writing)
    with open(reading, "rb") as report:
        assert report.read() == b"the order"
    assert os.waitpid(pid, 0)[1] == 0
