"""The control socket against clients of every kind, over real sockets."""

from __future__ import annotations

import contextlib
import errno
import grp
import json
import os
import resource
import select
import selectors
import socket
import stat
import subprocess
import sys
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miglet.control import rpc
from miglet.control import server as control
from miglet.control.server import ControlServer, Peer
from miglet.errors import UNAVAILABLE, NoRoom
from tests.support import eventually

BIG = "x" * 900_000


class Host:
    """A control server whose clients and clock the test controls."""

    def __init__(self, path: str, gid: int | None = None) -> None:
        self.now = 1000.0
        self.calls: list[tuple[str, dict]] = []
        self.peer: Peer | None = None
        self.path = path
        self.server = ControlServer(
            path, self.answer, frozenset({"drain"}), gid, clock=lambda: self.now
        )
        self.sockets: list[socket.socket] = []

    def answer(self, method, params, peer):
        self.calls.append((method, params))
        self.peer = peer
        if method in ("echo", "drain"):
            return params
        if method == "big":
            return BIG
        raise rpc.RpcError(rpc.UNKNOWN_METHOD, f"there is no method {method}")

    def client(self) -> Client:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.path)
        connection.setblocking(False)
        self.sockets.append(connection)
        return Client(self, connection)

    def turn(self) -> None:
        """What the arbiter's loop does when the server's descriptor is readable."""
        if select.select([self.server], [], [], 0)[0]:
            self.server.serve()

    def settle(self) -> None:
        """Turn until nothing is left to do."""
        for _ in range(1000):
            if not select.select([self.server], [], [], 0.005)[0]:
                return
            self.server.serve()
        raise AssertionError("the server spins")

    def pass_seconds(self, seconds: float) -> None:
        self.settle()
        self.now += seconds
        self.server.expire(self.now)

    def close(self) -> None:
        self.server.close()
        for connection in self.sockets:
            connection.close()


class Client:
    """One client's end."""

    def __init__(self, host: Host, connection: socket.socket) -> None:
        self.host = host
        self.connection = connection
        self.received = b""
        self.ended = False

    def send(self, text: bytes) -> None:
        """Send all of `text`, while the server does its part."""
        view = memoryview(text)
        while view:
            with contextlib.suppress(BlockingIOError):
                view = view[self.connection.send(view) :]
            self.host.turn()

    def request(self, method: str, id: int | None = 1, **params) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        self.send(json.dumps(message | ({"id": id} if id else {})).encode() + b"\n")

    def poll(self) -> bool:
        """Receive what has arrived; whether there is a line or the end."""
        self.host.turn()
        try:
            arrived = self.connection.recv(1 << 20)
        except BlockingIOError:
            return b"\n" in self.received
        except ConnectionResetError:
            arrived = b""
        self.received += arrived
        self.ended = self.ended or not arrived
        return self.ended or b"\n" in self.received

    def receive(self) -> dict | None:
        """The next message; None when the server has hung up."""
        eventually(self.poll, what="an answer")
        line, end, rest = self.received.partition(b"\n")
        if not end:
            return None
        self.received = rest
        return json.loads(line)

    def result(self, method: str, **params):
        self.request(method, **params)
        return self.receive()["result"]

    def code(self) -> int:
        return self.receive()["error"]["code"]

    def disconnect(self) -> None:
        self.connection.close()


