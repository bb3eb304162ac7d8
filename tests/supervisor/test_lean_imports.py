"""What the agent's memory is spared, and that nothing is missing for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests import fresh_interpreter

pytestmark = pytest.mark.integration

PROLOGUE = "import miglet.supervisor.lean_imports as lean_imports; "
SPARED = [
    *(
        "argparse",
        "ast",
        "asyncio",
        "brotli",
        "bz2",
        "charset_normalizer",
        "difflib",
        "dill",
    ),
    *("jsonschema", "lzma", "miglet.config.schema", "pickle", "prometheus_client"),
    "yaml",
]


def evaluate(script: str, value: str) -> Any:
    """What `value` is after the import and `script`."""
    return fresh_interpreter.evaluate(PROLOGUE + script, value)


def test_what_nobody_needs_is_not_in_memory():
    script = "lean_imports.import_for_workers(); import miglet.agent.daemon"
    loaded = set(evaluate(script, "sorted(sys.modules)"))
    assert {"backoff", "requests", "urllib3"} <= loaded
    assert loaded.isdisjoint(SPARED), loaded.intersection(SPARED)


@pytest.mark.parametrize("name", ["bz2", "idna", "importlib.metadata", "pickle"])
def test_what_is_needed_after_all_is_the_real_thing(name):
    script = f"lean_imports.import_for_workers(); import {name}"
    assert evaluate(script, f"sys.modules[{name!r}].__file__").endswith(".py")


def test_what_is_wanted_late_is_fetched_and_then_stays():
    script = "import inspect; code = inspect.isfunction(lean_imports.lazy_module)"
    assert evaluate(script, "[code, hasattr(sys.modules['inspect'], '__file__')]") == [
        True,
        True,
    ]


def test_a_start_fetches_nothing_that_is_wanted_late():
    script = "import miglet.cli, miglet.agent.start"
    script += "; lean_imports.import_for_workers(); import miglet.agent.daemon"
    real = "hasattr(sys.modules[name], '__file__')"
    loaded = f"[name for name in lean_imports.LAZY_MODULES if {real}]"
    assert evaluate(script, loaded) == []


def test_source_code_and_headers_are_still_read():
    script = "import linecache, email, miglet.agent.daemon"
    line = "linecache.getline(lean_imports.__file__, 1)"
    assert evaluate(script, line).startswith('"""Keeps large modules')
    header = "str(email.message_from_bytes(b'Server: \\xc3\\xa4\\n\\n')['server'])"
    assert evaluate(script, header) != ""


def test_a_class_without_a_docstring_is_described_as_ever():
    script = "import dataclasses; made = dataclasses.make_dataclass('A', ['b'])"
    assert evaluate(script, "made.__doc__").startswith("A(b:")


def test_what_attrs_asks_of_a_class_costs_no_module():
    script = "import inspect, platform, attr; called = inspect.signature"
    script += "; said = [platform.python_implementation()]"
    script += "\ntry: called(len)\nexcept ValueError: said.append('no signature')"
    real = "hasattr(sys.modules[name], '__file__')"
    loaded = f"[name for name in ('inspect', 'platform') if {real}]"
    assert evaluate(script, f"[said, {loaded}]") == [["CPython", "no signature"], []]


def test_a_signature_that_is_written_in_python_is_told():
    script = "import inspect; told = str(inspect.signature(lambda a, b=1: a))"
    script += "; told += str(inspect.signature(lambda c: c))"
    real = "hasattr(sys.modules['inspect'], '__file__')"
    assert evaluate(script, f"[told, {real}]") == ["(a, b=1)(c)", True]


def test_a_host_name_that_is_not_ascii_is_still_understood():
    script = "lean_imports.import_for_workers(); import requests"
    script += "; from miglet.http.transport import prepared"
    url = "prepared(requests.Request('GET', 'http://b\\u00fccher.example/')).url"
    assert evaluate(script, url) == "http://xn--bcher-kva.example/"


def test_only_an_encoding_that_can_be_read_is_offered():
    script = "lean_imports.import_for_workers(); import requests"
    offered = evaluate(script, "requests.utils.default_headers()['Accept-Encoding']")
    assert set(offered.split(", ")) == {"gzip", "deflate"}


def test_what_is_imported_already_is_left_alone():
    script = "import idna; lean_imports.import_for_workers()"
    assert evaluate(script, "sys.modules['idna'] is idna")
