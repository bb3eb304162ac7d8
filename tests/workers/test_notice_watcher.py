"""The notice-watcher: what it reports of the cloud's announcements and of the token."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from miglet.messages.facts import ControllerTokenTaken, TerminationNoticed
from miglet.workers import notice_watcher
from miglet.workers.notice_watcher import LOOK_SECONDS, NoCloud, NoticeWatcher
from tests.sample_settings import sample_settings
from tests.workers.fakes import IDENTITY, start


class FakeNotices:
    """The cloud's announcements: one list for each look."""

    interval = 3.5

    def __init__(self, *looks):
        self.looks = list(looks)
        self.asked = []
        self.closed = False

    def poll(self, seconds):
        self.asked.append(seconds)
        return self.looks.pop(0) if self.looks else []

    def close(self):
        self.closed = True


class FakeToken:
    """A token that is taken at the second look."""

    def __init__(self):
        self.looks = 0
        self.closed = False

    def look(self):
        self.looks += 1
        return self.looks == 2

    def close(self):
        self.closed = True


def watcher(monkeypatch, notices, token=None, cloud="gce"):
    monkeypatch.setattr(notice_watcher, "cloud_name", lambda environ: cloud)
    monkeypatch.setattr(notice_watcher, "notices_of", lambda *_: notices)
    monkeypatch.setattr(notice_watcher, "awaited_token", lambda *_: token)
    worker = NoticeWatcher(sample_settings(), IDENTITY)
    return worker, start(worker)


def test_an_announcement_is_reported_with_its_deadline_and_source(monkeypatch):
    notice = SimpleNamespace(kind="preempted", deadline=1768473000.0, source="gce x")
    notices = FakeNotices([notice])
    worker, queue = watcher(monkeypatch, notices)
    worker.work()
    assert queue.take() == [TerminationNoticed("preempted", 1768473000.0, "gce x")]
    worker.work()
    assert queue.take() == []
    assert notices.asked == [LOOK_SECONDS, LOOK_SECONDS]
    assert worker.period == notices.interval


def test_a_token_that_came_late_is_reported_when_it_is_taken(monkeypatch):
    worker, queue = watcher(monkeypatch, FakeNotices(), FakeToken())
    worker.work()
    assert queue.take() == []
    worker.work()
    assert queue.take() == [ControllerTokenTaken()]


def test_everything_is_let_go_at_the_end(monkeypatch):
    notices, token = FakeNotices(), FakeToken()
    worker, _ = watcher(monkeypatch, notices, token)
    worker.close()
    assert notices.closed
    assert token.closed


def test_there_is_nothing_to_watch_outside_of_a_cloud(monkeypatch):
    with pytest.raises(NoCloud):
        watcher(monkeypatch, FakeNotices(), cloud=None)
