"""Lines for people: colours where they are wanted, and what is waited for."""

from __future__ import annotations

import io

import pytest

from tests import terminal
from tests.demo import timeline
from tests.terminal import Terminal


class Screen(io.StringIO):
    """What a terminal has been sent."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wait is a long one."""
    monkeypatch.setattr(terminal, "SHOWN_AFTER_SECONDS", 0.0)


def test_a_terminal_gets_colours() -> None:
    screen = Screen()
    Terminal(screen, {}).say("event", "VMStarted", "green")
    assert "\x1b[32mevent     \x1b[0m  VMStarted\n" in screen.getvalue()


@pytest.mark.parametrize(
    ("out", "environment"),
    [(Screen(), {"NO_COLOR": "1"}), (Screen(), {"TERM": "dumb"}), (io.StringIO(), {})],
)
def test_everything_else_gets_plain_text(
    out: io.StringIO, environment: dict[str, str]
) -> None:
    Terminal(out, environment).say("event", "VMStarted", "green")
    assert out.getvalue().endswith("  event       VMStarted\n")
    assert "\x1b" not in out.getvalue()


def test_an_empty_no_color_leaves_the_colours_on() -> None:
    assert Terminal(Screen(), {"NO_COLOR": ""}).styled("x", "red") == "\x1b[31mx\x1b[0m"


def test_a_short_wait_is_not_shown() -> None:
    out = io.StringIO()
    Terminal(out, {}).waiting("the job runs")
    assert out.getvalue() == ""


def test_a_long_wait_is_one_line_where_nothing_can_be_erased(impatient: None) -> None:
    out = io.StringIO()
    plain = Terminal(out, {})
    for what in ("the job runs", "the job runs", "the runner gets a job"):
        plain.waiting(what)
    assert out.getvalue().splitlines() == [
        "          ... the job runs",
        "          ... the runner gets a job",
    ]


def test_on_a_terminal_the_next_line_replaces_what_was_shown_of_a_wait(
    impatient: None,
) -> None:
    screen = Screen()
    live = Terminal(screen, {"NO_COLOR": "1"})
    live.waiting("the job runs")
    live.waiting("the job runs")
    live.line("done")
    parts = screen.getvalue().split(terminal.CLEAR_LINE)
    assert parts == [*2 * ("          … the job runs (0 s)",), "done\n"]


def test_the_boot_is_counted_from_the_start_of_miglet() -> None:
    moments = {"kernel": 0.0, "miglet": 4200.0, "preflight": 4290.4}
    assert timeline(moments) == "miglet 4.2 s after the kernel, preflight +90 ms"


def test_a_condition_that_holds_is_not_waited_for() -> None:
    out = io.StringIO()
    assert Terminal(out, {}).until(lambda: True, "the job runs", 60.0)
    assert out.getvalue() == ""


def test_a_condition_that_never_holds_is_given_up_and_was_shown(
    impatient: None,
) -> None:
    out = io.StringIO()
    assert not Terminal(out, {}).until(lambda: False, "the job runs", 0.1)
    assert out.getvalue() == "          ... the job runs\n"
