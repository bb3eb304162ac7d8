"""Signs in the runner's own logs: the Listener's lines and the Worker's job message."""

import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet.job import signs
from miglet.job.diag import (
    MESSAGE_LIMIT_BYTES,
    DiagFolder,
    JobMessage,
    diag_folder,
    existing_logs,
    parse_log_line,
)
from miglet.job.tail import RUN_BUDGET_BYTES, Budget
from miglet.messages.events import JobIdentity
from tests.support import descriptors_before

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
    made = DiagFolder(tmp_path / "_diag", lambda: STARTED, Budget(RUN_BUDGET_BYTES))
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
    text = "WRITE ERROR: A session for this runner already exists."
    line = logged("Terminal", text, "ERR ").rstrip("\n")
    assert parse_log_line(line, SEEN, "runner_log")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("System.IO.IOException: No space left on device : '/x'", True),
        (logged("Worker", "IOException: No space left on device", "ERR "), True),
        (
            logged(
                "StepsRunner",
                "Processing step: DisplayName='grep No space left on device'",
            ),
            False,
        ),
    ],
)
def test_a_full_disk_is_an_error_and_no_words(line, shown):
    sign = parse_log_line(line.rstrip("\n"), SEEN, "worker_log")
    assert isinstance(sign, signs.DiskFull) == shown


def test_a_worker_that_is_ordered_to_stop_says_whether_its_listener_stops():
    cancel = logged("Worker", "Cancellation/Shutdown message received.").rstrip()
    stop = logged("HostContext", "Runner will be shutdown for UserCancelled").rstrip()
    assert isinstance(parse_log_line(cancel, SEEN, "worker_log"), signs.CancelReceived)
    assert isinstance(parse_log_line(stop, SEEN, "worker_log"), signs.ShutdownReceived)


