"""Exit statuses of another process's children, from the kernel's process connector.

The Listener alone may wait for its Worker. The process connector (CONFIG_PROC_EVENTS)
announces every exit on the machine with its status, whichever process reaps it; a
filter on the socket lets those of one parent's children pass and no other, so that a
job with thousands of processes costs nothing. The shim imports this: it must stay
small.

Needs the first network namespace, the first pid namespace and, before Linux 6.6,
CAP_NET_ADMIN. A shim in a transient unit has them; MIGlet itself does without.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from contextlib import suppress

#: linux/netlink.h, linux/connector.h, linux/cn_proc.h, asm-generic/socket.h.
NETLINK_CONNECTOR = 11
NLMSG_DONE = 3
CN_IDX_PROC = CN_VAL_PROC = 1
PROC_CN_MCAST_LISTEN = 1
PROC_CN_MCAST_IGNORE = 2
PROC_EVENT_EXIT = 0x80000000
SO_ATTACH_FILTER = 26

#: struct nlmsghdr, then struct cn_msg: 16 and 20 bytes before an event.
NETLINK_HEADER = struct.Struct("=IHHII")
CONNECTOR_HEADER = struct.Struct("=IIIIHH")

#: Offsets in a message; those of struct exit_proc_event since Linux 4.18.
WHAT, PID, THREAD_GROUP, STATUS, PARENT = 36, 52, 56, 60, 72
MESSAGE_BYTES = 76

#: Classic BPF (linux/bpf_common.h): load a word, keep it in X, compare, return.
LOAD, KEEP, EQUAL, EQUAL_X, RETURN = 0x20, 0x07, 0x15, 0x1D, 0x06

#: Bytes that are read at once: one event is far smaller.
READ_BYTES = 4096


class ChildExits:
    """The exits of one process's children; raises OSError where none can be had."""

    def __init__(self, parent: int) -> None:
        self.parent = parent
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self.socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_CONNECTOR)
        try:
            attach(self.socket, exits_of_children(parent))
            self.socket.bind((0, CN_IDX_PROC))
            self.socket.send(request(PROC_CN_MCAST_LISTEN))
        except OSError:
            self.socket.close()
            raise

    def fileno(self) -> int:
        """Readable when a child has ended."""
        return self.socket.fileno()

    def read(self) -> list[tuple[int, int]]:
        """The children that have ended since the last call: pid and wait status."""
        found: list[tuple[int, int]] = []
        while True:
            try:
                message, (sender, _) = self.socket.recvfrom(READ_BYTES)
            except BlockingIOError:
                return found
            # only the kernel sends from port 0
            if sender == 0 and (ended := exit_in(message, self.parent)):
                found.append(ended)

    def close(self) -> None:
        """Stop listening; old kernels count their listeners by what these say."""
        with suppress(OSError):
            self.socket.send(request(PROC_CN_MCAST_IGNORE))
        self.socket.close()


def exit_in(message: bytes, parent: int) -> tuple[int, int] | None:
    """The pid and wait status of the child of `parent` whose exit this announces."""
    if len(message) < MESSAGE_BYTES or word_at(message, WHAT) != PROC_EVENT_EXIT:
        return None
    pid = word_at(message, PID)
    whole_process = pid == word_at(message, THREAD_GROUP)
    if not whole_process or word_at(message, PARENT) != parent:
        return None
    return pid, word_at(message, STATUS)


def word_at(message: bytes, offset: int) -> int:
    """The 32-bit number at this place of a message."""
    return struct.unpack_from("=I", message, offset)[0]


def exits_of_children(parent: int) -> list[tuple[int, int, int, int]]:
    """The filter for messages that `exit_in` understands, as BPF instructions.

    An instruction is (code, how many to skip if true, and if false, operand).
    """
    return [
        (LOAD, 0, 0, WHAT),
        (EQUAL, 0, 7, in_network_order(PROC_EVENT_EXIT)),
        (LOAD, 0, 0, PARENT),
        (EQUAL, 0, 5, in_network_order(parent)),
        (LOAD, 0, 0, PID),
        (KEEP, 0, 0, 0),
        (LOAD, 0, 0, THREAD_GROUP),
        (EQUAL_X, 0, 1, 0),
        (RETURN, 0, 0, 0xFFFFFFFF),
        (RETURN, 0, 0, 0),
    ]


def in_network_order(number: int) -> int:
    """What BPF, which loads words as big-endian ones, makes of a native word."""
    return int.from_bytes(number.to_bytes(4, sys.byteorder), "big")


def attach(end: socket.socket, program: list[tuple[int, int, int, int]]) -> None:
    """Let only those messages into the socket that the program accepts."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_program)


def request(operation: int) -> bytes:
    """What asks the connector for events of processes, or for none any more."""
    wish = struct.pack("=I", operation)
    body = CONNECTOR_HEADER.pack(CN_IDX_PROC, CN_VAL_PROC, 0, 0, len(wish), 0) + wish
    size = NETLINK_HEADER.size + len(body)
    return NETLINK_HEADER.pack(size, NLMSG_DONE, 0, 0, os.getpid()) + body
