"""``miglet check`` and ``miglet config``: what is printed, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from miglet.bootstrap import check_command, framework
from miglet.errors import DONE, MISCONFIGURED, UNAVAILABLE, Misconfigured

COMPLETE = (
    "pool_id=p",
    "vm_id=v",
    "org_id=o",
    "controller.endpoint=http://127.0.0.1:1",
)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch) -> dict[str, Any]:
    """The command line's arguments on a machine that is in no cloud."""
    monkeypatch.setenv("MIGLET_CLOUD", "none")
    (tmp_path / "empty.yaml").write_text("")
    return {"file": str(tmp_path / "empty.yaml"), "assignments": COMPLETE}


def row(status: str, category: str = "") -> dict[str, Any]:
    """A line of the checks' report."""
    texts = {"detail": "as it is", "hint": "", "milliseconds": 0.0}
    return {"id": "free_disk", "status": status, "category": category, **texts}


@pytest.mark.parametrize(
    "rows, status",
    [
        ([row("ok"), row("warn")], DONE),
        ([row("ok"), row("fail", "infrastructure")], UNAVAILABLE),
        ([row("fail", "infrastructure"), row("fail", "misconfig")], MISCONFIGURED),
    ],
)
def test_the_exit_status_says_whether_another_start_may_help(
    sources, monkeypatch, capsys, rows, status
):
    monkeypatch.setattr(framework, "report", lambda settings: rows)
    assert check_command.check(sources, as_json=True) == status
    assert json.loads(capsys.readouterr().out) == rows


def test_the_checks_are_a_table_for_people(sources, monkeypatch, capsys):
    monkeypatch.setattr(framework, "report", lambda settings: [row("warn")])
    check_command.check(sources, as_json=False)
    assert "free_disk" in capsys.readouterr().out


def test_each_effective_setting_is_printed_with_its_source(sources, capsys):
    assert check_command.config(sources, as_json=True) == DONE
    rows = {each["key"]: each for each in json.loads(capsys.readouterr().out)}
    assert rows["pool_id"]["value"] == "p"
    assert "command line" in rows["pool_id"]["source"]
    assert check_command.config(sources, as_json=False) == DONE
    printed = capsys.readouterr().out
    assert "pool_id" in printed and printed.endswith("\n")


def test_every_mistake_is_raised_and_nothing_is_printed(sources, capsys):
    sources["assignments"] = ("pool_id=p", "controller.timeout=soon")
    with pytest.raises(Misconfigured) as caught:
        check_command.config(sources, as_json=False)
    assert {"org_id", "controller.timeout"} <= {
        each.key for each in caught.value.faults
    }
    assert capsys.readouterr().out == ""
