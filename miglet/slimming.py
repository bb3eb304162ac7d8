"""Keeps large modules out of memory that our libraries import and nothing here uses.

multiprocess falls back to pickle without dill; backoff needs asyncio only for its
decorators, and requests needs chardet or charset_normalizer only to guess a text's
encoding: we send JSON, use generators and read bytes. It saves the machine about
4 MB and every start some 50 ms. Imported first, and by nothing but the start.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Mapping

#: Stand-ins for what a library imports in vain; None: not installed.
StandIns = Mapping[str, types.ModuleType | None]

#: The one version that every requests from 2.28 on takes for compatible.
CHARSET_NORMALIZER_VERSION = "2.1.0"


def import_without(name: str, unused: StandIns) -> None:
    """Import `name` as if the modules `unused` were their stand-ins."""
    if name in sys.modules or not sys.modules.keys().isdisjoint(unused):
        return
    sys.modules.update(unused)  # type: ignore[arg-type]
    try:
        importlib.import_module(name)
    finally:
        for each in unused:
            del sys.modules[each]


def import_for_workers() -> None:
    """Import what the workers share; after the first fork, which needs none of it."""
    import_without("backoff", {"asyncio": types.ModuleType("asyncio")})
    detector = types.ModuleType("charset_normalizer")
    detector.__version__ = CHARSET_NORMALIZER_VERSION  # type: ignore[attr-defined]
    import_without("requests", {"chardet": None, "charset_normalizer": detector})


import_without("multiprocess", {"dill": None})
