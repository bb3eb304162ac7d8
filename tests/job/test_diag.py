"""Signs in the runner's own logs: the Listener's lines and the Worker's job message."""

import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet.job import signs
from miglet.job.diag import DiagFolder, recent_logs
from miglet.job.diaglines import parse_log_line
from miglet.job.jobmessage import LIMIT_BYTES, JobMessage, identity_in, plain
from miglet.job.signs import JobIdentity

STARTED = 1767323045.0
SEEN = STARTED + 100
TS = "2026-01-02 03:04:05Z"

IDENTITY = JobIdentity(
    job_id="555000111",
    run_id="4711",
    name="build (1)",
    repository="o/r",
    workflow="CI",
    ref="refs/heads/main",
    commit="c0ffee",
    run_attempt=2,
    actor="octocat",
    event_name="push",
)


def context(**values):
    return {"t": 2, "d": [{"k": key, "v": value} for key, value in values.items()]}


def message(**more):
    github = context(
        run_id="4711",
        repository="o/r",
        workflow="CI",
        ref="refs/heads/main",
        sha="c0ffee",
        run_attempt="2",
        actor="octocat",
        event_name="push",
        event=context(deep=context(deeper={"t": 1, "a": ["x", 1.0, True]})),
    )
    job = context(check_run_id=555000111.0, status="x")
    contexts = {"github": github, "job": job, "matrix": None}
    return {"jobDisplayName": "build (1)", "contextData": contexts, **more}


def logged(component, text, level="INFO"):
    return f"[{TS} {level} {component}] {text}\n"


def worker_log(document=None):
    text = json.dumps(document or message(), indent=2)
    return (
        logged("Worker", "Version: 2.336.0")
        + logged("Worker", f"Job message:\n {text}")
        + logged("Worker", "Job ID 1234")
        + logged("StepsRunner", "Processing step: DisplayName='Set up runner'")
        + logged("StepsRunner", "Processing step: DisplayName='Run make'")
    )


@pytest.fixture
def diag(tmp_path):
    made = DiagFolder(tmp_path / "_diag", STARTED)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "_diag"
    made.mkdir()
    return made


