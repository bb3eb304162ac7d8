"""Whether the machine goes when MIGlet has ended; that it does, tests/image shows."""

from __future__ import annotations

import pytest

from miglet.agent.daemon import power_off, power_off_is_due
from miglet.errors import CRASH_LOOP, DONE, REFUSED
from miglet.lifecycle.vm import End

WORK_DONE = End("job_completed", "miglet")


@pytest.mark.parametrize(
    ("action", "end", "exit_status", "wanted"),
    [
        ("poweroff", WORK_DONE, DONE, True),
        ("poweroff", End("drain", "controller"), DONE, True),
        ("none", WORK_DONE, DONE, False),
        ("poweroff", End("sigterm", "signal"), DONE, False),
        ("poweroff", WORK_DONE, CRASH_LOOP, False),
        ("poweroff", WORK_DONE, REFUSED, False),
        ("poweroff", None, DONE, False),
    ],
)
def test_a_machine_whose_work_is_done_is_switched_off_if_it_should_be(
    action, end, exit_status, wanted
):
    assert power_off_is_due(action, end, exit_status) is wanted


@pytest.mark.parametrize(
    ("script", "said"),
    [("exit 0", ""), ("echo not today >&2; exit 1", "not today")],
)
def test_an_order_that_is_not_taken_is_reported_in_the_log(caplog, script, said):
    power_off(("sh", "-c", script))
    failures = [each.message for each in caplog.records if each.levelname == "ERROR"]
    assert bool(failures) is bool(said)
    assert said in caplog.text


def test_a_machine_that_has_no_such_command_is_reported_in_the_log(caplog):
    power_off(("/no/such/poweroff",))
    assert "cannot be switched off" in caplog.text