@pytest.fixture
def host(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    host = Host(str(folder / "control.sock"))
    yield host
    host.close()


def test_a_request_is_answered_with_its_id(host):
    client = host.client()
    client.request("echo", id=7, a=1)
    assert client.receive() == {"jsonrpc": "2.0", "id": 7, "result": {"a": 1}}
    assert host.calls == [("echo", {"a": 1})]


def test_the_peer_is_identified_by_the_kernel(host):
    host.client().result("echo")
    assert host.peer[:3] == (os.getpid(), os.geteuid(), os.getegid())
    assert set(host.peer.groups) == set(os.getgroups())


def test_requests_in_one_piece_are_answered_in_order(host):
    client = host.client()
    line = '{"jsonrpc":"2.0","id":%d,"method":"echo"}\n'
    client.send("".join(line % number for number in range(50)).encode())
    assert [client.receive()["id"] for _ in range(50)] == list(range(50))


def test_one_connections_many_requests_leave_the_others_their_turn(host):
    busy, other = host.client(), host.client()
    host.settle()
    busy.connection.send(b'{"jsonrpc":"2.0","id":1,"method":"echo"}\n' * 500)
    other.connection.send(b'{"jsonrpc":"2.0","id":1,"method":"echo"}\n')
    host.turn()
    assert len(host.calls) == control.REQUESTS_A_TURN + 1
    assert [busy.receive()["id"] for _ in range(500)] == [1] * 500
    assert len(host.calls) == 501


@pytest.mark.parametrize(
    "line, code",
    [
        (b"nonsense", rpc.PARSE_ERROR),
        (b"", rpc.PARSE_ERROR),
        (b"[1]", rpc.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1,"method":"what"}', rpc.UNKNOWN_METHOD),
        (b'{"jsonrpc":"2.0","id":1,"method":"echo","params":[1]}', rpc.BAD_PARAMS),
        (b'{"jsonrpc":"2.0","method":"drain"}', rpc.INVALID_REQUEST),
    ],
)
def test_a_bad_request_is_reported_and_the_next_one_answered(host, line, code):
    client = host.client()
    client.send(line + b"\n")
    assert client.code() == code
    assert client.result("echo") == {}
    assert ("drain", {}) not in host.calls


def test_bad_params_are_reported_with_the_requests_id(host):
    client = host.client()
    client.send(b'{"jsonrpc":"2.0","id":"me","method":"echo","params":3}\n')
    assert client.receive()["id"] == "me"


def test_a_notification_gets_no_answer(host):
    client = host.client()
    client.request("echo", id=None, b=2)
    assert client.result("echo", a=1) == {"a": 1}
    assert host.calls == [("echo", {"b": 2}), ("echo", {"a": 1})]


def test_the_longest_request_is_taken_and_a_longer_one_refused(host):
    frame = b'{"jsonrpc":"2.0","id":1,"method":"echo","params":{"a":"%s"}}'
    room = rpc.REQUEST_BYTES - len(frame) + 2
    client = host.client()
    client.send(frame % (b"x" * room) + b"\n")
    assert len(client.receive()["result"]["a"]) == room
    client.send(frame % (b"x" * (room + 1)))
    assert client.code() == rpc.INVALID_REQUEST
    assert client.receive() is None


def test_a_large_answer_arrives_whole(host):
    assert host.client().result("big") == BIG


def test_what_was_asked_before_hanging_up_is_still_answered(host):
    client = host.client()
    client.request("big")
    client.request("echo")
    client.connection.shutdown(socket.SHUT_WR)
    assert client.receive()["result"] == BIG
    assert client.receive()["result"] == {}
    assert client.receive() is None


def test_half_a_request_has_five_seconds(host):
    client, other = host.client(), host.client()
    client.send(b'{"jsonrpc":')
    host.pass_seconds(4.9)
    client.send(b'"2.0",')
    host.pass_seconds(0.2)
    assert client.receive() is None
    assert other.result("echo") == {}


def test_a_steady_asker_is_never_half_done_for_long(host):
    client = host.client()
    line = b'{"jsonrpc":"2.0","id":1,"method":"echo"}\n'
    client.send(line[:10])
    for _ in range(10):
        host.pass_seconds(3)
        client.send(line[10:] + line[:10])
        assert client.receive()["result"] == {}


def test_an_answer_that_is_not_read_has_five_seconds(host):
    client, other = host.client(), host.client()
    client.request("big")
    client.request("big")
    host.pass_seconds(5.1)
    assert other.result("echo") == {}
    assert len(host.calls) == 2, "the second answer waits for the first to be read"
    eventually(lambda: client.poll() and client.ended, what="the end")
    assert len(client.received) < len(BIG)


def test_a_silent_client_has_thirty_seconds_and_a_subscriber_for_ever(host):
    silent, subscriber = host.client(), host.client()
    assert subscriber.result("watch") == {"watching": True}
    host.pass_seconds(29)
    assert silent.result("echo") == {}
    host.pass_seconds(31)
    assert silent.receive() is None
    host.server.publish({"state": "idle"})
    assert subscriber.receive()["params"] == {"state": "idle"}


def test_subscribers_and_only_they_are_notified_of_changes(host):
    one, two, other = host.client(), host.client(), host.client()
    one.result("watch")
    two.result("watch")
    assert other.result("echo") == {}
    for number in range(3):
        host.server.publish({"number": number})
    for subscriber in (one, two):
        received = [subscriber.receive() for _ in range(3)]
        assert [message["params"]["number"] for message in received] == [0, 1, 2]
        assert received[0]["method"] == "changed" and "id" not in received[0]
    assert one.result("echo") == {}
    host.settle()
    assert not other.poll()


def test_a_subscriber_that_does_not_read_is_dropped_and_the_others_are_not(host):
    lazy, eager = host.client(), host.client()
    lazy.result("watch")
    eager.result("watch")
    for number in range(1000):
        host.server.publish({"number": number, "filling": "x" * 1000})
        assert eager.receive()["params"]["number"] == number
    eventually(lambda: lazy.poll() and lazy.ended, what="the end")
    assert len(lazy.received) < 1_000_000


def test_a_subscriber_that_left_is_forgotten(host):
    client = host.client()
    client.result("watch")
    client.disconnect()
    host.settle()
    host.server.publish({})
    assert not host.server._connections


def test_hanging_up_in_the_middle_of_an_answer_disturbs_nobody(host):
    for _ in range(20):
        client = host.client()
        client.request("big")
        client.disconnect()
    host.settle()
    assert host.client().result("echo") == {}
    assert len(host.server._connections) == 1


def test_a_thousand_idle_connections_refuse_nobody(host):
    busy = host.client()
    busy.send(b'{"jsonrpc":')
    for _ in range(1000):
        host.client()
        host.turn()
        # All but the latest were dropped by now, and an ordinary user may have only
        # 1,024 files open; the first is `busy`.
        if len(host.sockets) > 2 * control.CONNECTION_LIMIT:
            host.sockets.pop(1).close()
    assert len(host.server._connections) == control.CONNECTION_LIMIT
    busy.send(b'"2.0","id":1,"method":"echo"}\n')
    assert busy.receive()["result"] == {}
    assert host.client().result("echo") == {}


def test_the_connection_that_was_idle_the_longest_makes_room(host):
    clients = []
    for _ in range(control.CONNECTION_LIMIT):
        clients.append(host.client())
        clients[-1].result("echo")
        host.now += 1
    clients[0].result("echo")
    assert host.client().result("echo") == {}
    assert clients[1].receive() is None
    assert clients[0].result("echo") == {}


def test_subscribers_make_room_for_root_when_nobody_is_idle(host):
    clients = [host.client() for _ in range(control.CONNECTION_LIMIT)]
    for client in clients:
        client.result("watch")
        host.now += 1
    assert host.client().result("echo") == {}
    assert clients[0].receive() is None


def test_nothing_spins_when_descriptors_run_out(host):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients = [host.client() for _ in range(5)]
    served = host.client()
    for client in (*clients[:2], served):
        client.result("echo")
    late = [host.client() for _ in range(3)]
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    fillers = []
    with contextlib.suppress(OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        while True:
            fillers.append(os.dup(0))
    try:
        host.settle()
        assert served.result("echo") == {}
        assert [client.receive() for client in late] == [None] * 3
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)
    assert host.client().result("echo") == {}


@pytest.mark.integration
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.binary(max_size=80) | st.sampled_from([b"\n", b"{}\n", b'{"jsonrpc"']))
)
def test_no_bytes_of_one_client_disturb_another(host, pieces):
    rude, polite = host.client(), host.client()
    for number, piece in enumerate(pieces):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            rude.send(piece)
        if number < 3:
            assert polite.result("echo", n=number) == {"n": number}
    assert polite.result("echo") == {}
    rude.disconnect()
    polite.disconnect()
    host.settle()
    assert not host.server._connections


