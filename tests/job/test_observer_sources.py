"""All sources together: order, dates, waking, adoption, and each one switched off."""

import os
import select
import time
from dataclasses import replace

import pytest

from miglet.job import signs
from miglet.job.observer import RunPaths, SignReader
from tests.support import descriptors_before, eventually

ALL = {"job_hooks": True, "diag_logs": True, "perflog": True}


def stamp(at):
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))


class Traces:
    """What a run leaves behind, written as the runner would."""

    def __init__(self, root):
        self.paths = RunPaths(
            root / "run" / "output", root / "job", root / "_diag", root / "perf"
        )
        for name in ("run", "job", "_diag", "perf"):
            (root / name).mkdir(exist_ok=True)
        os.chmod(self.paths.job_directory, 0o700)
        self.started_at = time.time()
        begun = time.strftime("%Y%m%d-%H%M%S", time.gmtime(self.started_at))
        self.log = self.paths.diag_directory / f"Runner_{begun}-utc.log"

    def reader(self, features=ALL, **changes):
        paths = replace(self.paths, **changes)
        return SignReader(paths, lambda: self.started_at, features)

    def prints(self, text):
        append(self.paths.output, f"{stamp(time.time())}: {text}\n")

    def logs(self, text):
        append(self.log, f"[{stamp(time.time())} INFO JobDispatcher] {text}\n")

    def counts(self, counter):
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        append(
            self.paths.perflog_directory / "Runner.perf", f"{counter}:{at}.9999999Z\n"
        )

    def hooks(self, name, text='{"at":"1","GITHUB_RUN_ID":"7"}\n'):
        path = self.paths.job_directory / f"{name}.json"
        path.touch(0o600)
        append(path, text)


def append(path, text):
    with open(path, "ab") as file:
        file.write(text.encode())


@pytest.fixture
def traces(tmp_path):
    return Traces(tmp_path)


@pytest.fixture
def opened():
    made = []

    def open_it(reader):
        reader.open()
        made.append(reader)
        return reader

    yield open_it
    for reader in made:
        reader.close()


def kinds(found):
    return [type(sign).__name__ for sign in found]


def a_job(traces):
    traces.counts("MessageReceived_RunnerJobRequest")
    traces.prints("Running job: a")
    traces.hooks("job-started")
    traces.hooks("job-completed")
    traces.logs("Worker finished for job 1. Code: 100")
    traces.prints("Job a completed with result: Succeeded")


JOB = {
    "JobRequested",
    "JobRunning",
    "HookStarted",
    "HookCompleted",
    "WorkerEnded",
    "JobResult",
    "JobIdentified",
}


def test_all_sources_are_read_and_what_was_logged_first_is_reported_first(
    traces, opened
):
    reader = opened(traces.reader())
    a_job(traces)
    found = kinds(reader.read())
    assert set(found) == JOB
    assert found.index("WorkerEnded") < found.index("JobResult")
    assert reader.read() == []


def test_a_reader_made_anew_tells_every_sign_again(traces, opened):
    first = opened(traces.reader())
    a_job(traces)
    expected = kinds(first.read())
    assert kinds(opened(traces.reader()).read()) == expected


@pytest.mark.parametrize(
    ("feature", "missing"),
    [
        ("job_hooks", {"HookStarted", "HookCompleted", "JobIdentified"}),
        ("diag_logs", {"WorkerEnded"}),
        ("perflog", {"JobRequested"}),
    ],
)
def test_a_source_that_is_switched_off_tells_nothing(traces, opened, feature, missing):
    reader = opened(traces.reader({**ALL, feature: False}))
    a_job(traces)
    assert set(kinds(reader.read())) == JOB - missing


def test_output_alone_is_enough_to_see_a_job_and_its_end(traces, opened):
    reader = opened(
        traces.reader(job_directory=None, diag_directory=None, perflog_directory=None)
    )
    a_job(traces)
    assert kinds(reader.read()) == ["JobRunning", "JobResult"]


