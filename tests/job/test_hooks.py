"""The job hooks as the Worker runs them, and the reader of what they report."""

import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miglet.job import signs
from miglet.job.hooks import (
    INCOMPLETE,
    LIMIT_BYTES,
    SCRIPTS,
    HookReport,
    HookReports,
    JobDirectoryUnusable,
    Refusal,
    prepare,
    read_report,
    replaced,
    unreadable,
)
from miglet.messages.events import JobIdentity
from miglet.safefile import open_folder
from miglet.supervisor.privileges import Account

pytestmark = pytest.mark.integration

BASH = shutil.which("bash")
STARTED, COMPLETED = SCRIPTS / "job-started.sh", SCRIPTS / "job-completed.sh"
GITHUB = {
    "GITHUB_RUN_ID": "4711",
    "GITHUB_RUN_ATTEMPT": "2",
    "GITHUB_REPOSITORY": "o/r",
    "GITHUB_WORKFLOW": "CI",
    "GITHUB_REF": "refs/heads/main",
    "GITHUB_SHA": "c0ffee",
    "GITHUB_ACTOR": "octocat",
    "GITHUB_EVENT_NAME": "push",
    "GITHUB_JOB": "build",
}


def run(script, environment, **options):
    """Runs the hook as the Worker does (`bash -e`); it must be silent and exit 0."""
    done = subprocess.run(
        [BASH, "-e", script],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=10,
        **options,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.fixture
def directory(tmp_path):
    made = tmp_path / "job"
    made.mkdir(mode=0o700)
    return made


def report(directory, name="job-started"):
    folder = open_folder(directory)
    try:
        return read_report(folder, name)
    finally:
        os.close(folder)


def environment(directory, **more):
    return {"MIGLET_JOB_DIRECTORY": str(directory), **GITHUB, **more}


def test_both_hooks_report_who_the_job_is(directory):
    before = time.time()
    for script in (STARTED, COMPLETED):
        run(script, environment(directory))
        found = report(directory, script.stem)
        assert found.identity == JobIdentity(
            run_id="4711",
            run_attempt=2,
            repository="o/r",
            workflow="CI",
            ref="refs/heads/main",
            commit="c0ffee",
            actor="octocat",
            event_name="push",
        )
        assert before <= found.at <= time.time()


def test_no_secret_of_the_job_is_reported(directory):
    secrets = {
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "verysecret",
        "GITHUB_TOKEN": "verysecret",
        "ACTIONS_ID_TOKEN_REQUEST_URL": "https://verysecret",
    }
    run(STARTED, environment(directory, **secrets))
    assert "verysecret" not in (directory / "job-started.json").read_text()


@pytest.mark.parametrize("script", [STARTED, COMPLETED])
@pytest.mark.parametrize("directory_name", ["", "/nonexistent/x", "/proc", "/dev/null"])
def test_a_directory_that_cannot_be_written_is_not_the_jobs_problem(
    script, directory_name
):
    run(script, environment(directory_name))


def test_no_variables_at_all_are_not_the_jobs_problem():
    run(STARTED, {})


def test_no_program_is_needed_and_a_hostile_path_is_not_used(directory, tmp_path):
    for name in ("printf", "mv", "date", "cat", "rm", "sed", "test", "["):
        program = tmp_path / name
        program.write_text(f"#!{BASH}\necho used >{tmp_path}/used\nexit 1\n")
        program.chmod(0o755)
    run(STARTED, environment(directory, PATH=str(tmp_path)))
    assert report(directory).identity.run_id == "4711"
    assert not (tmp_path / "used").exists()


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: os.symlink("x", path)]
)
def test_what_lies_in_the_reports_place_neither_hangs_nor_misleads_the_hook(
    directory, make
):
    make(directory / "job-started.json")
    run(STARTED, environment(directory))
    assert not (directory / "x").exists()