def test_answering_may_publish(tmp_path):
    """A change that a request makes is published to its sender, in whole lines."""
    host = Host(str(tmp_path / "control.sock"))
    client = host.client()
    client.result("watch")

    def answer(method, params, peer):
        host.server.publish({"n": 1})
        return {}

    host.server._answer = answer
    client.request("echo", id=1)
    client.request("echo", id=2)
    received = [client.receive() for _ in range(4)]
    assert [message.get("id", "changed") for message in received] == [
        "changed",
        1,
        "changed",
        2,
    ]
    host.close()


# Rights


def asked_as(
    path: str, uid: int, gid: int, groups: list[int], method: str
) -> subprocess.Popen:
    """A process under those ids that prints what it is answered."""
    script = f"""
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
os.setgroups({groups})
os.setresgid({gid}, {gid}, {gid})
os.setresuid({uid}, {uid}, {uid})
try:
    s.connect({path!r})
except PermissionError:
    sys.exit("no access")
try:
    s.sendall(b'{{"jsonrpc":"2.0","id":1,"method":"{method}"}}\\n')
except BrokenPipeError:
    pass
sys.stdout.write(s.makefile().readline())
"""
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def answer_to(host: Host, *who) -> str:
    with asked_as(host.path, *who) as process:
        while process.poll() is None:
            select.select([host.server], [], [], 0.05)
            host.turn()
        return (process.stdout.read() + process.stderr.read()).decode()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be others")


