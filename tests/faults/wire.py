"""A link between two networks whose every packet goes through our hands.

It can be late and it can lose packets, as `tc netem` would have it, on kernels without
that module: two TUN devices and a thread that carries between them.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import threading
import time

#: linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x0001 | 0x1000

MTU = 1500


class Wire:
    """Two devices of these names; what enters one comes out of the other.

    `delay` is in seconds, each way; `loss` is the part of all packets, 0 to 1.
    """

    def __init__(self, one: str, other: str) -> None:
        self.delay = 0.0
        self.loss = 0.0
        self.carried = self.lost = 0
        self._chance = random.Random(1)
        first, second = _device(one), _device(other)
        self._ends = {first: second, second: first}
        #: (when it arrives, its number, at which end, the packet)
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The devices vanish with their descriptors."""
        self._over.set()
        self._thread.join()
        for each in self._ends:
            os.close(each)

    def _carry(self) -> None:
        while not self._over.is_set():
            for end in select.select(list(self._ends), [], [], self._wait())[0]:
                self._take(os.read(end, MTU), self._ends[end])
            while self._under_way and self._under_way[0][0] <= time.monotonic():
                self._give(*heapq.heappop(self._under_way)[2:])

    def _wait(self) -> float:
        due = self._under_way[0][0] - time.monotonic() if self._under_way else 0.05
        return min(max(due, 0.0), 0.05)

    def _take(self, packet: bytes, goal: int) -> None:
        if self._chance.random() < self.loss:
            self.lost += 1
            return
        self.carried += 1
        arrives = time.monotonic() + self.delay
        heapq.heappush(self._under_way, (arrives, self.carried, goal, packet))

    def _give(self, goal: int, packet: bytes) -> None:
        try:
            os.write(goal, packet)
        except OSError:  # the device at this end is down
            self.lost += 1


def _device(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    wanted = struct.pack("16sH22x", name.encode(), IFF_TUN_NO_PI)
    fcntl.ioctl(descriptor, TUNSETIFF, wanted)
    return descriptor
