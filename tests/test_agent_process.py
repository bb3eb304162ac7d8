"""What a failed end-to-end test shows of the agent."""

from __future__ import annotations

import json

from tests.agent_process import SHOWN_LINES, Agent


def entry(message: str, **more: str) -> str:
    known = {"timestamp": "2026-01-15T10:30:00.123Z", "level": "info", "pid": 1}
    return json.dumps({**known, "component": "arbiter", "message": message, **more})


def agent_with(tmp_path, *lines: str) -> Agent:
    agent = Agent(tmp_path, tmp_path / "miglet.yaml")
    agent.log_path.write_text("\n".join(lines))
    return agent


def test_the_end_of_a_log_has_what_happened_and_not_what_changed_nothing(tmp_path):
    agent = agent_with(
        tmp_path,
        entry("idle -> job_running on JobSeen"),
        entry("nothing to do in job_running on MachineSampled(vm_health={})"),
        entry("a long one " + "x" * 5000),
        entry("it failed", exc_info="Traceback\n  ZeroDivisionError"),
        "miglet: pool_id (not set): is required",
    )
    happened, long, failed, *rest = agent.end_of_log().splitlines()
    assert happened == "10:30:00.123 info    arbiter  idle -> job_running on JobSeen"
    assert len(long) < 300 and long.endswith("…")
    assert failed.endswith("it failed")
    assert rest == [
        "Traceback",
        "  ZeroDivisionError",
        "miglet: pool_id (not set): is required",
    ]


def test_the_end_of_a_long_log_is_short(tmp_path):
    agent = agent_with(tmp_path, *(entry(str(n)) for n in range(1000)))
    assert len(agent.end_of_log().splitlines()) == SHOWN_LINES
    assert agent.end_of_log().endswith("  999")
