"""What the launcher runs as the shim: `python -ISE keep.py FOLDER LOCK READY`.

Isolated mode knows no site directory, so this file puts MIGlet's own behind the
standard library's, and does nothing else; `miglet.runner.shim` has the rest.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path.append(os.path.dirname(os.path.dirname(here)))
    folder, lock, ready = sys.argv[1:]
    import_module("miglet.runner.shim").main(folder, int(lock), int(ready))
