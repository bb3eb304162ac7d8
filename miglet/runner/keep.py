"""What launchers run: `python -ISE keep.py MODULE WORD...`, a module of this package.

Isolated mode knows no site directory, so this file puts MIGlet's own behind the
standard library's, and does nothing else: `shim`, `inside` and `recorder` do.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path.append(os.path.dirname(os.path.dirname(here)))
    name, *words = sys.argv[1:]
    import_module(f"miglet.runner.{name}").main(*words)
