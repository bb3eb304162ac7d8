"""Where things are in this checkout; a test module does not depend on its own place."""

from __future__ import annotations

from pathlib import Path

#: The top of the checkout.
ROOT = Path(__file__).resolve().parents[1]

TESTS = ROOT / "tests"

#: Boots systemd over a throw-away copy of this machine, and runs a command in it.
BOX = TESTS / "systemd" / "box"
