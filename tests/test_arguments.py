"""All calls of ``miglet`` but a plain start: what each word starts."""

from __future__ import annotations

import pytest

from miglet import __version__, arguments


@pytest.fixture
def called(monkeypatch):
    """Catches what a subcommand would start: (module, function, arguments)."""
    calls = []

    def load_function(module: str, function: str):
        def run(*arguments: object) -> int:
            calls.append((module, function, arguments))
            return 0

        return run

    monkeypatch.setattr(arguments, "load_function", load_function)
    return calls


PLAIN = {"file": None, "assignments": []}


@pytest.mark.parametrize(
    "words, module, function, taken",
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
def test_each_word_starts_its_function(called, words, module, function, taken):
    assert arguments.run_subcommand(words) == 0
    assert called == [(module, function, taken)]


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "f.yaml", "--set", "a=1", "--set", "b=2", "check"],
        ["check", "--config", "f.yaml", "--set", "a=1", "--set", "b=2"],
        ["--set", "a=1", "check", "--set", "b=2", "--config", "f.yaml"],
    ],
)
def test_sources_may_be_named_before_or_after_the_word_and_on_both_sides(called, words):
    arguments.run_subcommand(words)
    ((_, _, (sources, _)),) = called
    assert sources == {"file": "f.yaml", "assignments": ["a=1", "b=2"]}


@pytest.mark.parametrize("word", [*arguments.SUBCOMMANDS])
def test_every_word_names_functions_that_exist(word, monkeypatch):
    found = []
    real = arguments.load_function
    monkeypatch.setattr(
        arguments,
        "load_function",
        lambda *where: found.append(real(*where)) or (lambda *_: 0),
    )
    arguments.run_subcommand([word, "archive"] if word == "install-runner" else [word])
    assert all(map(callable, found)) and len(found) == 1


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as ended:
        arguments.run_subcommand(["--version"])
    assert ended.value.code == 0
    assert __version__ in capsys.readouterr().out
