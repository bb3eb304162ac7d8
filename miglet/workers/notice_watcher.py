"""Watches what the cloud announces about this machine's end; started only in a cloud.

It has a process of its own because a long poll for announcements and a long poll for
commands cannot be waited for by one. It holds nothing that could be lost.
"""

from __future__ import annotations

import os
import signal

from miglet.config.settings import Settings
from miglet.errors import MigletError
from miglet.messages.events import Identity
from miglet.messages.facts import ControllerTokenTaken, TerminationNoticed
from miglet.metadata.clouds import cloud_name
from miglet.metadata.credential import awaited_token
from miglet.metadata.notices import notices_of
from miglet.supervisor.privileges import NOTICE_USER
from miglet.workers.base import LIVENESS_MARGIN, Worker

#: Where a token that comes by another way than metadata usually is.
USUAL_TOKEN_PATH = "/etc/miglet/token"

#: Seconds that one look may take: GCE answers at once when something changes.
LOOK_SECONDS = 60.0


class NoCloud(MigletError):
    """The watcher was started on a machine that is in no cloud."""


class NoticeWatcher(Worker):
    """Asks the metadata server, again and again."""

    name = "notice-watcher"
    user = NOTICE_USER
    facts = frozenset({TerminationNoticed, ControllerTokenTaken})

    def __init__(self, settings: Settings, identity: Identity) -> None:
        super().__init__(settings, identity)
        # Before the privileges are dropped: some of the files are root's alone.
        self._cloud = cloud_name(os.environ)

    def take_over_signals(self) -> None:
        """SIGTERM ends it in the middle of a long poll: there is nothing to finish."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def open(self) -> None:
        """Nothing is asked yet."""
        if self._cloud is None:
            raise NoCloud("there is no cloud to watch")
        self._notices = notices_of(self._cloud, os.environ)
        self._token = awaited_token(
            self.settings, self._cloud, os.environ, USUAL_TOKEN_PATH
        )

    def close(self) -> None:
        """Drop the connection."""
        self._notices.close()
        if self._token:
            self._token.close()

    def work(self) -> None:
        """One look at the token, and one at the notices, which may wait for news."""
        self.ping(LOOK_SECONDS + LIVENESS_MARGIN)
        if self._token and self._token.look():
            self.report(ControllerTokenTaken())
        for notice in self._notices.poll(LOOK_SECONDS):
            self.report(TerminationNoticed(notice.kind, notice.deadline, notice.source))
        self.period = self._notices.interval
