"""The command line of ``miglet``: what each word starts, and how errors end it."""

from __future__ import annotations

import pytest

from miglet import __version__, cli
from miglet.errors import MISCONFIGURED, Fault, MigletError, Misconfigured


@pytest.fixture
def called(monkeypatch):
    """Catches what a subcommand would start: (module, function, arguments)."""
    calls = []

    def named(module: str, function: str):
        def run(*arguments: object) -> int:
            calls.append((module, function, arguments))
            return 0

        return run

    monkeypatch.setattr(cli, "named", named)
    return calls


PLAIN = {"file": None, "assignments": []}


@pytest.mark.parametrize(
    "words, module, function, arguments",
    [
        ([], "miglet.agent.start", "start", (PLAIN,)),
        (["run"], "miglet.agent.start", "start", (PLAIN,)),
        (["check"], "miglet.bootstrap.check_command", "check", (PLAIN, False)),
        (
            ["config", "--json"],
            "miglet.bootstrap.check_command",
            "config",
            (PLAIN, True),
        ),
        (
            ["install-runner", "r.tar.gz", "--sha256", "0f"],
            "miglet.bootstrap.install_command",
            "install",
            (PLAIN, "r.tar.gz", "0f"),
        ),
    ],
)
def test_each_word_starts_its_function(called, words, module, function, arguments):
    assert cli.main(words) == 0
    assert called == [(module, function, arguments)]


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "f.yaml", "--set", "a=1", "--set", "b=2", "check"],
        ["check", "--config", "f.yaml", "--set", "a=1", "--set", "b=2"],
    ],
)
def test_sources_may_be_named_before_or_after_the_word(called, words):
    cli.main(words)
    ((_, _, (sources, _)),) = called
    assert sources == {"file": "f.yaml", "assignments": ["a=1", "b=2"]}


@pytest.mark.parametrize("word", [*cli.SUBCOMMANDS])
def test_every_word_names_functions_that_exist(word, monkeypatch):
    found = []
    real = cli.named
    monkeypatch.setattr(
        cli, "named", lambda *where: found.append(real(*where)) or (lambda *_: 0)
    )
    cli.main([word, "archive"] if word == "install-runner" else [word])
    assert all(map(callable, found)) and len(found) == 1


def test_an_error_is_one_line_with_its_hint_and_gives_the_exit_status(
    monkeypatch, capsys
):
    def fail(*_: object) -> int:
        raise Misconfigured([Fault("org_id", "environment", "is empty", "set it")])

    monkeypatch.setattr(cli, "named", lambda *_: fail)
    assert cli.main(["check"]) == MISCONFIGURED
    captured = capsys.readouterr()
    assert "org_id (environment): is empty; set it" in captured.err
    assert "Traceback" not in captured.err and captured.out == ""


def test_an_error_without_a_status_of_its_own_is_internal(monkeypatch, capsys):
    def fail(*_: object) -> int:
        raise MigletError("out of luck")

    monkeypatch.setattr(cli, "named", lambda *_: fail)
    assert cli.main(["check"]) == 1
    assert "out of luck" in capsys.readouterr().err


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert __version__ in capsys.readouterr().out
