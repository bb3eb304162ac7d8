"""What the cloud announces about this machine's end, each thing once.

For a worker's loop: `poll`, then again after `interval` seconds. The one rule: a
metadata server that fails is logged once, looked at again, and never raises here.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping
from typing import NamedTuple

from miglet.http.retry import Backoff
from miglet.metadata.attempts import (
    Limits,
    MetadataForbidden,
    MetadataRefused,
    MetadataUnavailable,
)
from miglet.metadata.cloud import Announcement, Cloud
from miglet.metadata.clouds import open_cloud

#: One try a poll, which may be as long as the poll.
WATCHING = Limits(attempt_seconds=math.inf, tries=1)

#: Seconds until the next look after a failure: it grows from the first to the second.
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.5, 5.0

#: Seconds until the next look at a server that says no.
REFUSED_SECONDS = 60.0

log = logging.getLogger(__name__)


class Notice(NamedTuple):
    """The cloud ends this machine, or says that it may."""

    #: ``preempted``, ``maintenance_event``, ``spot_instance_action``,
    #: ``autoscaling_termination``, ``rebalance_recommendation`` or ``scheduled_*``.
    kind: str
    #: Wall time at which the machine ends; None: the cloud does not say.
    deadline: float | None
    #: The cloud and the place in its metadata.
    source: str


def usable(deadline: float | None) -> float | None:
    """A deadline before 1970, the zero value of many languages, is none."""
    return None if deadline is None or deadline < 0 else deadline


class Notices:
    """The announcements of one cloud; only the main thread of a process may poll."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._seen: set[str] = set()
        self._backoff = Backoff(FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)
        #: Seconds until the next poll is due; infinite: there is no point in one.
        self.interval = 0.0
        #: Why the last poll failed; empty: it did not.
        self.error = ""

    def poll(self, timeout_seconds: float) -> list[Notice]:
        """What is new; blocks for at most `timeout_seconds`."""
        news = []
        try:
            for each in self._cloud.announcements(timeout_seconds):
                if self._is_new(each):
                    news.append(Notice(each.kind, usable(each.deadline), each.source))
        except MetadataUnavailable as error:
            self._failed(error)
        else:
            self._succeeded()
        return news

    def close(self) -> None:
        """Drop the connection; the next poll opens a new one."""
        self._cloud.close()

    def _is_new(self, each: Announcement) -> bool:
        """Clouds give an announcement no id: its content is one."""
        text = f"{each.kind}\n{each.content}"
        digest = hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()
        known = digest in self._seen
        self._seen.add(digest)
        return not known

    def _failed(self, error: MetadataUnavailable) -> None:
        pause = max(self._cloud.period, self._backoff.delay(error))
        if isinstance(error, MetadataRefused):
            pause = REFUSED_SECONDS
        if isinstance(error, MetadataForbidden):
            pause = math.inf
        if not self.error:
            log.warning("no termination notices: %s; again in %.1f s", error, pause)
        self.interval, self.error = pause, str(error)

    def _succeeded(self) -> None:
        if self.error:
            log.info("termination notices are read again")
        self._backoff.reset()
        self.interval, self.error = self._cloud.period, ""


def notices_of(cloud: str, environ: Mapping[str, str]) -> Notices:
    """The notices of the cloud called `cloud`; nothing is opened before the first poll.

    The name comes from `clouds.cloud_name`, asked by a process that may read all
    that it needs.
    """
    return Notices(open_cloud(cloud, environ, WATCHING))
