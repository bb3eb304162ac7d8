"""What an interpreter keeps of things that are gone is given back."""

from __future__ import annotations

import sys
import time

from miglet.supervisor.tidying import INTERVAL_SECONDS, Tidying


def test_what_is_kept_of_freed_tuples_is_given_back_when_it_is_time():
    now = time.monotonic()
    tidying = Tidying()
    many = [tuple(range(number, number + 7)) for number in range(1000, 3000)]
    del many
    kept = sys.getallocatedblocks()
    tidying.look(now)
    assert sys.getallocatedblocks() > kept - 500
    tidying.look(time.monotonic() + INTERVAL_SECONDS)
    assert sys.getallocatedblocks() < kept - 1000