def test_the_second_line_of_a_name_may_have_the_result_in_the_listeners_log():
    sign = parse_log_line("b completed with result: Failed", SEEN, "runner_log")
    assert sign == signs.JobResult(SEEN, "runner_log", "Failed")
    assert parse_log_line("b completed with result: Failed", SEEN, "worker_log") is None


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
    line = f' "{"x" * 60}",\n'
    write(folder / WORKER, line * (MESSAGE_LIMIT_BYTES // len(line) + 10) + "}\n")
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
    before = len(descriptors_before())
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


# The job message, line by line.


def identity_in(text):
    collected = JobMessage()
    for line in text.encode().split(b"\n"):
        collected.add(line)
    return collected.identity


def dump(**more):
    return " " + json.dumps(message(**more), indent=2)


def test_the_identity_is_taken_from_its_own_lines():
    assert identity_in(dump()) == IDENTITY


#: What the official runner makes of a secret, and what can then not be known.
MASKS = {
    "true": set(),
    "false": set(),
    "null": set(),
    "{": set(),
    "}": set(),
    "[": set(),
    "1": {"job_id", "run_id", "name"},
    "5": {"job_id"},
    "555000111": {"job_id"},
    "000111.0": {"job_id"},
    "47": {"run_id"},
    "2": {"run_attempt"},
    "o/": {"repository"},
    "main": {"ref"},
}


@pytest.mark.parametrize("secret", MASKS)
def test_what_a_mask_does_not_touch_is_known(secret):
    found = identity_in(dump().replace(secret, "***"))
    for name, value in vars(IDENTITY).items():
        if name in MASKS[secret] and name != "name":
            assert getattr(found, name) is None, name
        elif name != "name":
            assert getattr(found, name) == value, name


def test_with_masked_quotation_marks_the_numbers_of_the_runner_are_known():
    found = identity_in(dump().replace('"', "***"))
    assert found == JobIdentity(job_id="555000111")


@given(st.text(alphabet="0123456789.\"' :,kv\n", min_size=1, max_size=6))
def test_a_number_with_a_mask_in_it_is_unknown_and_never_a_part(secret):
    found = identity_in(dump().replace(secret, "***"))
    assert found.job_id in (None, "555000111")
    assert found.run_id in (None, "4711")


@given(st.lists(st.text(alphabet='"4710 :', min_size=1, max_size=3), max_size=3))
def test_several_masks_make_no_other_number_either(secrets):
    masked = dump()
    for secret in secrets:
        masked = masked.replace(secret, "***")
    assert identity_in(masked).job_id in (None, "555000111")
    assert identity_in(masked).run_id in (None, "4711")


def test_a_key_of_a_matrix_or_of_the_event_is_not_taken_for_the_jobs():
    forged = context(check_run_id="666", run_id="666", repository="x/y")
    document = message()
    contexts = {"matrix": forged, **document["contextData"], "vars": forged}
    document["contextData"] = contexts
    document["variables"] = {"job": forged, "github": forged}
    assert identity_in(" " + json.dumps(document, indent=2)) == IDENTITY


def test_a_name_keeps_its_newlines_and_says_that_it_has_some():
    collected = JobMessage()
    for line in dump(jobDisplayName="a\nb").encode().split(b"\n"):
        collected.add(line)
    assert collected.identity.name == "a\nb"
    assert collected.name_has_newlines


def test_a_message_takes_time_in_proportion_to_its_size():
    deep = ['{"a":[{}', *[",{}"] * 30_000, "]}"]
    begun = time.perf_counter()
    assert identity_in("\n".join(deep)) == JobIdentity()
    assert time.perf_counter() - begun < 2


@given(st.binary(max_size=400))
def test_no_line_breaks_the_reader(raw):
    collected = JobMessage()
    for line in raw.split(b"\n"):
        collected.add(line)
    assert isinstance(collected.identity, JobIdentity)


def test_a_message_beyond_the_limit_has_ended():
    collected = JobMessage()
    collected.add(b"x" * (MESSAGE_LIMIT_BYTES + 1))
    assert collected.ended


def followed(folder, earlier, started_at=lambda: STARTED):
    return DiagFolder(folder, started_at, Budget(RUN_BUDGET_BYTES), earlier)


def test_a_clock_that_is_set_back_does_not_hide_the_logs_that_follow(tmp_path):
    folder = tmp_path / "_diag"
    folder.mkdir()
    clock = [STARTED]
    logs = followed(folder, {}, lambda: clock[0])
    assert logs.read(STARTED) == []
    clock[0] -= 3600
    name = time.strftime("Worker_%Y%m%d-%H%M%S-utc.log", time.gmtime(clock[0] + 5))
    (folder / name).write_text(worker_log())
    assert "JobIdentified" in kinds(logs.read(clock[0] + 6))
    logs.close()


def test_a_log_of_terabytes_and_one_that_grows_are_read_within_the_budget(tmp_path):
    folder = tmp_path / "_diag"
    folder.mkdir()
    (folder / WORKER).write_text(worker_log())
    os.truncate(folder / WORKER, 8 << 40)
    logs = DiagFolder(folder, lambda: STARTED, Budget(4 << 20))
    found = logs.read(SEEN)
    while logs.behind:
        found += logs.read(SEEN)
    assert "JobIdentified" in kinds(found)
    write(
        folder / WORKER,
        "\n" + logged("JobRunner", "Job result after all job steps finish: Failed"),
    )
    assert logs.read(SEEN) == []
    assert kinds(logs.finish(SEEN)) == ["JobResult"]
    logs.close()


def test_a_folder_of_logs_that_an_administrator_linked_is_followed_from_the_start(
    tmp_path,
):
    (tmp_path / "disk").mkdir()
    (tmp_path / "runner").mkdir()
    (tmp_path / "runner" / "_diag").symlink_to(tmp_path / "disk")
    place = diag_folder(tmp_path / "runner")
    logs = followed(place, {})
    (tmp_path / "disk" / WORKER).write_text(worker_log())
    assert "JobIdentified" in kinds(logs.read(SEEN))
    logs.close()
    assert diag_folder(tmp_path) == tmp_path / "_diag"


def test_what_another_run_logged_in_the_same_second_is_not_read_again(tmp_path):
    folder = tmp_path / "_diag"
    folder.mkdir()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(STARTED))
    shared, other = f"Runner_{stamp}-utc.log", f"Worker_{stamp}-utc.log"
    line = "[2026-01-02 03:04:05Z INFO JobDispatcher] Worker finished for job J. Code: "
    (folder / shared).write_text(f"{line}100\n")
    (folder / other).write_text(f"{line}100\n")
    earlier = existing_logs(folder)
    assert earlier.keys() == {shared, other}
    logs = followed(folder, earlier)
    assert logs.read(STARTED) == []
    with (folder / shared).open("a") as log:
        log.write(f"{line}137\n")
    found = logs.read(STARTED + 20)
    codes = [sign.code for sign in found if isinstance(sign, signs.WorkerEnded)]
    assert codes == [137]
    logs.close()


def test_a_log_of_another_run_that_is_gone_does_not_hide_the_others(tmp_path):
    folder = tmp_path / "_diag"
    folder.mkdir()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(STARTED))
    gone, shared = f"Runner_{stamp}-utc.log", f"Worker_{stamp}-utc.log"
    for name in (gone, shared):
        (folder / name).write_text("")
    logs = followed(folder, existing_logs(folder))
    (folder / gone).unlink()
    (folder / shared).write_text("[2026-01-02 03:04:05Z INFO Worker] Hello\n")
    found = logs.read(STARTED + 20)
    assert [type(sign) for sign in found] == [signs.WorkerStarted]
    logs.close()