@pytest.fixture
def shared_host(tmp_path):
    """A host whose group is ``games``, reachable by everybody."""
    gid = grp.getgrnam("games").gr_gid
    folder = tempfile.mkdtemp(prefix="miglet-control-", dir="/tmp")
    os.chmod(folder, 0o755)
    host = Host(f"{folder}/control.sock", gid)
    yield host, gid
    host.close()
    os.rmdir(folder)


@pytest.mark.integration
@needs_root
def test_members_of_the_group_may_look_and_not_touch(shared_host):
    host, gid = shared_host
    found = os.stat(host.path)
    assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (gid, 0o660)
    for member in ((65534, gid, []), (65534, 65534, [gid])):
        assert '"result"' in answer_to(host, *member, "echo")
        assert "not permitted" in answer_to(host, *member, "drain")
    assert ("drain", {}) not in host.calls
    assert '"result"' in answer_to(host, 0, 0, [], "drain")


@needs_root
def test_strangers_are_refused_by_the_file_and_by_the_server(shared_host):
    host, _ = shared_host
    assert "no access" in answer_to(host, 65534, 65534, [], "echo")
    os.chmod(host.path, 0o666)
    answer = json.loads(answer_to(host, 65534, 65534, [], "echo"))
    assert answer["error"]["code"] == rpc.NOT_PERMITTED
    assert not host.calls


STRANGER = Peer(1, 54321, 5, ())
OURSELVES = Peer(1, os.geteuid(), 1, ())


def admitted(host: Host, peer: Peer) -> control.Connection:
    """A connection of `peer`, as if the kernel had named it."""
    host.server._require_may_read(peer)
    host.server._make_room_for(peer)
    end, theirs = socket.socketpair()
    host.sockets.append(theirs)
    host.now += 1
    connection = control.Connection(end, peer, host.now)
    host.server._connections[end.fileno()] = connection
    host.server._selector.register(end, selectors.EVENT_READ)
    return connection


def kept(host: Host, connection: control.Connection) -> bool:
    return connection in host.server._connections.values()


def test_without_a_group_only_we_and_root_may_read(host):
    host.server._gid = None
    with pytest.raises(rpc.RpcError, match="not permitted"):
        admitted(host, STRANGER)
    admitted(host, OURSELVES)


def test_the_users_of_our_workers_may_not_even_read(host):
    host.server._gid = 5
    admitted(host, STRANGER)
    host.server._refused = frozenset({STRANGER.uid})
    with pytest.raises(rpc.RpcError, match="not permitted"):
        admitted(host, STRANGER)


def test_a_user_with_too_many_connections_loses_the_oldest_idle_one(host):
    host.server._gid = 5
    first = admitted(host, OURSELVES)
    mine = [admitted(host, STRANGER) for _ in range(control.USER_LIMIT)]
    mine[0].inbox = b"half a request"
    admitted(host, STRANGER)
    assert [kept(host, each) for each in mine] == [True, False, True, True]
    assert kept(host, first)


