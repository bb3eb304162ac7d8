"""``miglet check`` and ``miglet config``: what a start would make of this machine."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from miglet.bootstrap import framework, preflight
from miglet.config.load import explain, explanation
from miglet.errors import DONE, MISCONFIGURED, UNAVAILABLE
from miglet.metadata.sources import sources_of


def config(sources: dict[str, Any], as_json: bool) -> int:
    """Print the effective configuration; raises Misconfigured with every mistake."""
    loaded = sources_of(os.environ, sources).loaded()
    write(json.dumps(explanation(loaded), indent=2) if as_json else explain(loaded))
    return DONE


def check(sources: dict[str, Any], as_json: bool) -> int:
    """Print the checks' table; 0, 69 (not now) or 78 (not with this configuration)."""
    found = sources_of(os.environ, sources)
    report = preflight.report(found, found.loaded().settings)
    write(json.dumps(report, indent=2) if as_json else framework.table(report))
    failed = {each["category"] for each in report if each["status"] == "fail"}
    if "misconfig" in failed:
        return MISCONFIGURED
    return UNAVAILABLE if failed else DONE


def write(text: str) -> None:
    """To stdout, with one newline at the end."""
    sys.stdout.write(text.rstrip("\n") + "\n")
