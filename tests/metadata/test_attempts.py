"""How often, and for how long, a metadata server is asked."""

from __future__ import annotations

from miglet.metadata.attempts import Limits


def test_pauses_are_random_and_within_their_limits():
    limits = Limits()
    pauses = [limits.pause(failures) for failures in (1, 2, 3, 4) for _ in range(50)]
    assert min(pauses) >= 0.2
    assert max(pauses) <= 2.0
    assert len(set(pauses)) > 100


def test_the_real_limits_are_what_the_documents_say():
    limits = Limits()
    assert (limits.tries, limits.attempt_seconds) == (5, 3.0)
    assert limits.overall_seconds == 20.0
