"""The runner's performance counters as signs."""

import pytest

from miglet.job import signs
from miglet.job.perflog import PerfLog, parse_counter
from miglet.job.tail import (
    FILE_BUDGET_BYTES,
    Budget,
)
from tests.job.lines import AT, write


@pytest.mark.parametrize(
    ("counter", "kind"),
    [
        ("MessageReceived_RunnerJobRequest", "JobRequested"),
        ("MessageReceived_PipelineAgentJobRequest", "JobRequested"),
        ("MessageReceived_JobCancellation", "CancelReceived"),
        ("StartingWorkerProcess", "WorkerStarted"),
        ("WorkerJobMessageReceived_7", "WorkerStarted"),
        ("SessionCreated", None),
    ],
)
def test_counters_are_the_earliest_signs(counter, kind):
    sign = parse_counter(f"{counter}:2026-01-02T03:04:05.5000000Z")
    assert (sign and type(sign).__name__) == kind
    if sign:
        assert (sign.at, sign.source) == (AT + 0.5, "perflog")


def test_counters_are_read_from_the_files_of_both_processes(tmp_path):
    perflog = PerfLog(tmp_path, Budget(FILE_BUDGET_BYTES))
    assert perflog.read() == []
    line = "MessageReceived_RunnerJobRequest:2026-01-02T03:04:0{}.0000000Z\n"
    write(tmp_path / "Runner.perf", "garbage\n:\n" + line.format(6))
    assert perflog.read() == [signs.JobRequested(AT + 1, "perflog")]
    assert perflog.read() == []
    write(tmp_path / "Worker.perf", "WorkerProcessStarted:2026-01-02T03:04:07Z\n")
    assert perflog.read() == [signs.WorkerStarted(AT + 2, "perflog")]
    perflog.close()
