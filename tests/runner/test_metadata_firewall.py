"""Jobs and the metadata server: what is refused, and what is left alone.

The real rules are loaded into a network namespace of the test's own, which ends with
it; only root can make one.
"""

from __future__ import annotations

import ctypes
import http.server
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from miglet.bootstrap import runner as bootstrap_runner
from miglet.config.settings import Settings
from miglet.metadata.clouds import metadata_addresses
from miglet.runner import metadata_firewall
from miglet.runner.metadata_firewall import MetadataOpen
from miglet.supervisor.privileges import Account
from tests.preflight_machine import look, settings_of

pytestmark = pytest.mark.integration

CLONE_NEWNET = 0x40000000

IPV4 = [each for each in metadata_addresses() if ":" not in each]
IPV6 = [each for each in metadata_addresses() if ":" in each]
SERVER, WIRE_SERVER = IPV4

block = partial(metadata_firewall.apply, addresses=metadata_addresses())

NOBODY = Account("nobody", 65534, 65534, "/")

#: Seconds after which a probe was neither answered nor refused.
LOST_SECONDS = 5

REFUSED = "Connection refused"

#: Somebody else's, which must stay as it is.
FOREIGN = """\
table inet docker {
	chain output {
		type filter hook output priority 0; policy accept;
		ip daddr 192.0.2.1 drop
	}
}
"""


def no_network() -> str:
    """Why no packet filter can be tried here; empty when one can."""
    if os.geteuid() != 0:
        return "only root can make a network namespace"
    missing = [each for each in ("nft", "ip", "unshare") if not shutil.which(each)]
    if missing:
        return f"there is no {', '.join(missing)}"
    probe = ["unshare", "--net", "nft", "add table inet probe"]
    completed = subprocess.run(probe, capture_output=True, text=True)
    return f"no packet filter: {completed.stderr}" if completed.returncode else ""


real = pytest.mark.skipif(bool(no_network()), reason=no_network())


def done(*command: str, given: str = "") -> str:
    """What a command that must succeed printed."""
    completed = subprocess.run(command, capture_output=True, text=True, input=given)
    assert completed.returncode == 0, (command, completed.stderr)
    return completed.stdout


def rules() -> str:
    """Everything that filters packets here, without what was counted."""
    return done("nft", "--stateless", "list", "ruleset")


