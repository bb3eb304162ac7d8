"""Who is at the other end of the control socket, and what is under way with them.

The rule that holds here: what one connection may keep in memory is bounded, and it
is known since when it owes us something.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import struct
from typing import NamedTuple

from miglet.control.rpc import INVALID_REQUEST, REQUEST_BYTES, RpcError, failure

#: A request that has begun must be whole, an answer be taken, in so many seconds.
HALF_SECONDS = 5.0

#: A client that asks nothing for so many seconds is dropped; a subscriber is not.
IDLE_SECONDS = 30.0

#: From linux/socket.h; Python has no name for it.
SO_PEERGROUPS = 59


class Peer(NamedTuple):
    """Who is at the other end, as the kernel noted it when they connected."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]


def peer_of(connection: socket.socket) -> Peer:
    """The other end's credentials (unix(7), SO_PEERCRED and SO_PEERGROUPS)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack("iII", raw)
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)
    except OSError:
        # More than 256 groups, or a kernel before 4.13.
        return Peer(pid, uid, gid, groups_of(uid, gid))
    return Peer(pid, uid, gid, struct.unpack(f"{len(raw) // 4}I", raw))


def groups_of(uid: int, gid: int) -> tuple[int, ...]:
    """The groups that user `uid` is listed in."""
    try:
        return tuple(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    except KeyError:
        return (gid,)


def may_change(peer: Peer) -> bool:
    """Whether `peer` may call the methods that change something."""
    return peer.uid in (0, os.geteuid())


def may_read(peer: Peer, gid: int | None) -> bool:
    """Whether `peer` may call any method: also as a member of group `gid`."""
    return may_change(peer) or gid in (peer.gid, *peer.groups)


class Client:
    """One connection: what came in and is not answered, what is to go out."""

    def __init__(self, connection: socket.socket, peer: Peer, now: float) -> None:
        self.connection = connection
        self.peer = peer
        self.watching = False
        #: Nothing more is read from it; it goes once it has its answers.
        self.ended = False
        self.inbox = b""
        self.outbox = b""
        #: Since when a request is half here, or an answer half gone; None: neither.
        self.half_since: float | None = None
        self.heard_at = now

    @property
    def has_request(self) -> bool:
        """Whether a whole request waits to be answered."""
        return b"\n" in self.inbox

    def read(self, now: float) -> None:
        """Take what has arrived, up to one byte more than a request may have."""
        try:
            arrived = self.connection.recv(REQUEST_BYTES + 1 - len(self.inbox))
        except BlockingIOError:
            return
        self.inbox += arrived
        self.heard_at = now
        if not arrived:
            self.ended = True
        elif len(self.inbox) > REQUEST_BYTES and not self.has_request:
            too_long = f"a request has at most {REQUEST_BYTES} bytes"
            self.inbox, self.ended = b"", True
            self.outbox += failure(None, RpcError(INVALID_REQUEST, too_long))

    def next_line(self) -> bytes:
        """Take the oldest whole request out of the inbox."""
        line, _, self.inbox = self.inbox.partition(b"\n")
        self.half_since = None
        return line

    def write(self) -> None:
        """Send what the socket takes."""
        if self.outbox:
            with contextlib.suppress(BlockingIOError):
                self.outbox = self.outbox[self.connection.send(self.outbox) :]

    def note_halves(self, now: float) -> None:
        """Start, keep or stop the clock of things half done."""
        half_in = bool(self.inbox) and not self.ended
        half_out = bool(self.outbox) and not self.watching
        if not half_in and not half_out:
            self.half_since = None
        elif self.half_since is None:
            self.half_since = now

    @property
    def done(self) -> bool:
        """Whether it has ended and has all its answers; a subscriber's are endless."""
        return self.ended and (self.watching or not (self.outbox or self.has_request))

    def overdue(self, now: float) -> bool:
        """Whether it takes longer over something than it may."""
        if self.half_since is not None and now - self.half_since > HALF_SECONDS:
            return True
        return not self.watching and now - self.heard_at > IDLE_SECONDS
