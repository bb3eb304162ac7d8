"""Keeps large modules out of memory that our libraries import and nothing here uses.

multiprocess falls back to pickle without dill, and backoff needs asyncio only for its
decorators. requests needs the modules below only to guess a text's encoding, for
answers in encodings that it offers where they are there, for host names that are not
ASCII (those it imports anew), and for HTTP/2. It saves the machine about 5 MB and every
start some 50 ms. Imported first, and by nothing but the start.
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

#: What decodes answers that are not to be had from a controller.
DECODERS = ("brotli", "brotlicffi", "compression.zstd", "zstandard")


def stand_in(name: str, **contents: object) -> types.ModuleType:
    """A module `name` with nothing but these in it."""
    module = types.ModuleType(name)
    vars(module).update(contents)
    return module


def import_without(name: str, unused: StandIns) -> None:
    """Import `name` with stand-ins for what of `unused` is not imported yet."""
    if name in sys.modules:
        return
    played = {each: unused[each] for each in unused.keys() - sys.modules.keys()}
    sys.modules.update(played)  # type: ignore[arg-type]
    try:
        importlib.import_module(name)
    finally:
        for each in played:
            del sys.modules[each]


def import_for_workers() -> None:
    """Import what the workers share; after the first fork, which needs none of it."""
    import_without("backoff", {"asyncio": stand_in("asyncio")})
    unused: dict[str, types.ModuleType | None] = {
        "chardet": None,
        "charset_normalizer": stand_in(
            "charset_normalizer", __version__=CHARSET_NORMALIZER_VERSION
        ),
        "idna": stand_in("idna"),
        "importlib.metadata": stand_in("importlib.metadata", version=None),
    }
    import_without("requests", unused | dict.fromkeys(DECODERS))


import_without("multiprocess", {"dill": None})