def test_a_full_disk_is_not_the_jobs_problem(directory):
    (directory / "job-started.json").write_text("")
    run(
        STARTED,
        environment(directory),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    assert report(directory) == INCOMPLETE


def test_a_hook_whose_other_half_is_missing_is_not_the_jobs_problem(
    tmp_path, directory
):
    alone = tmp_path / "job-started.sh"
    shutil.copy(STARTED, alone)
    run(alone, environment(directory))
    assert report(directory) is None


def test_the_hooks_are_real_files_that_need_no_execute_bit():
    assert sorted(path.name for path in SCRIPTS.glob("*.sh")) == [
        "job-completed.sh",
        "job-started.sh",
        "report.sh",
    ]
    assert all(path.is_file() and not path.is_symlink() for path in SCRIPTS.glob("*"))
    assert os.readlink(SCRIPTS) == "../../etc/hooks"


def test_the_worst_values_cost_a_hook_little_more_than_ordinary_ones(
    directory,
):
    """In processor time, beyond what starting bash takes on this machine.

    What escapes character by character in bash needs seconds for these values.
    """
    worst = environment(directory, **{name: "\x01" * 4096 for name in GITHUB})
    empty = directory.parent / "empty.sh"
    empty.touch()
    taken = min(processor_seconds(STARTED, worst) for _ in range(5))
    assert taken < min(processor_seconds(empty, worst) for _ in range(5)) + 0.5


def processor_seconds(script, variables):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(script, variables)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.binary(min_size=1, max_size=100).filter(lambda value: b"\0" not in value)
    | st.text("\"\\'`$(){}\n\r\t*?[]!~é√🚀", min_size=1, max_size=50).map(str.encode)
)
def test_any_bytes_of_a_value_arrive(directory, value):
    run(
        STARTED, {b"MIGLET_JOB_DIRECTORY": os.fsencode(directory), b"GITHUB_REF": value}
    )
    raw = (directory / "job-started.json").read_bytes()
    assert raw.isascii()
    assert json.loads(raw)["GITHUB_REF"].encode("latin-1") == value
    assert isinstance(report(directory), HookReport)


@pytest.mark.parametrize("locale", ["", "C", "C.UTF-8"])
def test_text_beyond_ascii_is_put_together_again(directory, locale):
    more = {"LC_ALL": locale}
    run(STARTED, environment(directory, **more, GITHUB_WORKFLOW='Größe √ 🚀 "x" \\ y'))
    assert report(directory).identity.workflow == 'Größe √ 🚀 "x" \\ y'


# The reader.


def lay(directory, content, name="job-started.json", mode=0o600):
    path = directory / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)


def test_no_report_is_none(directory):
    assert report(directory) is None


@pytest.mark.parametrize("content", ["", "{", '{"at":"1"', '{"at":"1"}'])
def test_a_torn_report_is_not_complete(directory, content):
    lay(directory, content)
    assert report(directory) is INCOMPLETE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("hello", "is not JSON"),
        ("{]}\n", "is not JSON"),
        ('{"a":NaN}\n', "is not JSON"),
        ('{"a":' + "9" * 5000 + "}\n", "is not JSON"),
        (b'{"a":"\xff"}\n', "is not UTF-8"),
        ('{"a":' + "[" * 30_000 + "}\n", "is nested too deeply"),
        ("[" * 60_000, "is nested too deeply"),
        ('{"a":1}\n', "is not a JSON object of strings"),
        ('{"a":{"b":"c"}}\n', "is not a JSON object of strings"),
        ("[]\n", "is not a JSON object of strings"),
        ("null", "is not a JSON object of strings"),
        (b"{" + b" " * LIMIT_BYTES + b"}\n", f"is larger than {LIMIT_BYTES} bytes"),
    ],
)
def test_what_our_hooks_do_not_write_is_refused_with_a_reason(
    directory, content, reason
):
    lay(directory, content)
    assert report(directory) == Refusal(reason)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "is not a regular file"),
        (os.mkdir, "is not a regular file"),
        (lambda path: os.symlink("/etc/passwd", path), "is a symbolic link"),
        (lambda path: os.symlink(path, path), "is a symbolic link"),
        (lambda path: os.link(__file__, path), "has a second link"),
    ],
)
def test_what_is_no_plain_file_is_refused_without_waiting(directory, make, reason):
    try:
        make(directory / "job-started.json")
    except OSError:
        pytest.skip("this file system has no such thing")
    assert report(directory) == Refusal(reason)


