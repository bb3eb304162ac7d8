"""The server behind ``miglet-ctl``: JSON-RPC on a Unix socket, in the arbiter's loop.

Whatever a client does or leaves undone costs the loop a bounded piece of work, and
never a place that somebody else needs: the connection that has been idle the longest
makes room. The loop watches `fileno` and calls `serve`.

Who may do what is decided by the peer's credentials. Root and the user that MIGlet runs
as may call every method. Members of the socket's group may call those that change
nothing. Everybody else is refused, and so are the users of MIGlet's own workers.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import socket
import stat
import struct
import time
from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

from miglet.control import rpc
from miglet.control.rpc import RpcError
from miglet.errors import MISCONFIGURED, NO_ROOM, UNAVAILABLE, MigletError, NoRoom

#: Connections at a time, and those of one user who is neither root nor ourselves.
CONNECTION_LIMIT = 16
USER_LIMIT = 4

#: Requests of one client that are answered before the others have their turn.
REQUESTS_A_TURN = 8

#: A request that has begun must be whole, an answer be taken, in so many seconds.
HALF_SECONDS = 5.0

#: A client that asks nothing for so many seconds is dropped; a subscriber is not.
IDLE_SECONDS = 30.0

#: What a subscriber may leave unread before it is dropped.
SUBSCRIBER_BYTES = 65536

#: sockaddr_un has room for so many bytes and a NUL (unix(7)).
LONGEST_PATH = 107

#: Connections that may wait to be accepted; each turn accepts one.
BACKLOG = 64

#: Owner and group may connect, others not.
MODE = 0o660

#: From linux/socket.h; Python has no name for it.
SO_PEERGROUPS = 59

#: What may be found where the socket should be.
FILE_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFREG: "a regular file",
}

log = logging.getLogger(__name__)


class SocketUnusable(MigletError):
    """The control socket cannot be where it should be."""

    category = "misconfig"
    exit_status = MISCONFIGURED
    hint = "set paths.runtime to a directory that only MIGlet writes to"


class SocketInUse(SocketUnusable):
    """Somebody listens there already: another MIGlet, most likely."""

    exit_status = UNAVAILABLE
    hint = "stop the other MIGlet first, or set another paths.runtime"


class Peer(NamedTuple):
    """Who is at the other end, as the kernel noted it when they connected."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]

    @property
    def privileged(self) -> bool:
        """Whether this is root or the user that MIGlet runs as."""
        return self.uid in (0, os.geteuid())

    @classmethod
    def of(cls, connection: socket.socket) -> Peer:
        """The other end's credentials (unix(7), SO_PEERCRED and SO_PEERGROUPS)."""
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, gid = struct.unpack("iII", raw)
        groups = b""
        # It fails for more than 256 groups: then only the first one counts. The user
        # database would know the others, but may take seconds, and the loop waits.
        with contextlib.suppress(OSError):
            groups = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)
        return cls(pid, uid, gid, struct.unpack(f"{len(groups) // 4}I", groups))


class Connection:
    """One client: what came in and is not answered, what is to go out."""

    def __init__(self, end: socket.socket, peer: Peer, now: float) -> None:
        self.end = end
        self.peer = peer
        self.subscribed = False
        #: Nothing more is read from it; it goes once it has its answers.
        self.ended = False
        self.inbox = b""
        self.outbox = b""
        self.last_seen = now
        #: Whether a request is half here, or an answer half gone.
        self.half = False
        #: When it is dropped, unless it goes on.
        self.due = now + IDLE_SECONDS

    @property
    def has_request(self) -> bool:
        """Whether a whole request waits to be answered."""
        return b"\n" in self.inbox

    @property
    def idle(self) -> bool:
        """Whether nothing is under way with it; a subscriber only listens."""
        return not (self.inbox or self.outbox or self.subscribed)

    def read(self, now: float) -> None:
        """Take what has arrived, up to one byte more than a request may have."""
        try:
            arrived = self.end.recv(rpc.REQUEST_BYTES + 1 - len(self.inbox))
        except BlockingIOError:
            return
        except OSError:
            arrived = b""  # The client reset the connection.
        self.inbox += arrived
        self.last_seen = now
        if not arrived:
            self.ended = True
        elif len(self.inbox) > rpc.REQUEST_BYTES and not self.has_request:
            self.abandon()
            too_long = f"a request has at most {rpc.REQUEST_BYTES} bytes"
            self.outbox = rpc.failure(None, RpcError(rpc.INVALID_REQUEST, too_long))

    def write(self) -> None:
        """Send what the socket takes."""
        try:
            self.outbox = self.outbox[self.end.send(self.outbox) :]
        except BlockingIOError:
            return
        except OSError:
            self.abandon()  # The client disconnected; there is nobody to answer.

    def abandon(self) -> None:
        """Forget what is under way; nothing more is read or answered."""
        self.inbox, self.outbox, self.ended = b"", b"", True

    def set_due(self, now: float) -> None:
        """Limit what has become half done now, or what is waited for from now on."""
        half_in = bool(self.inbox) and not self.ended
        half_out = bool(self.outbox) and not self.subscribed
        was_half, self.half = self.half, half_in or half_out
        if self.half and not was_half:
            self.due = now + HALF_SECONDS
        elif not self.half:
            self.due = inf if self.subscribed else now + IDLE_SECONDS

    @property
    def done(self) -> bool:
        """Whether it has ended and has all its answers; a subscriber's are endless."""
        answered = self.subscribed or not (self.outbox or self.has_request)
        return self.ended and answered

    def interest(self) -> int:
        """The events to wait for: its next request, or that it takes its answer.

        With a request left to be answered it is the latter: thus the others have their
        turn first, and who does not read is not answered.
        """
        if self.has_request or self.ended:
            return selectors.EVENT_WRITE
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self.outbox else 0)


