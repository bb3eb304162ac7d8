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
    from tests.fuzz.findings import PREFIX
    from tests.fuzz.mutation import mutated
    from tests.fuzz.targets import LIMIT_BYTES, TARGETS

#: Seconds for one input, and MB of memory for all, that end the search as a finding.
SLOW_SECONDS, MEMORY_MB = 5, 2048


def main() -> None:
    """Does not return: libFuzzer ends the process when the time is over."""
    logging.disable()
    target = TARGETS[sys.argv[1]]
    seeds = list(target.seeds().values())

    def change(data: bytes, most: int, number: int) -> bytes:
        if number % 2:
            return atheris.Mutate(data, most)
        return mutated([data, *seeds], Random(number))[:most]

    with tempfile.TemporaryDirectory() as fresh:
        options = [
            f"-max_total_time={float(sys.argv[2]):.0f}",
            f"-max_len={LIMIT_BYTES}",
            f"-timeout={SLOW_SECONDS}",
            f"-rss_limit_mb={MEMORY_MB}",
            # libFuzzer stores what fails, takes too long or too much memory.
            f"-artifact_prefix={target.corpus}/{PREFIX}",
            "-print_final_stats=1",
            "-verbosity=0",
        ]
        # New inputs go into the first folder, the corpus is only read.
        arguments = [sys.argv[0], *options, fresh, str(target.corpus)]
        atheris.Setup(arguments, target.run, custom_mutator=change)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