@contextmanager
def network_of_its_own() -> Iterator[None]:
    """This thread, and what it starts, in an empty network; after that, back again."""
    libc = ctypes.CDLL(None, use_errno=True)
    former = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert libc.setns(former, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(former)


class Answering(http.server.BaseHTTPRequestHandler):
    """A metadata server that has only one thing to say."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"identity")

    def log_message(self, *words: object) -> None:
        """Nothing is written about requests."""


@contextmanager
def served(address: str, port: int) -> Iterator[None]:
    """An HTTP server there, whatever the port is usually for."""
    kind = type("Server", (http.server.ThreadingHTTPServer,), {})
    kind.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with kind((address, port), Answering) as server:
        thread = threading.Thread(target=partial(server.serve_forever, 0.01))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def cloud() -> Iterator[None]:
    """A machine whose metadata server is on its loopback device."""
    with network_of_its_own():
        done("ip", "link", "set", "lo", "up")
        for address in IPV4:
            done("ip", "address", "add", f"{address}/32", "dev", "lo")
        with served(SERVER, 80), served(SERVER, 53), served(WIRE_SERVER, 80):
            yield


def answer(place: str, uid: int, port: int = 80) -> str:
    """What `uid` is answered there by HTTP, or why it is not; never waits for long."""
    script = f"""
        exec 3<>/dev/tcp/{place}/{port} || exit
        printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3
        cat <&3
    """
    completed = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        cwd="/",
        user=uid,
        group=uid,
        extra_groups=[],
        timeout=LOST_SECONDS,
    )
    return completed.stdout.splitlines()[-1] if completed.stdout else completed.stderr


def sent(place: str, uid: int, port: int) -> str:
    """Why the second of two datagrams could not be sent; empty when it was."""
    script = f"exec 3>/dev/udp/{place}/{port}; echo 1 >&3; echo 2 >&3"
    completed = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd="/", user=uid
    )
    return completed.stderr


def counted() -> int:
    """The packets that were refused since the table was loaded."""
    listed = done("nft", "list", "chain", "inet", "miglet", "refusal")
    return int(listed.partition("packets ")[2].split()[0])


def settings(folder: Path, block: bool) -> Settings:
    """A machine whose runner's user is `nobody`, and is kept from metadata or not."""
    (folder / "run").mkdir(exist_ok=True)
    return settings_of(folder, runner__block_metadata=block, runner__user="nobody")


@real
def test_the_runners_user_is_refused_at_once_and_nobody_else(cloud, tmp_path):
    assert answer(SERVER, NOBODY.uid) == "identity"
    block(settings(tmp_path, True), NOBODY)
    assert REFUSED in answer(SERVER, NOBODY.uid)
    assert answer(SERVER, 0) == answer(SERVER, 65533) == "identity"


@real
def test_a_refusal_is_the_answer_to_the_first_packet(cloud, tmp_path):
    """A client that tried again would have waited for a second."""
    block(settings(tmp_path, True), NOBODY)
    assert (counted(), answer(SERVER, 0)) == (0, "identity")
    for tries in (1, 2, 3):
        assert REFUSED in answer(SERVER, NOBODY.uid)
        assert counted() == tries


@real
def test_azures_second_address_is_refused_too(cloud, tmp_path):
    assert answer(WIRE_SERVER, NOBODY.uid) == "identity"
    block(settings(tmp_path, True), NOBODY)
    assert REFUSED in answer(WIRE_SERVER, NOBODY.uid)
    assert answer(WIRE_SERVER, 0) == "identity"


@real
def test_the_addresses_of_ipv6_are_refused_too(cloud, tmp_path):
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("there is no IPv6 in this kernel")
    for address in IPV6:
        done("ip", "-6", "address", "add", f"{address}/128", "dev", "lo", "nodad")
        with served(address, 80), served(address, 53):
            assert answer(address, NOBODY.uid) == "identity"
            block(settings(tmp_path, True), NOBODY)
            assert REFUSED in answer(address, NOBODY.uid)
            assert answer(address, NOBODY.uid, port=53) == "identity"
            assert answer(address, 0) == "identity"
        block(settings(tmp_path, False), NOBODY)


@real
def test_names_and_time_can_still_be_asked_for(cloud, tmp_path):
    block(settings(tmp_path, True), NOBODY)
    assert answer(SERVER, NOBODY.uid, port=53) == "identity"
    # Nobody listens: the first datagram came through, and was answered with that.
    for port in (53, 123):
        assert REFUSED in sent(SERVER, NOBODY.uid, port)
    assert counted() == 0
    assert "No route to host" in sent(SERVER, NOBODY.uid, 80)
    assert REFUSED in answer(SERVER, NOBODY.uid, port=123)
    assert counted() == 2


@real
def test_a_user_that_the_runners_user_may_become_is_refused_too(cloud, tmp_path):
    subuid = tmp_path / "subuid"
    subuid.write_text("nobody:300000:1000\n")
    uids = metadata_firewall.owners(NOBODY, subuid)
    metadata_firewall.load(
        metadata_firewall.ruleset(uids, metadata_addresses()), tmp_path
    )
    assert REFUSED in answer(SERVER, 300000)
    assert REFUSED in answer(SERVER, 300999)
    assert REFUSED in answer(SERVER, NOBODY.uid)
    assert answer(SERVER, 299999) == answer(SERVER, 301000) == "identity"


@real
def test_loading_twice_is_loading_once_and_false_takes_it_away(cloud, tmp_path):
    done("nft", "-f", "-", given=FOREIGN)
    before = rules()
    block(settings(tmp_path, True), NOBODY)
    once = rules()
    block(settings(tmp_path, True), NOBODY)
    assert rules() == once != before
    assert once.startswith(before.rstrip()) and once.count("table ") == 2
    block(settings(tmp_path, False), NOBODY)
    assert rules() == before
    assert answer(SERVER, NOBODY.uid) == "identity"


@real
def test_what_was_blocked_for_another_user_is_replaced(cloud, tmp_path):
    block(settings(tmp_path, True), NOBODY)
    block(settings(tmp_path, True), NOBODY._replace(uid=65533))
    assert answer(SERVER, NOBODY.uid) == "identity"
    assert REFUSED in answer(SERVER, 65533)


@real
def test_a_table_that_somebody_flushed_is_put_back(cloud, tmp_path):
    block(settings(tmp_path, True), NOBODY)
    done("nft", "flush", "ruleset")
    block(settings(tmp_path, True), NOBODY)
    assert REFUSED in answer(SERVER, NOBODY.uid)
    done("nft", "flush", "ruleset")
    block(settings(tmp_path, False), NOBODY)
    assert rules() == ""


@real
def test_the_check_has_the_kernel_judge_and_changes_nothing(cloud, tmp_path):
    row = look("runner_metadata", settings(tmp_path, True))
    assert (row["status"], row["detail"]) == (
        "ok",
        "nobody will be kept from the metadata server",
    )
    assert rules() == ""
    assert not list((tmp_path / "run").iterdir())


@real
def test_a_kernel_that_refuses_is_reported_by_the_check_and_at_the_launch(
    cloud, tmp_path, monkeypatch
):
    wrong = ("192.0.2.1/99",)
    monkeypatch.setattr(bootstrap_runner, "metadata_addresses", lambda: wrong)
    row = look("runner_metadata", settings(tmp_path, True))
    assert (row["status"], row["category"]) == ("fail", "infrastructure")
    assert "192.0.2.1/99" in row["detail"] and row["hint"]
    with pytest.raises(MetadataOpen, match="192.0.2.1/99"):
        block(settings(tmp_path, True), NOBODY, addresses=wrong)
    assert rules() == ""