class ControlServer:
    """Answers the clients of one socket by calling `answer(method, params, peer)`.

    `answer` returns what JSON can carry or raises RpcError; it runs in the caller of
    `serve`. Methods in `changing` are for root and our own user, the others also for
    members of group `gid`, but for nobody in `refused`. `watch` is answered here: see
    `publish`.
    """

    def __init__(
        self,
        path: str,
        answer: Callable[[str, dict[str, Any], Peer], Any],
        changing: frozenset[str] = frozenset(),
        gid: int | None = None,
        refused: frozenset[int] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._answer = answer
        self._changing = changing
        self._gid = gid
        self._refused = refused
        self._clock = clock
        self._connections: dict[int, Connection] = {}
        self._listener = Listener(path, gid)
        self._selector = selectors.EpollSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

    def fileno(self) -> int:
        """A descriptor that is readable whenever `serve` has something to do."""
        return self._selector.fileno()

    def serve(self) -> None:
        """Do what can be done now; never blocks."""
        for key, events in self._selector.select(0):
            if key.fileobj is self._listener:
                if end := self._listener.accept():
                    self._admit(end)
            elif connection := self._connections.get(key.fd):
                self._turn(connection, events)

    def expire(self, now: float) -> None:
        """Drop the connections that are overdue at monotonic time `now`."""
        for connection in list(self._connections.values()):
            if now > connection.due:
                self._drop(connection)

    def publish(self, params: dict[str, Any]) -> None:
        """Tell every subscriber `changed`; drop those that have stopped reading.

        A subscriber should ask for large answers over another connection: they
        count as unread too.
        """
        line = rpc.notice("changed", params)
        for each in [c for c in self._connections.values() if c.subscribed]:
            if len(each.outbox) + len(line) > SUBSCRIBER_BYTES:
                log.warning("control: subscriber %d does not read", each.peer.pid)
                each.abandon()
            else:
                each.outbox += line
                each.write()
            self._wait_for(each)

    def close(self) -> None:
        """Drop everybody and remove the socket, if it is still ours."""
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._selector.close()
        self._listener.close()

    def _admit(self, end: socket.socket) -> None:
        end.setblocking(False)
        peer = Peer.of(end)
        try:
            self._require_may_read(peer)
            self._make_room_for(peer)
        except RpcError as refusal:
            with end, contextlib.suppress(OSError):
                end.send(rpc.failure(None, refusal))
            return
        self._connections[end.fileno()] = Connection(end, peer, self._clock())
        self._selector.register(end, selectors.EVENT_READ)

    def _require_may_read(self, peer: Peer) -> None:
        """Raise RpcError unless `peer` may call any method at all."""
        member = self._gid in (peer.gid, *peer.groups)
        if peer.privileged or (member and peer.uid not in self._refused):
            return
        log.warning("control: user %d (pid %d) refused", peer.uid, peer.pid)
        raise RpcError(rpc.NOT_PERMITTED, "not permitted: join MIGlet's group")

    def _make_room_for(self, peer: Peer) -> None:
        """Drop a connection where there are too many; RpcError if none may go.

        Root and our own user always get in. Others replace only an idle connection.
        """
        present = list(self._connections.values())
        same = [each for each in present if each.peer.uid == peer.uid]
        unprivileged = [each for each in present if not each.peer.privileged]
        if not peer.privileged and len(same) >= USER_LIMIT:
            candidates = [each for each in same if each.idle]
        elif len(present) < CONNECTION_LIMIT:
            return
        elif peer.privileged:
            candidates = unprivileged or present
        else:
            candidates = [each for each in unprivileged if each.idle]
        if not candidates:
            raise RpcError(rpc.BUSY, "too many connections: try again")
        self._drop(min(candidates, key=_cost))

    def _turn(self, connection: Connection, events: int) -> None:
        """Read, answer and write, each as far as it goes at once."""
        if events & selectors.EVENT_READ:
            connection.read(self._clock())
        connection.write()
        for _ in range(REQUESTS_A_TURN):
            if connection.outbox or not connection.has_request:
                break
            line, _, connection.inbox = connection.inbox.partition(b"\n")
            connection.half = False
            connection.outbox += self._reply_to(connection, line)
            connection.write()
        self._wait_for(connection)

    def _reply_to(self, connection: Connection, line: bytes) -> bytes:
        """The answer to `line`; nothing to a notification that could be obeyed.

        An error is always answered, also to a notification, for which JSON-RPC sends no
        reply: somebody who types by hand should see it.
        """
        id = None
        try:
            request = rpc.request_in(line)
            id = request.id
            result = self._result_of(connection, request)
        except RpcError as error:
            return rpc.failure(id, error)
        return b"" if request.notification else rpc.reply(id, result)

    def _result_of(self, connection: Connection, request: rpc.Request) -> Any:
        if not isinstance(request.params, dict):
            raise RpcError(rpc.BAD_PARAMS, "params are passed by name, in an object")
        if request.method == "watch":
            connection.subscribed = True
            return {"watching": True}
        if request.method in self._changing:
            require_may_change(connection.peer, request)
        return self._answer(request.method, request.params, connection.peer)

    def _wait_for(self, connection: Connection) -> None:
        """Have epoll say when the connection can go on, or drop it when it is done."""
        if connection.done:
            self._drop(connection)
        else:
            connection.set_due(self._clock())
            self._selector.modify(connection.end, connection.interest())

    def _drop(self, connection: Connection) -> None:
        if self._connections.pop(connection.end.fileno(), None):
            self._selector.unregister(connection.end)
            connection.end.close()


def require_may_change(peer: Peer, request: rpc.Request) -> None:
    """Raise RpcError unless `peer` may change something, and waits for the answer."""
    if request.notification:
        raise RpcError(rpc.INVALID_REQUEST, f"{request.method} needs an id")
    if not peer.privileged:
        log.warning("control: %s refused to user %d", request.method, peer.uid)
        reason = f"not permitted: only root may {request.method}"
        raise RpcError(rpc.NOT_PERMITTED, reason)
    log.info("control: %s by user %d (pid %d)", request.method, peer.uid, peer.pid)


def _cost(connection: Connection) -> tuple[bool, bool, float]:
    """What its loss means: idle before subscribed before busy, the oldest first."""
    busy = not connection.idle and not connection.subscribed
    return busy, connection.subscribed, connection.last_seen


class Listener:
    """The listening socket; it goes on accepting when descriptors run out.

    Nothing but a dead socket of our own is ever replaced, nothing but our own socket is
    ever removed. accept(2) fails with EMFILE and leaves the connection waiting, so that
    a loop would spin; a descriptor kept in reserve serves to turn such callers away.
    """

    def __init__(self, path: str, gid: int | None) -> None:
        self._path = path
        if len(os.fsencode(path)) > LONGEST_PATH:
            limit = f"longer than the {LONGEST_PATH} bytes of unix(7)"
            raise SocketUnusable(f"{path}: {limit}")
        try:
            remove_dead_socket(path)
            self._socket = listen_at(path, gid)
            found = os.lstat(path)
            self._spare = socket.socket(socket.AF_UNIX)
        except OSError as error:
            kind = NoRoom if error.errno in NO_ROOM else SocketUnusable
            raise kind(f"{path}: {error.strerror or error}") from error
        self._identity = (found.st_dev, found.st_ino)

    def fileno(self) -> int:
        """Readable when somebody waits to be accepted."""
        return self._socket.fileno()

    def accept(self) -> socket.socket | None:
        """The next connection; None if nobody waits, or it had to be turned away."""
        try:
            return self._socket.accept()[0]
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away()
            return None

    def close(self) -> None:
        """Stop listening, and remove the socket if it is still ours."""
        self._socket.close()
        self._spare.close()
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(self._path)
            if (found.st_dev, found.st_ino) == self._identity:
                os.unlink(self._path)

    def _turn_away(self) -> None:
        self._spare.close()
        with contextlib.suppress(OSError):
            self._socket.accept()[0].close()
        with contextlib.suppress(OSError):
            self._spare = socket.socket(socket.AF_UNIX)


def remove_dead_socket(path: str) -> None:
    """Make `path` free; SocketUnusable for all but a dead socket of our own."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        kind = FILE_KINDS.get(stat.S_IFMT(found.st_mode), "a special file")
        raise SocketUnusable(f"{path} is {kind}, not a socket")
    if found.st_uid not in (0, os.geteuid()):
        raise SocketUnusable(f"{path} belongs to user {found.st_uid}, not to MIGlet")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # connect(2) would wait where the backlog is full.
        if probe.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT):
            raise SocketInUse(f"{path}: somebody listens there already")
    os.unlink(path)


def listen_at(path: str, gid: int | None) -> socket.socket:
    """A listening socket at `path`. Nobody can connect before its rights are final."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    try:
        listener.bind(path)
        if gid is not None:
            # Not root and no member: the socket stays with our own group.
            with contextlib.suppress(PermissionError):
                os.chown(path, -1, gid)
        os.chmod(path, MODE)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