def write(path, text):
    with open(path, "ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


RUNNER, WORKER = "Runner_20260102-030405-utc.log", "Worker_20260102-030409-utc.log"


def kinds(found):
    return [type(sign).__name__ for sign in found]


@pytest.mark.parametrize(
    ("component", "text", "sign"),
    [
        (
            "Terminal",
            f"WRITE LINE: {TS}: Running job: a",
            signs.JobRunning(STARTED, "runner_log", "a"),
        ),
        (
            "Terminal",
            "WRITE ERROR: A session for this runner already exists.",
            signs.SessionConflict(STARTED, "runner_log"),
        ),
        (
            "BrokerMessageListener",
            "Acknowledging runner request 'abc'.",
            signs.JobRequested(STARTED, "runner_log"),
        ),
        (
            "JobDispatcher",
            "Job request 0 for plan 1-2 job 3-4 received.",
            signs.JobRequested(STARTED, "runner_log"),
        ),
        (
            "Runner",
            "Skipping message Job. Job message already acquired 'x'.",
            signs.JobSkipped(
                STARTED,
                "runner_log",
                "Skipping message Job. Job message already acquired 'x'.",
            ),
        ),
        (
            "JobDispatcher",
            "Worker finished for job 3-4. Code: 137",
            signs.WorkerEnded(STARTED, "runner_log", 137),
        ),
        (
            "JobDispatcher",
            "finish job request for job 3-4 with result: Failed",
            signs.JobResult(STARTED, "runner_log", "Failed"),
        ),
        (
            "Runner",
            "Runner will be shutdown for UserCancelled",
            signs.ShutdownSignalled(STARTED, "runner_log"),
        ),
        (
            "Runner",
            "Runner OAuth token has been revoked. Shutting down.",
            signs.OAuthRevoked(STARTED, "runner_log"),
        ),
        (
            "Listener",
            "Version: 2.336.0",
            signs.RunnerVersion(STARTED, "runner_log", "2.336.0"),
        ),
        ("Other", f"{TS}: Running job: a", None),
        ("JobDispatcher", "It said: Worker finished for job 3-4. Code: 137", None),
    ],
)
def test_a_line_of_the_listeners_log(component, text, sign):
    line = logged(component, text).rstrip("\n")
    assert parse_log_line(line, SEEN, "runner_log") == sign


def test_levels_of_three_letters_are_padded():
    line = logged("Terminal", "WRITE ERROR: Exiting...", "ERR ").rstrip("\n")
    assert parse_log_line(line, SEEN, "runner_log")


def test_a_full_disk_is_told_wherever_it_is_mentioned():
    line = "System.IO.IOException: No space left on device : '/x'"
    assert parse_log_line(line, SEEN, "worker_log") == signs.DiskFull(
        SEEN, "worker_log"
    )


def test_what_the_worker_logs_is_not_taken_for_the_listeners_word():
    line = logged("JobDispatcher", "Worker finished for job 1. Code: 100").rstrip()
    assert parse_log_line(line, SEEN, "worker_log") is None


# The folder.


def test_a_folder_that_does_not_exist_yet_is_waited_for(diag, tmp_path):
    assert diag.read(SEEN) == []
    (tmp_path / "_diag").mkdir()
    write(tmp_path / "_diag" / RUNNER, logged("JobDispatcher", "x"))
    write(tmp_path / "_diag" / WORKER, worker_log())
    assert "JobIdentified" in kinds(diag.read(SEEN))


def test_the_workers_log_identifies_the_job_and_tells_of_the_first_step_once(
    diag, folder
):
    write(folder / WORKER, worker_log())
    found = diag.read(SEEN)
    assert kinds(found) == ["WorkerStarted", "JobIdentified", "StepsBegan"]
    assert found[1].identity == IDENTITY
    assert found[0].at == STARTED + 4
    assert diag.read(SEEN) == []


def test_the_message_is_understood_with_its_last_line_not_with_the_next_entry(
    diag, folder
):
    text = json.dumps(message(), indent=2)
    write(folder / WORKER, logged("Worker", f"Job message:\r\n {text}"))
    assert kinds(diag.read(SEEN)) == ["WorkerStarted", "JobIdentified"]


def test_the_message_may_arrive_byte_by_byte(diag, folder):
    found = []
    for piece in (worker_log()[i : i + 61] for i in range(0, len(worker_log()), 61)):
        write(folder / WORKER, piece)
        found += diag.read(SEEN)
    assert kinds(found) == ["WorkerStarted", "JobIdentified", "StepsBegan"]


def test_lines_of_a_message_may_be_far_longer_than_other_lines(diag, folder):
    write(folder / WORKER, worker_log(message(script="x" * 100_000)))
    assert "JobIdentified" in kinds(diag.read(SEEN))


def test_a_second_message_is_ignored(diag, folder):
    write(folder / WORKER, worker_log() + worker_log(message(jobDisplayName="forged")))
    found = diag.read(SEEN)
    assert kinds(found).count("JobIdentified") == 1


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 100_000 + "\n}",
        '{\n"contextData": {"github": ' + '{"t":2,"d":[{"k":"a","v":' * 3000 + "\n}",
        "null",
        '{\n"contextData": [1]\n}',
        '{\n"contextData": {"github": {"t": [], "d": 1}}\n}',
        '{\n"contextData": {"github": {"t": 2, "d": [1, {"k": 2}, {"v": 3}]}}\n}',
        '{\n"contextData": {"job": {"d": [{"k": "check_run_id", "v": 1e999}], "t": 2}}'
        "\n}",
        "}",
        "\x00\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
    ],
)
def test_a_message_that_is_none_identifies_nothing_and_what_follows_is_read(
    diag, folder, text
):
    write(
        folder / WORKER,
        logged("Worker", f"Job message:\n {text}")
        + logged("StepsRunner", "Processing step: DisplayName='x'"),
    )
    assert kinds(diag.read(SEEN)) == ["WorkerStarted", "StepsBegan"]


