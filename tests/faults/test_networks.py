"""Names that do not resolve, and a link that is down, slow or away."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from random import randrange
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.end_to_end.conftest import HELD, Machine, pointed_at
from tests.faults import invariants
from tests.faults.network_faults import FaultyProxy, faulty_proxy
from tests.faults.test_delivery import MOST_PER_SECOND, SETTINGS, beats_again, pause
from tests.faults.wire import Wire
from tests.support import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
]

#: How long the arbiter may hear nobody: a lookup without an answer takes a second,
#: and a request over a slow link longer than this.
STALL_SECONDS = 0.5

#: Runs what follows with its own way of looking up names.
LOOK_UP = (
    "mount --make-rprivate / && mount --bind {folder}/resolv.conf /etc/resolv.conf"
    ' && mount --bind {folder}/nsswitch.conf /etc/nsswitch.conf && exec "$@"'
)


class NameServer:
    """Answers every question as the test says: an address, no such name, or not."""

    def __init__(self) -> None:
        self.mood: Callable[[bytes], bytes | None] = known
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # An address of the loopback that no other run has chosen.
        self.address = f"127.{'.'.join(str(randrange(1, 255)) for _ in range(3))}"
        self._socket.bind((self.address, 53))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._over.is_set():
            if select.select([self._socket], [], [], 0.05)[0]:
                question, who = self._socket.recvfrom(512)
                self.asked += 1
                answer = self.mood(question)
                if answer:
                    self._socket.sendto(answer, who)

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()


def known(question: bytes) -> bytes:
    """127.0.0.1, for as long as nobody asks again (RFC 1035, 4.1)."""
    if question[-4:-2] != b"\0\1":
        return head(question, b"\x81\x80", answers=0)
    record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton("127.0.0.1")
    return head(question, b"\x81\x80", answers=1) + record


def unknown(question: bytes) -> bytes:
    """There is no such name."""
    return head(question, b"\x81\x83", answers=0)


def mute(question: bytes) -> None:
    """Nothing."""


def head(question: bytes, flags: bytes, answers: int) -> bytes:
    counts = b"\0\1" + bytes([0, answers]) + b"\0\0\0\0"
    return question[:2] + flags + counts + question[12 : end_of_name(question) + 4]


def end_of_name(question: bytes) -> int:
    return question.index(b"\0", 12) + 1


@pytest.fixture
def names(tmp_path) -> Iterator[NameServer]:
    """The name server, and a folder of files that point at it."""
    (tmp_path / "nsswitch.conf").write_text("hosts: dns\npasswd: files\ngroup: files\n")
    with contextlib.closing(NameServer()) as server:
        resolve = f"nameserver {server.address}\noptions timeout:1 attempts:1\n"
        (tmp_path / "resolv.conf").write_text(resolve)
        yield server


def by_name(vm: Machine, port: int) -> Machine:
    return insecure(pointed_at(vm, f"http://controller.test:{port}"))


def insecure(vm: Machine) -> Machine:
    """The machine, which may speak plain HTTP beyond the loopback."""
    text = vm.agent.config.read_text()
    changed = text.replace("endpoint:", "allow_insecure: true\n  endpoint:")
    vm.agent.config.write_text(changed)
    return vm


@pytest.mark.parametrize("mood", [unknown, mute])
def test_a_name_that_does_not_resolve_loses_and_stalls_nothing(
    machine, wrapped, controller, names, tmp_path, mood
):
    vm = machine({**HELD, "result": "Failed"}, **SETTINGS)
    vm = by_name(vm, urlsplit(controller.endpoint).port)
    script = LOOK_UP.format(folder=tmp_path)
    vm = wrapped(vm, "unshare", "--mount", "sh", "-c", script, "sh")
    names.mood = mood
    vm.agent.start()
    eventually(lambda: names.asked, what="a question")
    asked = names.asked
    pause(2)
    assert names.asked - asked <= 2 * 2 * MOST_PER_SECOND
    names.mood = known
    vm.event("RunnerRegistered")
    names.mood = mood
    vm.double.release_job()
    vm.agent.until("job_running")
    pause(2)
    assert vm.agent.status()["arbiter"]["longest_stall_seconds"] < STALL_SECONDS
    names.mood = known
    vm.double.finish_step()
    assert vm.agent.wait() == 0
    invariants.kept(vm.events(), vm)


class Link:
    """A network of two ends: ours, and the one in a namespace of its own."""

    def __init__(self) -> None:
        name = uuid.uuid4().hex[:6]
        self.namespace, self.ours, self.theirs = f"mig{name}", f"m{name}a", f"m{name}b"
        # One of the networks of RFC 2544, which no other run has chosen.
        number = 4 * randrange(2**15)
        network = ip_network("198.18.0.0/15")
        self.address, self.other = str(network[number + 1]), str(network[number + 2])
        self.wire = Wire(self.ours, self.theirs)

    def make(self) -> None:
        ip("netns", "add", self.namespace)
        ip("link", "set", self.theirs, "netns", self.namespace)
        ip("addr", "add", f"{self.address}/30", "dev", self.ours)
        ip("link", "set", self.ours, "up")
        within = ("-n", self.namespace)
        ip(*within, "addr", "add", f"{self.other}/30", "dev", self.theirs)
        ip(*within, "link", "set", "lo", "up")
        ip(*within, "link", "set", self.theirs, "up")

    def set(self, state: str) -> None:
        """Up or down."""
        ip("link", "set", self.ours, state)

    def close(self) -> None:
        self.wire.close()
        subprocess.run(["ip", "netns", "del", self.namespace], check=False)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def link() -> Iterator[Link]:
    try:
        made = Link()
    except OSError as error:
        pytest.skip(f"no network devices of our own: {error}")
    with contextlib.closing(made):
        try:
            made.make()
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network of our own: {error}")
        yield made


#: A request is some packets there and back, and what was lost is sent again.
PATIENT = {**SETTINGS, "controller": {**SETTINGS["controller"], "timeout": "5s"}}


@pytest.fixture
def way(controller, link) -> Iterator[FaultyProxy]:
    """The controller, as it is to be found from the other end of the link."""
    with faulty_proxy(controller.endpoint, host=link.address) as between:
        yield between


@pytest.fixture
def beyond(machine, wrapped, link, way) -> Callable[..., Machine]:
    """Makes a machine at the other end of the link."""

    def make(**settings: Any) -> Machine:
        vm = machine({**HELD, "result": "Failed"}, **settings)
        vm = insecure(pointed_at(vm, way.endpoint))
        return wrapped(vm, "ip", "netns", "exec", link.namespace)

    return make


def test_a_link_that_goes_down_loses_and_repeats_nothing(beyond, link, way):
    vm = beyond(**SETTINGS)
    link.set("down")
    vm.agent.start()
    pause(2)
    link.set("up")
    vm.event("RunnerRegistered")
    beats_again(vm, way, 10)
    link.set("down")
    vm.double.release_job()
    vm.agent.until("job_running")
    pause(3)
    assert not vm.agent.status()["controller"]["reachable"]
    vm.double.finish_step()
    eventually(lambda: vm.double.truth("result"), what="the result")
    link.set("up")
    assert vm.agent.wait() == 0
    invariants.kept(vm.events(), vm)


@pytest.mark.parametrize(
    ("delay", "loss"),
    [(0.3, 0.0), (0.0, 0.2), (0.1, 0.2)],
    ids=["slow", "lossy", "both"],
)
def test_a_link_that_is_slow_and_loses_packets_loses_and_repeats_nothing(
    beyond, link, way, delay, loss
):
    vm = beyond(**PATIENT)
    link.wire.delay, link.wire.loss = delay, loss
    vm.agent.start()
    vm.event("RunnerRegistered")
    beats_again(vm, way, 20)
    vm.double.release_job()
    vm.event("JobStarted")
    assert vm.agent.status()["arbiter"]["longest_stall_seconds"] < STALL_SECONDS
    vm.double.finish_step()
    assert vm.agent.wait() == 0
    invariants.kept(vm.events(), vm)
    assert link.wire.carried > 20 and (link.wire.lost > 5) == (loss > 0)


def test_a_link_slower_than_any_limit_is_as_good_as_none(beyond, link):
    vm = beyond(**SETTINGS)
    vm.agent.start()
    vm.event("RunnerRegistered")
    link.wire.delay = 2.0
    vm.double.release_job()
    vm.agent.until("job_running")
    eventually(lambda: not vm.agent.status()["controller"]["reachable"])
    vm.double.finish_step()
    eventually(lambda: vm.double.truth("result"), what="the result")
    link.wire.delay = 0.0
    assert vm.agent.wait() == 0
    invariants.kept(vm.events(), vm)
