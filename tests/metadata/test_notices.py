"""What the clouds announce: each thing once, in time, and never an exception."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.utils import formatdate

import pytest

from miglet.metadata.notices import Notice, Notices, notices_of
from tests.metadata_fakes import FAKES, Fake, FakeAws, FakeAzure, FakeGce
from tests.metadata_fakes.serving import (
    dropped,
    genuine_page,
    hang,
    page,
    redirected,
    unmarked,
)
from tests.support import Stopwatch

pytestmark = pytest.mark.integration

SPOT = "meta-data/spot/instance-action"
LIFECYCLE = "meta-data/autoscaling/target-lifecycle-state"
REBALANCE = "meta-data/events/recommendations/rebalance"


@contextmanager
def watched(fake: Fake) -> Iterator[tuple[Fake, Notices]]:
    """A fake, and who watches it."""
    with fake:
        notices = notices_of(fake.environment["MIGLET_CLOUD"], fake.environment)
        with closing(notices):
            yield fake, notices


@pytest.fixture(params=sorted(FAKES))
def each(request) -> Iterator[tuple[Fake, Notices]]:
    with watched(FAKES[request.param]()) as pair:
        yield pair


@pytest.fixture
def gce() -> Iterator[tuple[FakeGce, Notices]]:
    with watched(FakeGce()) as pair:
        yield pair  # type: ignore[misc]


@pytest.fixture
def aws() -> Iterator[tuple[FakeAws, Notices]]:
    with watched(FakeAws()) as pair:
        yield pair  # type: ignore[misc]


@pytest.fixture
def azure() -> Iterator[tuple[FakeAzure, Notices]]:
    with watched(FakeAzure()) as pair:
        yield pair  # type: ignore[misc]


def test_a_quiet_machine_has_no_notices(each):
    fake, notices = each
    assert notices.poll(1.0) == []
    assert notices.error == ""
    assert notices.interval <= 5.0


def test_nothing_is_asked_before_the_first_poll(each):
    fake, _ = each
    assert fake.asked == []


# Google.


def test_gce_a_change_ends_the_wait_within_a_second(gce):
    fake, notices = gce
    notices.poll(1.0)
    timer = threading.Timer(0.3, fake.change, ("instance/preempted", "TRUE"))
    timer.start()
    watch = Stopwatch()
    found = notices.poll(20.0)
    timer.join()
    assert watch.seconds() < 1.3
    assert [(each.kind, each.source) for each in found] == [
        ("preempted", "gce instance/preempted")
    ]
    assert abs(found[0].deadline - (time.time() + 30)) < 2


def test_gce_waits_in_one_long_poll(gce):
    fake, notices = gce
    notices.poll(1.0)
    began = time.monotonic()
    watch = Stopwatch()
    assert notices.poll(2.5) == []
    assert time.monotonic() - began > 0.9
    assert watch.seconds() < 2.5
    assert notices.error == "", "the end of a wait is no failure"
    assert notices.interval == 0.0
    assert len(fake.asked) == 2
    assert fake.asked[1].query["timeout_sec"] == "1"


def test_gce_asks_with_the_etag_of_the_last_answer(gce):
    fake, notices = gce
    notices.poll(2.5)
    notices.poll(2.5)
    assert fake.asked[0].query["last_etag"] == "NONE"
    assert len(fake.asked[1].query["last_etag"]) == 16


def test_gce_another_change_is_no_notice(gce):
    fake, notices = gce
    notices.poll(1.0)
    fake.change("instance/attributes/x", "y")
    fake.change("instance/maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE")
    assert notices.poll(2.5) == []
    assert 0 < notices.interval <= 1.0, "never without a pause"


def test_gce_a_maintenance_that_ends_the_machine_is_one(gce):
    fake, notices = gce
    fake.change("instance/maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")
    found = notices.poll(1.0)
    assert [each.kind for each in found] == ["maintenance_event"]
    assert abs(found[0].deadline - (time.time() + 60)) < 2


def test_gce_what_stood_before_the_first_poll_is_reported(gce):
    fake, notices = gce
    fake.change("instance/preempted", "TRUE")
    assert len(notices.poll(20.0)) == 1


def test_gce_that_does_not_wait_is_not_asked_without_pause(gce):
    fake, notices = gce
    notices.poll(0.5)
    notices.poll(0.5)
    assert notices.interval >= 1.0


# Amazon.


def test_aws_a_spot_notice_has_the_time_of_the_end(aws):
    fake, notices = aws
    fake.change(SPOT, '{"action": "terminate", "time": "2026-01-15T10:32:00Z"}')
    assert notices.poll(2.0) == [
        Notice("spot_instance_action", 1768473120.0, f"aws {SPOT}")
    ]


def test_aws_all_three_announcements_are_heard_at_once(aws):
    fake, notices = aws
    fake.change(SPOT, '{"action": "stop", "time": "2026-01-15T10:32:00Z"}')
    fake.change(LIFECYCLE, "Terminated")
    fake.change(REBALANCE, '{"noticeTime": "2026-01-15T10:30:00Z"}')
    assert [(each.kind, each.deadline is None) for each in notices.poll(2.0)] == [
        ("spot_instance_action", False),
        ("autoscaling_termination", True),
        ("rebalance_recommendation", True),
    ]


def test_aws_is_looked_at_every_five_seconds(aws):
    _, notices = aws
    notices.poll(2.0)
    assert notices.interval == 5.0


def test_aws_a_spot_notice_that_changed_is_reported_again(aws):
    fake, notices = aws
    fake.change(SPOT, '{"action": "stop", "time": "2026-01-15T10:32:00Z"}')
    assert len(notices.poll(2.0)) == 1
    fake.change(SPOT, '{"action": "terminate", "time": "2026-01-15T10:33:00Z"}')
    assert len(notices.poll(2.0)) == 1
    assert notices.poll(2.0) == []


@pytest.mark.parametrize(
    "state, number",
    [
        ("InService", 0),
        ("Standby", 0),
        ("Detached", 0),
        ("Warmed:Stopped", 0),
        ("Warmed:Terminated", 1),
        ("Terminated", 1),
    ],
)
def test_aws_only_states_that_end_the_machine_count(aws, state, number):
    fake, notices = aws
    fake.change(LIFECYCLE, state)
    assert len(notices.poll(2.0)) == number


def test_aws_a_new_machine_without_any_of_it_is_quiet(aws):
    fake, notices = aws
    fake.change(LIFECYCLE, None)
    assert notices.poll(2.0) == []
    assert notices.error == ""


def test_aws_a_token_that_expired_costs_no_notice(aws):
    fake, notices = aws
    notices.poll(2.0)
    fake.forget_tokens()
    fake.change(LIFECYCLE, "Terminated")
    assert len(notices.poll(2.0)) == 1


def test_aws_a_notice_before_a_failure_is_not_lost(aws):
    fake, notices = aws
    fake.change(SPOT, '{"action": "stop", "time": "2026-01-15T10:32:00Z"}')
    fake.fail(500, part="autoscaling")
    assert len(notices.poll(2.0)) == 1
    assert "500" in notices.error


def test_aws_a_spot_notice_without_a_time_still_is_one(aws):
    fake, notices = aws
    fake.change(SPOT, '{"action": "hibernate", "time": null}')
    assert notices.poll(2.0)[0].deadline is None


# Microsoft.


@pytest.mark.parametrize("kind", ["Preempt", "Terminate", "Reboot", "Redeploy"])
def test_azure_an_event_has_the_time_before_which_nothing_happens(azure, kind):
    fake, notices = azure
    at = int(time.time()) + 600
    fake.schedule(kind, formatdate(at, usegmt=True))
    source = "azure scheduledevents"
    assert notices.poll(2.0) == [Notice(f"scheduled_{kind.lower()}", at, source)]
    assert notices.poll(2.0) == []


def test_azure_an_event_that_has_begun_ends_the_machine_now(azure):
    fake, notices = azure
    fake.schedule("Preempt", EventStatus="Started")
    deadline = notices.poll(2.0)[0].deadline
    assert deadline is not None
    assert abs(deadline - time.time()) < 2


def test_azure_a_time_that_cannot_be_read_is_none(azure):
    fake, notices = azure
    fake.schedule("Preempt", "soon")
    assert notices.poll(2.0)[0].deadline is None


def test_azure_a_freeze_and_the_events_of_others_are_no_notices(azure):
    fake, notices = azure
    fake.schedule("Freeze")
    fake.schedule("Terminate", Resources=["runner-2"])
    fake.schedule("Terminate", Resources="runner-1")
    fake.events.append("nonsense")  # type: ignore[arg-type]
    assert notices.poll(2.0) == []
    assert notices.error == ""


def test_azure_asks_for_its_name_once(azure):
    fake, notices = azure
    notices.poll(2.0)
    notices.poll(2.0)
    assert fake.paths().count("/metadata/instance/compute/name") == 1


# What can go wrong with every one of them.

PASSING = {"503": 503, "429": 429, "hang": hang, "dropped": dropped}
LASTING = {"page": genuine_page, "redirect": redirected, "400": 400}


@pytest.mark.parametrize("mischief", PASSING.values(), ids=PASSING)
def test_a_failure_is_waited_out_for_seconds(each, mischief):
    fake, notices = each
    fake.fail(mischief)
    watch = Stopwatch()
    assert notices.poll(0.5) == []
    assert watch.seconds() < 1.5
    assert notices.error
    assert notices.interval <= 5.0


@pytest.mark.parametrize("mischief", LASTING.values(), ids=LASTING)
def test_a_server_that_says_no_is_looked_at_again_after_a_minute(each, mischief):
    fake, notices = each
    fake.fail(mischief)
    assert notices.poll(2.0) == []
    assert notices.interval == 60.0


def test_a_server_that_forbids_it_is_left_alone(each):
    fake, notices = each
    fake.fail(403)
    assert notices.poll(2.0) == []
    assert notices.interval == math.inf


@pytest.mark.parametrize("mischief", [unmarked, page])
def test_gce_without_its_flavour_is_believed_nothing(gce, mischief):
    fake, notices = gce
    fake.change("instance/preempted", "TRUE")
    fake.fail(mischief)
    assert notices.poll(2.0) == []
    assert "something else answers" in notices.error


def test_what_was_missed_is_reported_after_the_failure(gce):
    fake, notices = gce
    fake.fail(503, times=3)
    fake.change("instance/preempted", "TRUE")
    found = [notices.poll(1.0) for _ in range(4)]
    assert [len(each) for each in found] == [0, 0, 0, 1]


def test_a_lasting_failure_is_logged_once_and_so_is_its_end(each, caplog):
    fake, notices = each
    caplog.set_level(logging.INFO, logger="miglet.metadata.notices")
    fake.fail(503)
    for _ in range(5):
        notices.poll(1.0)
    fake.recover()
    for _ in range(3):
        notices.poll(1.0)
    lines = [each.getMessage() for each in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("no termination notices: 127.0.0.1:")
    assert lines[1] == "termination notices are read again"


def test_azure_an_event_of_no_kind_is_no_notice(azure):
    fake, notices = azure
    for kind in ([], {}, None, 5):
        fake.schedule(kind)
    assert notices.poll(5.0) == []


def test_aws_a_time_before_1970_is_none(aws):
    fake, notices = aws
    action = {"action": "terminate", "time": "0001-01-01T00:00:00Z"}
    fake.change(SPOT, json.dumps(action))
    assert [each.deadline for each in notices.poll(5.0)] == [None]
