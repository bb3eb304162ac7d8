"""Fuzzes one target with Hypothesis: ``with_hypothesis TARGET SECONDS``."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from random import Random

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.findings import (
    keep,
    pumped,
    require_little_memory,
    require_proportion,
)
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import LIMIT_BYTES, TARGETS, Target

#: Inputs of one seed; the time is looked at in between.
ROUND = 300

#: Pairs of inputs whose cost is compared in each round.
PAIRS = 20


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Inputs for this target, made from its seeds."""
    seeds = list(target.seeds().values())
    randoms = st.randoms(use_true_random=False)
    return randoms.map(lambda random: mutated(seeds, random)[:LIMIT_BYTES])


def run(target: Target, number: int, examples: int, shrink: bool = True) -> None:
    """Feed the target so many inputs; raises what a failing one raised.

    That is the smallest one that could be found, unless `shrink` is false. It is an
    attribute of the exception, `data`.
    """
    latest: list[bytes] = []

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, *([Phase.shrink] if shrink else ())),
    )
    @given(inputs(target))
    def feed(data: bytes) -> None:
        latest[:] = [data]
        target.run(data)

    try:
        feed()
    except BaseException as error:
        error.data = latest[0]  # type: ignore[attr-defined]
        raise


def compare_costs(target: Target, random: Random) -> None:
    """Feed the target pairs of inputs of which one is eight times as long."""
    seeds = list(target.seeds().values())
    for _ in range(PAIRS):
        small, large = pumped(random.choice(seeds), random)
        try:
            require_proportion(target, small, large)
        except AssertionError as error:
            error.data = large  # type: ignore[attr-defined]
            raise
    require_little_memory(target, large)


def main() -> int:
    """0 if nothing was found within the time, else 1 with the input stored."""
    logging.disable()
    target, seconds = TARGETS[sys.argv[1]], float(sys.argv[2])
    end, number = time.monotonic() + seconds, 0
    try:
        while time.monotonic() < end:
            run(target, number, ROUND)
            compare_costs(target, Random(number))
            number += 1
    except Exception as error:  # noqa: BLE001 - whatever is raised is the finding
        traceback.print_exc(limit=-8)
        keep(target, error.data)  # type: ignore[attr-defined]
        return 1
    print(f"{target.name}: {number * ROUND} inputs, {number * PAIRS} pairs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
