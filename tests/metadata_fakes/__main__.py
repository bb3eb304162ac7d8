"""`python -m tests.metadata_fakes gce --port 0 --attribute miglet-pool-id=pool-1`.

Prints the environment that points MIGlet at the fake, and serves until it is killed.
"""

from __future__ import annotations

import argparse
import signal

from tests.metadata_fakes import FAKES


def main() -> None:
    """Serve one cloud."""
    parser = argparse.ArgumentParser(prog="python -m tests.metadata_fakes")
    parser.add_argument("cloud", choices=FAKES)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--attribute", action="append", default=[], metavar="NAME=TEXT")
    parsed = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    with FAKES[parsed.cloud](parsed.port) as fake:
        pairs = (each.partition("=")[::2] for each in parsed.attribute)
        fake.describe(dict(pairs))
        for name, text in fake.environment.items():
            print(f"{name}={text}", flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


main()
