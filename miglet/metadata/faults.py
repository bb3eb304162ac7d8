"""What can be wrong with a metadata server: not now, no, and never.

The one rule: each says in its message who was asked for what, and what came.
"""

from __future__ import annotations

from miglet.errors import UNAVAILABLE, MigletError


class MetadataUnavailable(MigletError):
    """The metadata server gave no usable answer; it may later."""

    transient = True
    category = "infrastructure"
    exit_status = UNAVAILABLE
    hint = "is the metadata server enabled and reachable from this machine?"

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        #: Seconds that the server asked for, 1..300; None: it did not ask.
        self.retry_after = retry_after


class MetadataRefused(MetadataUnavailable):
    """The server answered, and will answer the same again."""

    transient = False


class MetadataForbidden(MetadataRefused):
    """403: this machine may not read metadata."""

    hint = "enable the instance metadata service for this machine"
