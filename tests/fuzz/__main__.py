"""``make fuzz``: every target for a while, each in a process of its own.

With Atheris (``pip install 'miglet[fuzz]'``) half of the time goes into a search that
is led by what the product's code does with an input. In the other half, or all of it
where there is no Atheris, Hypothesis makes as many inputs as there is time for, and the
cost of inputs is compared with their size. An input that fails is stored in the corpus
of its target, from where ``make test`` replays it.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.fuzz.targets import TARGETS

#: What the engines exit with after a finding.
FOUND = 1

#: Seconds, beyond its own, after which an engine is killed: it hangs in one input.
GRACE_SECONDS = 60.0


def main(words: Sequence[str] | None = None) -> int:
    """Fuzz; 0 if nothing was found, 1 otherwise."""
    arguments = parser().parse_args(words)
    engines = ["hypothesis"]
    if importlib.util.find_spec("atheris") and not arguments.hypothesis:
        engines.append("atheris")
    seconds = arguments.seconds / len(engines)
    failed = []
    for name, engine in itertools.product(arguments.targets or TARGETS, engines):
        print(f"== {name} ({engine}, {seconds:g} s)", flush=True)
        if not passes(engine, name, seconds):
            failed.append(name)
    if failed:
        print(f"FOUND something in: {', '.join(failed)}")
        return FOUND
    print("nothing found")
    return 0


def passes(engine: str, name: str, seconds: float) -> bool:
    """Whether the engine has found nothing in that time."""
    before = TARGETS[name].seeds()
    program = [sys.executable, "-m", f"tests.fuzz.with_{engine}", name, str(seconds)]
    began = time.monotonic()
    try:
        status = subprocess.run(program, timeout=seconds + GRACE_SECONDS).returncode
    except subprocess.TimeoutExpired:
        print(f"{name}: hangs", flush=True)
        return False
    for found in TARGETS[name].seeds().keys() - before.keys():
        command = f".venv/bin/python -m pytest -q tests/fuzz -k 'replay and {found}'"
        print(f"{name}: stored as {found}; repeat with\n    {command}", flush=True)
    print(f"{name}: {time.monotonic() - began:.0f} s, exit status {status}", flush=True)
    return status == 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser("python -m tests.fuzz")
    found.add_argument("targets", nargs="*", metavar="TARGET", help="default: all")
    found.add_argument("--seconds", type=float, default=60.0, help="for each; 60")
    found.add_argument("--hypothesis", action="store_true", help="without Atheris")
    return found


if __name__ == "__main__":
    sys.exit(main())