@pytest.mark.parametrize("source", ["prints", "logs", "counts", "hooks"])
def test_every_source_wakes_the_reader_at_once(traces, opened, source):
    text = {
        "prints": "Running job: a",
        "logs": "Worker finished for job 1. Code: 100",
        "counts": "StartingWorkerProcess",
        "hooks": "job-started",
    }[source]
    reader = opened(traces.reader())
    reader.read()
    begun = time.monotonic()
    getattr(traces, source)(text)
    assert select.select([reader.fileno()], [], [], 5)[0]
    found = eventually(reader.read, 5, "a sign")
    assert found
    assert time.monotonic() - begun < 1


def test_at_rest_nothing_wakes_the_reader(traces, opened):
    reader = opened(traces.reader())
    a_job(traces)
    reader.read()
    assert not select.select([reader.fileno()], [], [], 0.05)[0]


def test_a_rotation_wakes_the_reader_and_loses_nothing(traces, opened):
    reader = opened(traces.reader())
    traces.prints("Running job: a")
    reader.read()
    os.replace(traces.paths.output, traces.paths.output.with_name("output.1"))
    traces.prints("Job a completed with result: Failed")
    assert select.select([reader.fileno()], [], [], 5)[0]
    assert kinds(reader.read()) == ["JobResult"]


def test_folders_that_come_later_are_watched_too(tmp_path, opened):
    paths = RunPaths(
        tmp_path / "run" / "output", diag_directory=tmp_path / "r" / "_diag"
    )
    reader = opened(SignReader(paths, time.time, ALL))
    assert reader.read() == []
    traces = Traces(tmp_path)
    (tmp_path / "r").mkdir()
    os.rename(traces.paths.diag_directory, tmp_path / "r" / "_diag")
    traces.log = tmp_path / "r" / "_diag" / traces.log.name
    traces.logs("Worker finished for job 1. Code: 100")
    assert eventually(lambda: kinds(reader.read()), 5, "the log") == ["WorkerEnded"]


def test_without_inotify_the_caller_polls_and_misses_nothing(traces):
    reader = traces.reader()
    assert reader.fileno() is None
    a_job(traces)
    assert set(kinds(reader.read())) == JOB
    reader.close()


def test_what_happens_now_is_dated_now_though_its_stamp_is_cut_to_the_second(
    traces, opened
):
    reader = opened(traces.reader())
    before = time.time()
    traces.prints("Running job: a")
    assert before <= reader.read()[0].at <= time.time()


def test_what_happened_while_nobody_looked_is_dated_by_its_stamp(traces):
    traces.started_at -= 1000
    append(
        traces.paths.output, f"{stamp(traces.started_at + 10)}: Listening for Jobs\n"
    )
    (sign,) = traces.reader().read()
    assert sign.at == pytest.approx(traces.started_at + 10, abs=1)


@pytest.mark.parametrize("shift", [-1e9, 1e9])
def test_no_sign_is_dated_outside_the_run(traces, shift):
    append(
        traces.paths.output,
        f"{stamp(traces.started_at + shift)}: Listening for Jobs\n",
    )
    (sign,) = traces.reader().read()
    assert traces.started_at - 1 <= sign.at <= time.time()


def test_finish_reads_everything_and_the_line_without_an_end(traces):
    reader = traces.reader()
    append(traces.paths.output, "x" * 1_000_000 + "\n")
    traces.prints("Running job: a")
    append(
        traces.paths.output,
        f"{stamp(time.time())}: Job a completed with result: Failed",
    )
    reader.read()
    assert reader.behind
    assert kinds(reader.finish()) == ["JobRunning", "JobResult"]
    assert reader.last_lines(1)[0].endswith("completed with result: Failed")
    reader.close()


def test_a_report_that_stayed_incomplete_is_refused_at_the_end(traces):
    reader = traces.reader()
    traces.hooks("job-started", '{"at":"1"')
    assert reader.read() == []
    assert kinds(reader.finish()) == ["HookRefused"]
    assert reader.finish() == []
    reader.close()


def test_closing_gives_every_descriptor_back(traces):
    before = len(descriptors_before())
    a_job(traces)
    reader = traces.reader()
    reader.open()
    reader.read()
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_first_wake_up_after_a_line_has_its_sign(traces, opened):
    reader = opened(traces.reader())
    for number in range(20):
        traces.prints(f"Running job: {number}")
        assert select.select([reader.fileno()], [], [], 5)[0]
        assert isinstance(reader.read()[0], signs.JobRunning)
