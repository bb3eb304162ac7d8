"""What launchers run: `python -ISE keep.py MODULE ARGUMENT...`, a module beside it.

Isolated mode has no site directory, so this file adds MIGlet's own behind the standard
library's, and does nothing else: `shim`, `inside` and `recorder` do. Units of running
jobs carry its path and arguments, so they stay as they are.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path.append(os.path.dirname(os.path.dirname(here)))
    name, *arguments = sys.argv[1:]
    import_module(f"miglet.runner.{name}").main(*arguments)
