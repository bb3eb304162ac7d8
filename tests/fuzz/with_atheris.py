"""Fuzzes one target with Atheris for some seconds: ``with_atheris TARGET SECONDS``.

libFuzzer, which is what Atheris drives, keeps what reaches new code and goes on from
there. Half of its changes are its own, the other half those of `mutation`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import tempfile
from random import Random

import atheris

# Each module that is instrumented would be a line.
with (
    contextlib.redirect_stderr(io.StringIO()),
    atheris.instrument_imports(include=["miglet"]),
):
    from tests.fuzz.findings import keep
    from tests.fuzz.mutation import mutated
    from tests.fuzz.targets import LIMIT_BYTES, TARGETS

#: Seconds for one input, and MB of memory for all, that end the search as a finding.
SLOW_SECONDS, MEMORY_MB = 5, 2048


def main() -> None:
    """Does not return: libFuzzer ends the process when the time is over."""
    logging.disable()
    target = TARGETS[sys.argv[1]]
    seeds = list(target.seeds().values())

    def feed(data: bytes) -> None:
        try:
            target.run(data)
        except BaseException:
            print(keep(target, data), flush=True)
            raise

    def change(data: bytes, most: int, number: int) -> bytes:
        if number % 2:
            return atheris.Mutate(data, most)
        return mutated([data, *seeds], Random(number))[:most]

    with tempfile.TemporaryDirectory() as found:
        options = [
            f"-max_total_time={float(sys.argv[2]):.0f}",
            f"-max_len={LIMIT_BYTES}",
            f"-timeout={SLOW_SECONDS}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-artifact_prefix={found}/",
            "-print_final_stats=1",
            "-verbosity=0",
        ]
        # New inputs go into the first folder, the corpus is only read.
        arguments = [sys.argv[0], *options, found, str(target.corpus)]
        atheris.Setup(arguments, feed, custom_mutator=change)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
