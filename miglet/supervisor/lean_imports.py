"""Keeps large modules that our libraries import, and MIGlet never uses, out of memory.

It saves the machine about 6 MB, and every start some 50 ms. Imported first, and by
nothing but the start.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

#: Substitutes for what a library imports and never uses; None: not installed.
StandIns = Mapping[str, types.ModuleType | None]

#: The one version that every requests from 2.28 on takes for compatible.
CHARSET_NORMALIZER_VERSION = "2.1.0"

#: What requests imports for cookies, and for proxies that the environment names.
COOKIES_AND_PROXIES = ("http.cookiejar", "http.cookies", "urllib.request")

#: What decodes answers that are not to be had from a controller.
DECODERS = ("brotli", "brotlicffi", "compression.zstd", "zstandard")


def stand_in(name: str, **contents: object) -> types.ModuleType:
    """A module `name` with nothing but these in it."""
    module = types.ModuleType(name)
    vars(module).update(contents)
    return module


def real_module(name: str) -> types.ModuleType:
    """The module itself, imported now if there is a stand-in for it."""
    if sys.modules[name].__spec__ is None:
        del sys.modules[name]
    return importlib.import_module(name)


def lazy_module(name: str, **contents: object) -> types.ModuleType:
    """A stand-in that imports the real module when it is asked for anything else."""
    module = stand_in(name, **contents)

    def load_attribute(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return getattr(real_module(name), attribute)

    vars(module)["__getattr__"] = load_attribute  # PEP 562
    return module


class Empty:
    """A container of cookies, as far as requests makes one and never fills it."""

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Any]:
        return iter(())


def empty_classes(name: str) -> types.ModuleType:
    """A module in which every public name is a class of empty containers."""
    module = stand_in(name)

    def make_class(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return type(attribute, (Empty,), {})

    vars(module)["__getattr__"] = make_class  # PEP 562
    return module


def is_traceback(thing: object) -> bool:
    """As `inspect.istraceback` says."""
    return isinstance(thing, types.TracebackType)


def signature(thing: object) -> Any:
    """As `inspect.signature`, but a builtin has none: ValueError, as for many builtins.

    attrs asks for those of converters; to parse one would cost each start 20 ms.
    """
    if isinstance(thing, types.BuiltinFunctionType):
        raise ValueError(f"no signature found for builtin {thing!r}")
    return real_module("inspect").signature(thing)


def import_without(name: str, unused: StandIns) -> None:
    """Import `name` with stand-ins for what of `unused` is not imported yet."""
    if name in sys.modules:
        return
    installed = {each: unused[each] for each in unused.keys() - sys.modules.keys()}
    sys.modules.update(installed)  # type: ignore[arg-type]
    try:
        importlib.import_module(name)
    finally:
        for each, module in installed.items():
            # One that was wanted after all is the real module by now.
            if sys.modules[each] is module:
                del sys.modules[each]


def import_for_workers() -> None:
    """Import what the workers share; after the first fork, which needs none of it.

    backoff needs asyncio only for its decorators. requests needs these only to guess a
    text's encoding, for host names that are not ASCII (it imports idna anew then), for
    HTTP/2, for answers in encodings that it offers where the decoder is there, for
    cookies and the environment's proxies, which MIGlet does not use, and for a bundle
    of authorities, in the place of which `miglet.http.tls` has its own: 1.2 MB.
    shutil needs bz2 and lzma for archives, which tarfile unpacks: 0.2 MB.
    """
    import_without("shutil", {"bz2": None, "lzma": None})
    import_without("backoff", {"asyncio": stand_in("asyncio")})
    unused: dict[str, types.ModuleType | None] = {
        "certifi": stand_in("certifi", where=str),
        "chardet": None,
        "charset_normalizer": stand_in(
            "charset_normalizer", __version__=CHARSET_NORMALIZER_VERSION
        ),
        "idna": stand_in("idna"),
        "importlib.metadata": stand_in("importlib.metadata", version=None),
        **{name: empty_classes(name) for name in COOKIES_AND_PROXIES},
    }
    import_without("requests", unused | dict.fromkeys(DECODERS))


# Wanted by dataclasses, for classes without a docstring, by attrs, which jsonschema
# imports, and by the JSON formatter.
sys.modules.setdefault(
    "inspect",
    lazy_module("inspect", istraceback=is_traceback, signature=signature),
)
# Wanted by uuid, to know how to find a network card: only for ids that name it; and by
# attrs, to know what a class can do.
sys.modules.setdefault(
    "platform",
    lazy_module(
        "platform",
        system=lambda: "Linux",
        python_implementation=lambda: "CPython",
    ),
)
#: What a start imports without using it, with who imports it and for what. A module is
#: loaded when it is used.
LAZY_MODULES = (
    "attr.validators",  # attrs: checks of what a class is made of
    "email.header",  # email: headers that are not ASCII
    "locale",  # calendar: the names of days; subprocess: the encoding of texts
    "mimetypes",  # urllib3: files that are sent
    "tempfile",  # requests: as zipfile; miglet.journal.failover: a damaged journal
    "textwrap",  # traceback: the source code that it shows
    "tokenize",  # linecache: the encoding of source code
    "zipfile",  # requests: certificates in an archive
)
for lazy in LAZY_MODULES:
    sys.modules.setdefault(lazy, lazy_module(lazy))

# Only what queues carry is pickled: ours carry JSON, so that no process unpickles what
# a less privileged one has written.
import_without(
    "multiprocess",
    {"dill": None, "pickle": stand_in("pickle", Pickler=object, loads=None)},
)
