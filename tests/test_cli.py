"""The entry point of ``miglet``: a plain start, and how errors end a call."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from miglet import arguments, cli
from miglet.errors import MISCONFIGURED, Fault, MigletError, Misconfigured


def test_an_error_is_one_line_with_its_hint_and_gives_the_exit_status(
    monkeypatch, capsys
):
    def fail(*_: object) -> int:
        raise Misconfigured([Fault("org_id", "environment", "is empty", "set it")])

    monkeypatch.setattr(cli, "load_function", lambda *_: fail)
    assert cli.main(["check"]) == MISCONFIGURED
    captured = capsys.readouterr()
    assert "org_id (environment): is empty; set it" in captured.err
    assert "Traceback" not in captured.err and captured.out == ""


def test_an_error_without_a_status_of_its_own_is_internal(monkeypatch, capsys):
    def fail(*_: object) -> int:
        raise MigletError("out of luck")

    monkeypatch.setattr(cli, "load_function", lambda *_: fail)
    assert cli.main(["check"]) == 1
    assert "out of luck" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sources"),
    [
        ([], {"file": None, "assignments": []}),
        (
            ["run", "--config", "f", "--set", "a=b=c"],
            {"file": "f", "assignments": ["a=b=c"]},
        ),
        (
            ["--set=a=1", "run", "--set", "b=-1", "--config=f"],
            {"file": "f", "assignments": ["a=1", "b=-1"]},
        ),
        (["--config", "f", "--config", "g"], {"file": "g", "assignments": []}),
    ],
)
def test_a_plain_start_needs_no_argparse(words, sources):
    assert cli.parse_plain_run(words) == sources


@pytest.mark.parametrize(
    "words",
    [
        ["check"],
        ["run", "run"],
        ["--config"],
        ["--set", "--config"],
        ["--conf", "f"],
        ["-h"],
        ["run", "--json"],
    ],
)
def test_anything_else_is_left_to_argparse(words):
    assert cli.parse_plain_run(words) is None


def test_a_plain_start_is_understood_as_argparse_understands_it():
    some = ["run", "--config", "--config=f", "--set", "--set=a=1", "f", "b=2", ""]
    understood = 0
    for words in itertools.chain.from_iterable(
        itertools.product(some, repeat=length) for length in range(4)
    ):
        sources = cli.parse_plain_run(words)
        if sources is not None:
            understood += 1
            parsed = arguments.parser().parse_args(words)
            assert parsed.subcommand == "run", words
            assert arguments.sources_of(parsed) == sources, words
    assert understood > 30


def test_a_plain_start_imports_no_argparse():
    loaded = (
        "import sys, miglet.cli, miglet.agent.start; print('argparse' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True)
    assert ran.stdout == "False\n", ran.stderr