def test_a_socket_is_refused(directory):
    import socket

    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(directory / "job-started.json"))
        assert report(directory) == Refusal("is not a regular file")


@pytest.mark.parametrize("mode", [0o622, 0o602, 0o620])
def test_a_report_that_others_can_write_is_refused(directory, mode):
    lay(directory, '{"at":"1"}\n', mode=mode)
    assert report(directory) == Refusal("can be written by others")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_report_of_somebody_else_is_refused(directory):
    lay(directory, '{"at":"1"}\n')
    os.chown(directory / "job-started.json", 65534, 65534)
    assert report(directory) == Refusal("belongs to uid 65534")


@pytest.mark.parametrize("at", ["", "x", "1e9", "-1", "9" * 40, "nan", "1.", "١"])
def test_a_time_that_is_none_is_not_said(directory, at):
    lay(directory, json.dumps({"at": at, "GITHUB_RUN_ID": "1"}) + "\n")
    assert report(directory).at is None


def test_control_characters_in_a_report_do_not_arrive(directory):
    lay(directory, json.dumps({"GITHUB_ACTOR": "a\x1b[31m\nb\u0000"}) + "\n")
    assert report(directory).identity.actor == "ab"


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.binary(max_size=200))
def test_no_content_breaks_the_reader(directory, content):
    lay(directory, content)
    assert isinstance(report(directory), (HookReport, Refusal))


def test_each_report_is_passed_on_once(directory):
    reports = HookReports(directory)
    run(STARTED, environment(directory))
    assert [type(sign) for sign in reports.read()] == [
        signs.JobIdentified,
        signs.HookStarted,
    ]
    assert reports.read() == []
    lay(directory, '{"at":"5"}\n', "job-completed.json")
    assert reports.read() == [signs.HookCompleted(5.0, "hook")]
    assert reports.read() == []


def test_a_refusal_is_reported_once(directory, caplog):
    reports = HookReports(directory)
    lay(directory, "no")
    (sign,) = reports.read()
    assert sign.text == "job-started.json is not JSON"
    assert reports.read() == []
    assert len(caplog.records) == 1


def test_a_report_that_is_being_written_is_waited_for(directory):
    reports = HookReports(directory)
    lay(directory, '{"at":"5"')
    assert reports.read() == []
    lay(directory, '{"at":"5"}\n')
    assert reports.read() == [signs.HookStarted(5.0, "hook")]


def test_a_folder_that_is_missing_or_a_link_has_no_reports(tmp_path, directory):
    assert HookReports(tmp_path / "none").read() == []
    lay(directory, '{"at":"5"}\n')
    (tmp_path / "link").symlink_to(directory)
    assert HookReports(tmp_path / "link").read() == []


# The folder.


def test_the_folder_is_made_private(tmp_path):
    old = os.umask(0)
    try:
        prepare(tmp_path / "run" / "job", None)
    finally:
        os.umask(old)
    assert (tmp_path / "run" / "job").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
def test_the_folder_belongs_to_the_runners_user(tmp_path):
    prepare(tmp_path / "job", Account("nobody", 65534, 65534, "/"))
    status = (tmp_path / "job").stat()
    assert (status.st_uid, status.st_gid) == (65534, 65534)