def test_a_message_beyond_the_limit_is_given_up(diag, folder):
    write(folder / WORKER, logged("Worker", "Job message:\n {"))
    write(folder / WORKER, ' "x",\n' * (LIMIT_BYTES // 6 + 10) + "}\n")
    write(folder / WORKER, logged("StepsRunner", "Processing step: DisplayName='x'"))
    found = diag.read(SEEN)
    while diag.behind:
        found += diag.read(SEEN)
    assert kinds(found) == ["WorkerStarted", "StepsBegan"]


def test_the_next_page_of_a_log_is_found(diag, folder):
    write(folder / RUNNER, logged("Terminal", f"WRITE LINE: {TS}: Running job: a"))
    assert kinds(diag.read(SEEN)) == ["JobRunning"]
    write(
        folder / "Runner_20260102-040000-utc.log",
        logged("JobDispatcher", "Worker finished for job 1. Code: 100"),
    )
    assert kinds(diag.read(SEEN)) == ["WorkerEnded"]


def test_logs_from_before_the_run_and_other_files_are_not_read(diag, folder):
    line = logged("JobDispatcher", "Worker finished for job 1. Code: 100")
    for name in (
        "Runner_20260102-030404-utc.log",
        "Runner_20261399-030405-utc.log",
        "Runner_x.log",
        "xRunner_20260102-030405-utc.log",
        "Other_20260102-030405-utc.log",
    ):
        write(folder / name, line)
    assert diag.read(SEEN) == []


def test_links_fifos_and_folders_among_the_logs_are_not_read(diag, folder, tmp_path):
    write(
        tmp_path / "secret",
        logged("JobDispatcher", "Worker finished for job 1. Code: 100"),
    )
    (folder / RUNNER).symlink_to(tmp_path / "secret")
    os.link(tmp_path / "secret", folder / "Runner_20260102-030406-utc.log")
    os.mkfifo(folder / "Runner_20260102-030407-utc.log")
    (folder / "Runner_20260102-030408-utc.log").mkdir()
    assert diag.read(SEEN) == []


def test_a_linked_folder_is_not_read(diag, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere" / WORKER, worker_log())
    (tmp_path / "_diag").symlink_to("elsewhere")
    assert diag.read(SEEN) == []


def test_the_number_of_logs_that_are_followed_is_bounded(diag, folder):
    before = len(os.listdir("/proc/self/fd"))
    for second in range(100):
        write(
            folder / f"Worker_20260102-03{second % 60:02}{second // 60:02}-utc.log", "x"
        )
    diag.read(SEEN)
    assert len(os.listdir("/proc/self/fd")) - before < 12


def test_a_folder_made_anew_is_found_again(diag, folder):
    diag.read(SEEN)
    folder.rmdir()
    diag.read(SEEN)
    folder.mkdir()
    write(folder / WORKER, worker_log())
    assert "JobIdentified" in kinds(diag.read(SEEN))


def test_an_unchanged_folder_is_not_listed_again(diag, folder):
    for number in range(500):
        write(folder / f"{number}", "x")
    os.utime(folder, (STARTED, STARTED))
    diag.read(SEEN)
    begun = time.thread_time()
    for _ in range(1000):
        diag.read(SEEN)
    assert time.thread_time() - begun < 0.5


def test_two_changes_of_a_folder_within_one_tick_of_the_clock_are_both_seen(
    diag, folder
):
    os.utime(folder, (SEEN, SEEN))
    diag.read(SEEN)
    write(folder / WORKER, worker_log())
    os.utime(folder, (SEEN, SEEN))
    assert "JobIdentified" in kinds(diag.read(SEEN + 1))


# Context data.


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("x", "x"),
        (1.0, 1.0),
        (None, None),
        ({"t": 0, "s": "x"}, "x"),
        ({"s": "x"}, "x"),
        ({"t": 3, "b": True}, True),
        ({"t": 4, "n": 1.5}, 1.5),
        ({"t": 1, "a": ["x", {"t": 2, "d": []}]}, ["x", {}]),
        ({"t": 5, "d": [{"k": "a", "v": "b"}]}, {"a": "b"}),
        ({"t": 99}, None),
        ({"t": "2"}, None),
    ],
)
def test_a_context_value_becomes_what_it_means(value, meant):
    assert plain(value) == meant


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text()
    | st.sampled_from([0, 1, 2, 3, 4]),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["t", "d", "k", "v", "a", "s", "b", "n"]), inner
        )
    ),
    max_leaves=20,
)


@given(JSON, JSON, JSON)
def test_no_context_data_breaks_the_reader(github, job, name):
    document = {"jobDisplayName": name, "contextData": {"github": github, "job": job}}
    identity = identity_in(json.dumps(document))
    assert identity is None or isinstance(identity, JobIdentity)


def test_a_message_keeps_nothing_once_it_is_too_large():
    collected = JobMessage()
    assert collected.add(b"x" * (LIMIT_BYTES + 1)) is None
    assert collected.too_large


def test_what_another_run_logged_in_the_same_second_is_not_read_again(tmp_path):
    folder = tmp_path / "_diag"
    folder.mkdir()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(STARTED))
    shared, other = f"Runner_{stamp}-utc.log", f"Worker_{stamp}-utc.log"
    line = "[2026-01-02 03:04:05Z INFO JobDispatcher] Worker finished for job J. Code: "
    (folder / shared).write_text(f"{line}100\n")
    (folder / other).write_text(f"{line}100\n")
    earlier = recent_logs(folder, STARTED)
    assert earlier.keys() == {shared, other}
    logs = DiagFolder(folder, STARTED, earlier)
    assert logs.read(STARTED) == []
    with (folder / shared).open("a") as log:
        log.write(f"{line}137\n")
    told = logs.read(STARTED + 20)
    codes = [sign.code for sign in told if isinstance(sign, signs.WorkerEnded)]
    assert codes == [137]
    logs.close()


def test_a_log_of_another_run_that_is_gone_does_not_hide_the_others(tmp_path):
    folder = tmp_path / "_diag"
    folder.mkdir()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(STARTED))
    gone, shared = f"Runner_{stamp}-utc.log", f"Worker_{stamp}-utc.log"
    for name in (gone, shared):
        (folder / name).write_text("")
    logs = DiagFolder(folder, STARTED, recent_logs(folder, STARTED))
    (folder / gone).unlink()
    (folder / shared).write_text("[2026-01-02 03:04:05Z INFO Worker] Hello\n")
    told = logs.read(STARTED + 20)
    assert [type(sign) for sign in told] == [signs.WorkerStarted]
    logs.close()
