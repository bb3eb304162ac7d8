"""What the agent's memory is spared, and that nothing is missing for it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

PROLOGUE = "import json, sys, miglet.slimming as slimming; "
REPORT = "; print(json.dumps({}))"


def told(script: str, value: str) -> Any:
    """What `value` is in a fresh interpreter after `script`."""
    program = PROLOGUE + script + REPORT.format(value)
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("spared", ["asyncio", "brotli", "charset_normalizer", "dill"])
def test_what_nobody_needs_is_not_in_memory(spared):
    loaded = told("slimming.import_for_workers()", "sorted(sys.modules)")
    assert {"backoff", "requests", "urllib3"} <= set(loaded)
    assert spared not in loaded


@pytest.mark.parametrize("name", ["idna", "importlib.metadata"])
def test_what_is_needed_after_all_is_the_real_thing(name):
    script = f"slimming.import_for_workers(); import {name}"
    assert told(script, f"sys.modules[{name!r}].__file__").endswith(".py")


def test_a_host_name_that_is_not_ascii_is_still_understood():
    script = "slimming.import_for_workers(); import requests"
    url = "requests.Request('GET', 'http://b\\u00fccher.example/').prepare().url"
    assert told(script, url) == "http://xn--bcher-kva.example/"


def test_only_an_encoding_that_can_be_read_is_offered():
    script = "slimming.import_for_workers(); import requests"
    offered = told(script, "requests.utils.default_headers()['Accept-Encoding']")
    assert set(offered.split(", ")) == {"gzip", "deflate"}


def test_what_is_imported_already_is_left_alone():
    script = "import idna; slimming.import_for_workers()"
    assert told(script, "sys.modules['idna'] is idna")