def test_whatever_the_last_job_left_is_gone_and_nothing_else(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    job = tmp_path / "run" / "job"
    prepare(job, None)
    (job / "job-started.json").write_text("{}")
    (job / "link").symlink_to(outside)
    (job / "a" / "b").mkdir(parents=True)
    (job / "a" / "b" / "link").symlink_to(outside)
    os.mkfifo(job / "a" / "fifo")
    prepare(job, None)
    assert list(job.iterdir()) == []
    assert list(job.parent.iterdir()) == [job]
    assert (outside / "precious").read_text() == "x"


@pytest.mark.parametrize("what", ["file", "link", "dangling"])
def test_something_else_in_the_folders_place_is_replaced(tmp_path, what):
    job = tmp_path / "run" / "job"
    job.parent.mkdir()
    if what == "file":
        job.write_text("x")
    else:
        job.symlink_to(tmp_path if what == "link" else "nowhere")
    prepare(job, None)
    assert job.is_dir() and not job.is_symlink()
    assert list(job.parent.iterdir()) == [job]


def test_a_very_deep_tree_is_deleted_with_few_descriptors(tmp_path):
    job = tmp_path / "run" / "job"
    prepare(job, None)
    here = os.getcwd()
    try:
        os.chdir(job)
        for _ in range(3000):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    prepare(job, None)
    assert list(job.parent.iterdir()) == [job]


def test_what_still_writes_into_the_old_folder_does_not_reach_the_new_one(tmp_path):
    job = tmp_path / "run" / "job"
    prepare(job, None)
    old = open_folder(job)
    prepare(job, None)
    with pytest.raises(FileNotFoundError):
        os.open("job-started.json", os.O_CREAT | os.O_WRONLY, dir_fd=old)
    os.close(old)
    assert list(job.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_reported_with_its_reason():
    with pytest.raises(JobDirectoryUnusable, match="/proc/nowhere/job"):
        prepare(Path("/proc/nowhere/job"), None)


# Whether our hooks can report at all.


def test_a_folder_made_under_a_strict_umask_lets_the_runner_pass(tmp_path):
    before = os.umask(0o077)
    try:
        prepare(tmp_path / "run" / "job", account_of_nobody())
    finally:
        os.umask(before)
    if os.geteuid() == 0:
        assert (tmp_path / "run").stat().st_mode & 0o001


def account_of_nobody():
    return Account("nobody", 65534, 65534, "/")


@pytest.mark.skipif(os.geteuid() != 0, reason="asks for another user")
def test_hooks_that_the_runner_cannot_read_are_named():
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        scripts = Path(name) / "hooks"
        scripts.mkdir()
        (scripts / "job-started.sh").touch(0o600)
        Path(name).chmod(0o755)
        assert unreadable(scripts, account_of_nobody()) == (
            f"user nobody may not read {scripts}/job-started.sh"
        )
        (scripts / "job-started.sh").chmod(0o644)
        assert unreadable(scripts, account_of_nobody()) == ""
        scripts.chmod(0o700)
        assert unreadable(scripts, account_of_nobody()) == (
            f"user nobody may not enter {scripts}"
        )


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("LANG=C.UTF-8\n", False),
        ("ACTIONS_RUNNER_HOOK_JOB_STARTED=/opt/site/started.sh\n", True),
        ("A=1\nACTIONS_RUNNER_HOOK_JOB_COMPLETED=\n", True),
        (f"ACTIONS_RUNNER_HOOK_JOB_STARTED={SCRIPTS}/job-started.sh\n", False),
    ],
)
def test_a_site_hook_that_replaces_ours_is_named(tmp_path, content, named):
    assert replaced(tmp_path, SCRIPTS) == ""
    (tmp_path / ".env").write_text(content)
    assert bool(replaced(tmp_path, SCRIPTS)) == named


def test_an_environment_file_that_is_a_trap_names_nothing(tmp_path):
    os.mkfifo(tmp_path / ".env")
    assert replaced(tmp_path, SCRIPTS) == ""
