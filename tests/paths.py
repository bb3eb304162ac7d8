"""Where things are in this checkout; a test module does not depend on its own place."""

from __future__ import annotations

import os
import sys
from pathlib import Path

#: The top of the checkout.
ROOT = Path(__file__).resolve().parents[1]

TESTS = ROOT / "tests"

#: This Python without its virtual environment: it has the standard library only, every
#: user may run it, and its path may stand in a `#!` line, which the checkout's may not.
PYTHON = os.path.realpath(sys.executable)

#: Boots systemd over a throw-away copy of this machine, and runs a command in it.
BOX = TESTS / "systemd" / "box"
