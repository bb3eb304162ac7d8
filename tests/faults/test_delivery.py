"""A controller that cannot be reached, before, during and after a job.

Every event arrives, in order and once in effect; heartbeats return within seconds;
and a controller that is failing gets no more requests for it.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from itertools import pairwise

import pytest

from tests.end_to_end.conftest import HELD, IDLE, job, pointed_at
from tests.faults import invariants, network_faults
from tests.faults.network_faults import (
    FaultyProxy,
    answering,
    faulty_proxy,
    saying,
    whole,
)
from tests.stub_controller import GO_ON, answer, stub_controller
from tests.support import eventually

#: Time is short here: 5 s of silence would be the whole time of a fault.
SETTINGS = {
    "controller": {
        "timeout": "1s",
        "command_wait": "500ms",
        "retry": {"initial_backoff": "50ms", "max_backoff": "500ms"},
    },
    "heartbeat": {"interval": "250ms", "timeout": "2s"},
    "shutdown": {"grace_period": "15s", "delivery_timeout": "15s"},
}

#: Seconds of each of the three bouts; longer than a request may take.
FAULT_SECONDS = 1.5

#: Most requests a second during a fault: heartbeats (4), events and commands (4 each,
#: by the mean of their back-off), the first quick attempts, and chance.
MOST_PER_SECOND = 20.0

#: A credential that is refused is shown once more, so each attempt is two requests.
TWICE = ("401",)

MEBIBYTE = bytes(1024 * 1024)

FAULTS: dict[str, network_faults.Treat] = {
    "reset": network_faults.resetting,
    "closed": network_faults.closing,
    "answers lost": network_faults.losing,
    "silent": network_faults.silent,
    "one byte at a time": network_faults.dripping,
    "slow": network_faults.slow,
    "lossy": network_faults.lossy,
    "500": answering(500),
    "502": answering(502),
    "503": answering(503),
    "504": answering(504),
    "408": answering(408),
    "429": answering(429),
    "429, a second": answering(429, "Retry-After: 1"),
    "503, a second": answering(503, "Retry-After: 1"),
    "429, negative": answering(429, "Retry-After: -7"),
    "429, garbage": answering(429, "Retry-After: soon"),
    "429, a date": answering(429, f"Retry-After: {formatdate(0, usegmt=True)}"),
    "401": answering(401),
    "403 to heartbeats and polls": network_faults.only(
        ("heartbeat", "commands"), answering(403)
    ),
    "redirect": answering(302, "Location: http://127.0.0.1:1/"),
    "to plain http": answering(307, "Location: http://127.0.0.1:1/"),
    "captive portal": saying(whole(200, b"<html>Welcome</html>", kind="html")),
    "not HTTP": saying(b"SSH-2.0-OpenSSH_9.2\r\n", last=True),
    "cut": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", last=True),
    "huge": saying(whole(200, MEBIBYTE + b"{}"), last=True),
    "endless": saying(b"HTTP/1.1 200 OK\r\n\r\n" + 3 * MEBIBYTE, last=True),
    "packed": saying(whole(200, b"\x1f\x8b", "Content-Encoding: gzip")),
    "500 headers": saying(whole(200, b"{}", *(f"X-{n}: y" for n in range(500)))),
}

#: Those that run in `make test`, too.
QUICK = ("answers lost",)


@pytest.fixture
def way(controller) -> Iterator[FaultyProxy]:
    """The way to the controller."""
    with faulty_proxy(controller.endpoint) as between:
        yield between


def pause(seconds: float) -> None:
    """Let a fault last."""
    until = time.monotonic() + seconds
    eventually(lambda: time.monotonic() >= until, seconds + 5)


def failing(way: FaultyProxy, name: str, seconds: float = FAULT_SECONDS) -> None:
    """A fault for so long, in which no more requests come than are allowed."""
    began = way.change(FAULTS[name])
    pause(seconds)
    ended = way.change(None)
    most = MOST_PER_SECOND * seconds * (2 if name in TWICE else 1)
    assert way.count(began, ended) <= most


def beats_again(vm, way: FaultyProxy, seconds: float = 3.0) -> None:
    """Heartbeats arrive soon after the fault."""
    since = time.monotonic()
    eventually(
        lambda: any(
            beat["received_mono"] > since for beat in vm.controller.heartbeats(vm.vm)
        ),
        seconds,
        "a heartbeat",
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in FAULTS
    ],
)
def test_network_faults_lose_and_repeat_nothing(machine, way, name):
    treat = FAULTS[name]
    vm = pointed_at(machine({**HELD, "result": "Failed"}, **SETTINGS), way.endpoint)
    way.change(treat)
    vm.agent.start()
    failing(way, name)
    vm.event("RunnerRegistered")
    beats_again(vm, way)

    way.change(treat)
    vm.double.release_job()
    eventually(lambda: vm.double.truth("step_start"), what="the step")
    failing(way, name)
    beats_again(vm, way)

    way.change(treat)
    vm.double.finish_step()
    eventually(lambda: vm.double.truth("result"), what="the result")
    failing(way, name)
    assert vm.agent.wait() == 0
    invariants.kept(vm.events(), vm)
    assert vm.types()[0] == "VMStarted"
    assert vm.types()[-1] == "VMStopped"
    assert "Traceback" not in vm.agent.log()


@pytest.mark.slow
def test_a_controller_that_is_not_there_for_long_gets_everything_later(
    machine, controller, free_port
):
    vm = pointed_at(machine(HELD, **SETTINGS), f"http://127.0.0.1:{free_port}")
    vm.agent.start()
    vm.agent.until("waiting_for_controller")
    pause(10)
    with faulty_proxy(controller.endpoint, free_port):
        vm.event("RunnerRegistered")
    vm.double.release_job()
    vm.agent.until("job_running")
    pause(10)
    assert vm.agent.status()["controller"]["reachable"] is False
    vm.double.finish_step()
    eventually(lambda: vm.double.truth("listener_exit"))
    with faulty_proxy(controller.endpoint, free_port) as way:
        since = time.monotonic()
        assert vm.agent.wait() == 0
        assert way.count(since, time.monotonic()) < 60
    invariants.kept(vm.events(), vm)


def test_what_the_controller_misses_at_the_end_is_delivered_by_the_next_start(
    machine, controller, free_port, tmp_path
):
    tmp_path.chmod(0o700)
    lines = tmp_path / "events"
    shutdown = {
        "grace_period": "1s",
        "delivery_timeout": "1s",
        "last_resort": str(lines),
    }
    settings = {**SETTINGS, "shutdown": shutdown}
    vm = pointed_at(machine(HELD, **settings), f"http://127.0.0.1:{free_port}")
    with faulty_proxy(controller.endpoint, free_port):
        vm.agent.start()
        vm.agent.until("idle")
        vm.double.release_job()
        vm.event("JobStarted")
    vm.double.finish_step()
    assert vm.agent.wait() == 75
    left = [
        json.loads(line.removeprefix("MIGLET-EVENT "))
        for line in lines.read_text().splitlines()
    ]
    assert {each["type"] for each in left} >= {"JobCompleted", "VMStopped"}
    assert left[0]["type"] == "JobCompleted"
    registered = vm.types().count("RunnerRegistered")
    with faulty_proxy(controller.endpoint, free_port):
        vm.agent.start()
        assert vm.agent.wait() == 0
    assert vm.types()[-1] == "VMStopped"
    assert vm.types().count("RunnerRegistered") == registered
    assert vm.types().count("JobCompleted") == vm.types().count("VMStopped") == 1
    invariants.kept(vm.events(), vm)


@pytest.mark.slow
def test_a_controller_that_asks_for_an_age_is_given_five_minutes(machine):
    notified: list[float] = []

    def script(call, body):
        if call != "events":
            return GO_ON
        notified.append(time.monotonic())
        return answer({}, 429, Retry_After="1000000000")

    with stub_controller(script=script) as stub:
        vm = pointed_at(machine(IDLE, **SETTINGS), stub.endpoint)
        vm.agent.start()
        eventually(lambda: notified)
        eventually(lambda: len(stub.calls("heartbeat")) > 8)
        assert len(notified) == 1
        pauses = re.findall(r"/events failed: .*; retrying in (\S+) s", vm.agent.log())
        assert len(pauses) == 1
        assert 300 <= float(pauses[0]) <= 360


def test_a_controller_slower_than_the_heartbeats_gets_the_events_in_between(machine):
    def script(call, body):
        threading.Event().wait(0.4)
        return GO_ON

    with stub_controller(script=script) as stub:
        vm = pointed_at(machine(job("Failed"), **SETTINGS), stub.endpoint)
        vm.agent.start()
        assert vm.agent.wait() == 0
        kinds = [event["type"] for event in stub.events()]
        assert kinds[-3:] == ["JobCompleted", "VMShuttingDown", "VMStopped"]
        assert len(kinds) == 6 and len(stub.calls("heartbeat")) >= 5


@pytest.mark.parametrize("status", [400, 403, 404, 410, 413, 422])
def test_an_event_that_is_refused_is_set_aside_and_the_rest_goes_on(machine, status):
    def script(call, body):
        refused = call == "events" and body["type"] == "JobStarted"
        return answer({"detail": "no such column"}, status) if refused else GO_ON

    with stub_controller(script=script) as stub:
        vm = pointed_at(machine(HELD, **SETTINGS), stub.endpoint)
        vm.agent.start()
        vm.agent.until("idle")
        vm.double.release_job()
        eventually(lambda: stub.events("JobStarted"))
        eventually(lambda: vm.agent.status()["events"]["rejected"] == 1)
        vm.double.finish_step()
        assert vm.agent.wait() == 0
        kinds = [event["type"] for event in stub.events()]
        assert kinds.count("JobStarted") == 1
        assert kinds[-3:] == ["JobCompleted", "VMShuttingDown", "VMStopped"]
        assert "no such column" in vm.agent.log()


def test_a_duplicate_counts_as_delivered(machine):
    def script(call, body):
        seen = answer({"detail": "seen", "duplicate": True}, 409)
        return seen if call == "events" else GO_ON

    with stub_controller(script=script) as stub:
        vm = pointed_at(machine(IDLE, **SETTINGS), stub.endpoint)
        vm.agent.start()
        vm.agent.until("idle")
        counts = eventually(
            lambda: (
                (seen := vm.agent.status()["events"])["pending"] == 0
                and seen["delivered"] == 2
                and seen
            )
        )
        assert counts["rejected"] == 0
        kinds = [event["type"] for event in stub.events()]
        assert kinds == ["VMStarted", "RunnerRegistered"]


def test_a_conflict_that_is_no_duplicate_is_repeated(machine):
    """As middleware for Idempotency-Key answers while the first attempt lasts."""
    attempts = []

    def script(call, body):
        if call != "events" or body["type"] != "VMStarted":
            return GO_ON
        attempts.append(body["id"])
        return answer({"detail": "busy"}, 409) if len(attempts) < 4 else GO_ON

    with stub_controller(script=script) as stub:
        vm = pointed_at(machine(IDLE, **SETTINGS), stub.endpoint)
        vm.agent.start()
        vm.agent.until("idle")
        assert len(attempts) == 4
        assert len(set(attempts)) == 1


def test_a_command_without_an_id_brings_no_more_polls(machine):
    """Handed out at each poll, by a controller that answers at once."""

    def script(call, body):
        unknown_name = {"commands": [{"type": "Drain"}, {"id": 7, "type": "Drain"}]}
        return answer(unknown_name) if call == "commands" else GO_ON

    with stub_controller(script=script) as stub:
        vm = pointed_at(machine(IDLE, **SETTINGS), stub.endpoint)
        vm.agent.start()
        vm.agent.until("idle")
        eventually(lambda: len(stub.calls("commands")) >= 10)
        polls = [request.at for request in stub.calls("commands")]
        gaps = [after - before for before, after in pairwise(polls)]
        assert min(gaps) >= 0.1  # controller.command_interval is 200 ms here
        codes = [event["data"]["code"] for event in stub.events("Error")]
        assert codes.count("malformed_command") == 2


def test_a_credential_that_is_not_accepted_is_shown_ever_more_rarely(machine):
    def script(call, body):
        return answer({"detail": "who?"}, 401) if call == "events" else GO_ON

    with stub_controller(script=script) as stub:
        vm = pointed_at(machine(IDLE, **SETTINGS), stub.endpoint)
        vm.agent.start()
        eventually(lambda: stub.calls("events"))
        pause(3)
        assert len(stub.calls("events")) < 60  # two for each attempt
        assert vm.agent.state() == "waiting_for_controller"
        assert vm.agent.status()["events"]["rejected"] == 0
