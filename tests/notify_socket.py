"""The service manager's end of sd_notify(3)."""

from __future__ import annotations

import os
import select
import socket
import time

from tests.agent_process import Agent


class NotifySocket:
    """Receives what an agent that is started later says."""

    def __init__(self, agent: Agent, name: str) -> None:
        address = f"miglet-test-{os.getpid()}-{name}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address)
        self.heard: list[str] = []
        agent.environment["NOTIFY_SOCKET"] = "@" + address

    def listen(self, seconds: float = 0.0) -> list[str]:
        """All that was said by now, or within so long."""
        deadline = time.monotonic() + seconds
        while select.select([self.socket], [], [], max(0, deadline - time.monotonic()))[
            0
        ]:
            self.heard += self.socket.recv(4096).decode().splitlines()
        return self.heard

    def hears(self, line: str) -> bool:
        """Whether it was said since the last look."""
        found = line in self.listen()
        self.heard.clear()
        return found

    def close(self) -> None:
        """Nobody listens any more."""
        self.socket.close()
