"""The command-poller: what it passes on of the controller's answers, and how often."""

from __future__ import annotations

import pytest

from miglet.errors import ControllerUnreachable
from miglet.formats import LATEST
from miglet.messages.codec import decode, encode
from miglet.messages.facts import (
    CommandReceived,
    ControllerAnswered,
    ControllerFailed,
    FaultNoted,
)
from miglet.supervisor.queues import BUDGET_PER_SECOND
from miglet.workers.command_poller import (
    BACKLOG_SECONDS,
    MOST_COMMANDS,
    REMEMBERED,
    CommandPoller,
    parse_command,
)
from tests.sample_settings import sample_settings
from tests.workers.fakes import IDENTITY, FakeClient, FakeClock, FakeQueue, start

#: Seconds that a poll waits for a command, and the least between two polls.
WAIT, INTERVAL = 25.0, 5.0


class Poller:
    """A command-poller with a fake controller, after its first random pause."""

    def __init__(self, *answers, takes=0.0, **controller):
        self.clock = FakeClock()
        self.client = FakeClient(commands=answers)
        self.takes = takes
        changes = {
            "command_wait": WAIT,
            "command_interval": INTERVAL,
            "retry": {"max_attempts": 3},
            **controller,
        }
        self.worker = CommandPoller(
            sample_settings({"controller": changes}),
            IDENTITY,
            self.client,
            self.clock,
        )
        self.queue: FakeQueue = start(self.worker)
        self.worker.work()

    def poll(self):
        """One poll, which takes its time; the facts."""
        replies = self.client.replies["commands"]
        reply = replies[0]

        def slow(*arguments):
            self.clock.advance(self.takes)
            if isinstance(reply, Exception):
                raise reply
            return reply

        self.client.replies["commands"] = [slow, *(replies[1:] or [reply])]
        self.worker.work()
        return self.queue.take()

    @property
    def pause(self):
        """Seconds until the next poll."""
        return self.worker.period


def command(name, **more):
    return {"id": str(name), "type": "Drain", **more}


def test_the_first_poll_comes_after_a_random_part_of_a_second():
    poller = Poller([])
    assert poller.client.calls == []
    assert 0.0 <= poller.pause <= 1.0


def test_a_command_is_passed_on_and_the_next_poll_comes_at_once():
    poller = Poller([command("c-1", parameters={"reason": "old"})])
    (fact,) = poller.poll()
    assert (fact.id, fact.type, fact.parameters) == ("c-1", "Drain", {"reason": "old"})
    assert poller.pause == 0.0


def test_a_command_that_is_handed_out_again_is_not_news():
    poller = Poller([command("c-1")])
    poller.poll()
    assert poller.poll() == []
    assert 0.9 * INTERVAL <= poller.pause <= 1.1 * INTERVAL


def test_an_answer_without_commands_makes_the_poller_wait_for_the_interval():
    poller = Poller([], takes=1.0)
    poller.poll()
    assert 0.9 * INTERVAL - 1.0 <= poller.pause <= 1.1 * INTERVAL - 1.0


def test_a_poll_that_was_held_for_an_interval_is_followed_by_another_at_once():
    poller = Poller([], takes=1.1 * INTERVAL)
    poller.poll()
    assert poller.pause == 0.0


@pytest.mark.parametrize(
    "raw", [{"type": "Drain"}, {"id": 7, "type": "Drain"}, {"id": ""}, 7, None, "x"]
)
def test_a_command_without_a_usable_id_neither_hurries_nor_repeats(raw):
    poller = Poller([raw])
    (fact,) = poller.poll()
    assert isinstance(fact, CommandReceived)
    assert fact.id == ""
    assert fact.faults
    for _ in range(100):
        assert poller.pause >= 0.9 * INTERVAL
        poller.clock.advance(poller.pause)
        assert poller.poll() == []


def test_four_commands_without_a_usable_id_are_reported_in_a_minute_at_most():
    answers = [[{"id": None, "made": number}] for number in range(100)]
    poller = Poller(*answers)
    times = []
    for _ in range(100):
        times += [poller.clock() for _ in poller.poll()]
        assert poller.pause >= 0.9 * INTERVAL
        poller.clock.advance(6.0)
    assert 37 <= len(times) <= 40
    assert all(
        after - before >= 60.0 for before, after in zip(times, times[4:], strict=False)
    )