def test_a_user_whose_connections_are_all_busy_has_to_wait(host):
    host.server._gid = 5
    for _ in range(control.USER_LIMIT):
        admitted(host, STRANGER).inbox = b"half a request"
    with pytest.raises(rpc.RpcError, match="too many connections"):
        admitted(host, STRANGER)
    admitted(host, STRANGER._replace(uid=54322))


def test_root_gets_in_though_every_place_is_held_by_others(host):
    host.server._gid = 5
    held = []
    for number in range(control.CONNECTION_LIMIT):
        held.append(admitted(host, STRANGER._replace(uid=60000 + number)))
        held[-1].inbox = b"half a request"
    admitted(host, OURSELVES)
    assert [kept(host, each) for each in held].count(False) == 1
    with pytest.raises(rpc.RpcError, match="too many connections"):
        admitted(host, STRANGER)


def test_a_stranger_takes_no_place_of_root(host):
    host.server._gid = 5
    ours = [admitted(host, OURSELVES) for _ in range(control.CONNECTION_LIMIT)]
    with pytest.raises(rpc.RpcError, match="too many connections"):
        admitted(host, STRANGER)
    assert all(kept(host, each) for each in ours)


# The path


def test_the_socket_is_closed_to_others_and_nothing_else_is_left(host):
    folder = os.path.dirname(host.path)
    assert stat.S_IMODE(os.stat(host.path).st_mode) == 0o660
    assert os.listdir(folder) == ["control.sock"]


def test_nobody_can_connect_before_the_rights_are_final(tmp_path, monkeypatch):
    refused = []

    def connect_first(path: str, mode: int) -> None:
        with socket.socket(socket.AF_UNIX) as early:
            refused.append(early.connect_ex(path))

    monkeypatch.setattr(os, "chmod", connect_first)
    Host(str(tmp_path / "control.sock")).close()
    assert refused == [errno.ECONNREFUSED]


def test_a_dead_socket_is_replaced(tmp_path):
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    host = Host(path)
    assert host.client().result("echo") == {}
    host.close()
    assert not os.path.exists(path)


def test_a_living_socket_is_left_alone(host):
    with pytest.raises(control.SocketInUse, match="somebody listens"):
        Host(host.path)
    assert host.client().result("echo") == {}


@pytest.mark.parametrize(
    "make, kind",
    [
        (lambda path: path.symlink_to("/etc/passwd"), "a symbolic link"),
        (lambda path: path.symlink_to("/nowhere"), "a symbolic link"),
        (lambda path: path.write_text("precious"), "a regular file"),
        (lambda path: path.mkdir(), "a directory"),
        (lambda path: os.mkfifo(path), "a special file"),
    ],
)
def test_what_is_no_socket_is_left_alone(tmp_path, make, kind):
    path = tmp_path / "control.sock"
    make(path)
    before = path.lstat()
    with pytest.raises(control.SocketUnusable, match=f"is {kind}, not a socket"):
        Host(str(path))
    assert path.lstat() == before
    assert os.listdir(tmp_path) == ["control.sock"]


@needs_root
def test_somebody_elses_socket_is_left_alone(tmp_path):
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    os.chown(path, 65534, 65534)
    with pytest.raises(control.SocketUnusable, match="belongs to user 65534"):
        Host(path)


def test_a_path_that_does_not_fit_is_reported(tmp_path):
    path = str(tmp_path / ("x" * 120))
    with pytest.raises(control.SocketUnusable, match="longer than the 107 bytes"):
        Host(path)


def test_a_full_disk_is_no_mistake_in_the_configuration(tmp_path, monkeypatch):
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(control, "listen_at", full)
    with pytest.raises(NoRoom) as caught:
        Host(str(tmp_path / "control.sock"))
    assert caught.value.exit_status == UNAVAILABLE


def test_a_folder_that_cannot_be_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(control.SocketUnusable, match="control.sock: "):
        Host(str(tmp_path / "file" / "control.sock"))


def test_a_socket_that_is_no_longer_ours_is_not_removed(tmp_path):
    path = str(tmp_path / "control.sock")
    old = Host(path)
    os.unlink(path)
    new = Host(path)
    old.close()
    assert new.client().result("echo") == {}
    new.close()