def test_a_command_with_an_id_and_a_wrong_form_is_answered_and_does_not_hurry():
    poller = Poller([command("c-1", parameters=[])])
    (fact,) = poller.poll()
    assert (fact.id, fact.faults) == ("c-1", ["parameters is not an object"])
    assert poller.pause >= 0.9 * INTERVAL


def test_at_most_sixteen_new_commands_are_taken_of_one_answer():
    poller = Poller([command(number) for number in range(320)])
    seen = []
    for _ in range(320 // MOST_COMMANDS):
        facts = poller.poll()
        assert len(facts) == MOST_COMMANDS == 16
        assert poller.pause == pytest.approx(BACKLOG_SECONDS)
        seen += [fact.id for fact in facts]
    assert seen == [str(number) for number in range(320)]
    assert poller.poll() == []
    assert poller.pause >= 0.9 * INTERVAL


def test_what_is_remembered_is_bounded():
    poller = Poller(*([command(number)] for number in range(REMEMBERED + 10)))
    for _ in range(REMEMBERED + 10):
        assert len(poller.poll()) == 1
    assert len(poller.worker._seen) == REMEMBERED


@pytest.mark.parametrize(
    "text", [None, "", "1970-01-01T23:59:59Z", "0001-01-01T00:00:00Z"]
)
def test_null_empty_and_ancient_times_mean_no_expiry(text):
    (fact,) = Poller([command("c-1", expires_at=text)]).poll()
    assert (fact.expires_at, fact.faults) == (None, [])


def test_an_expiry_is_passed_on_and_a_bad_one_is_a_fault():
    good = command("c-1", expires_at="2026-01-15T10:30:00.1234567Z")
    bad = command("c-2", expires_at="tomorrow")
    first, second = Poller([good, bad]).poll()
    assert first.expires_at == pytest.approx(1768473000.123456)
    assert "expires_at" in second.faults[0]


def test_a_failure_is_reported_and_retried_with_back_off():
    poller = Poller(ControllerUnreachable("503"), [])
    (failed,) = poller.poll()
    assert isinstance(failed, ControllerFailed)
    assert (failed.call, failed.category, failed.reason) == (
        "commands",
        "transient",
        "503",
    )
    assert failed.retry_in_seconds == poller.pause
    (answered,) = poller.poll()
    assert answered == ControllerAnswered("commands", 0.25)
    assert poller.poll() == []


def test_after_max_attempts_the_controller_is_notified_once():
    poller = Poller(ControllerUnreachable("no answer in time"))
    facts = [fact for _ in range(10) for fact in poller.poll()]
    (noted,) = [fact for fact in facts if isinstance(fact, FaultNoted)]
    assert facts.index(noted) == 3  # after the third failure
    assert noted.code == "call_failing"
    assert noted.message == "commands: 3 attempts in a row failed: no answer in time"


def test_a_retry_after_is_waited_for():
    poller = Poller(ControllerUnreachable("429", retry_after=60.0))
    poller.poll()
    assert 60.0 <= poller.pause <= 72.0


def test_changed_settings_reach_the_client():
    poller = Poller([])
    before = poller.worker.settings
    poller.worker.settings = sample_settings({"controller": {"command_wait": 1.0}})
    poller.worker.changed(before)
    poller.poll()
    assert poller.client.settings == [poller.worker.settings.controller]
    assert poller.client.of("commands") == [1.0]


@pytest.mark.parametrize(
    "text", ["9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59-12:00"]
)
def test_the_parent_takes_the_latest_expiry_of_any_language(text):
    raw = {"id": "a", "type": "Drain", "expires_at": text}
    received = decode(encode(parse_command(raw)))
    assert received.faults == [] and received.expires_at == LATEST


@pytest.mark.parametrize("number", [2**63, -(10**39), 10**19])
def test_a_number_that_the_parent_would_refuse_is_a_fault(number):
    raw = {"id": "a", "type": "Drain", "parameters": {"reason": [number]}}
    received = decode(encode(parse_command(raw)))
    assert (received.id, received.parameters) == ("a", {})
    assert received.faults == ["parameters have a number that is too large, or is none"]


def test_a_backlog_of_commands_stays_within_the_budget_of_this_worker():
    often = MOST_COMMANDS / BACKLOG_SECONDS
    assert often * CommandReceived.cost < BUDGET_PER_SECOND
