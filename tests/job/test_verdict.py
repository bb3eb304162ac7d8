"""The verdict, as a table over the ways a run can go, and what must hold in all."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet.errors import BadMessage
from miglet.job import signs
from miglet.job.evidence import Evidence
from miglet.job.signs import RESULTS
from miglet.job.verdict import (
    CRASHES,
    DISK_FULL_BYTES,
    GIVE_UP,
    RELAUNCH,
    REREGISTER,
    RULES,
    STOPS,
    RunnerExit,
    Verdict,
    crash,
    verdict,
)
from miglet.messages.events import JobIdentity
from tests.cases import MANY_EXAMPLES
from tests.job.samples import (
    AT,
    HISTORIES,
    evidence,
    exited,
    of,
    running,
)


def started():
    return signs.HookStarted(AT + 2, "hook")


def completed():
    return signs.HookCompleted(AT + 3, "hook")


def steps():
    return signs.StepsBegan(AT + 2, "worker_log")


def identified():
    return signs.JobIdentified(AT + 2, "worker_log", JobIdentity(job_id="1"))


def shown(result, source="output"):
    return signs.JobResult(AT + 4, source, result)


def worker(code):
    return signs.WorkerEnded(AT + 4, "runner_log", code)


def deprecated():
    return signs.VersionDeprecated(AT, "output", "v2 is deprecated")


def signalled(number=9, **more):
    return RunnerExit(signal=number, known=True, **more)


RAN = (running(), started(), steps(), completed())
BEGAN = (running(), started(), steps())
SIGNALLED = (
    signs.CancelReceived(AT, "worker_log"),
    signs.ShutdownReceived(AT, "worker_log"),
)

TABLE = {
    "success": (
        (*RAN, shown("Succeeded")),
        exited(worker_exit_code=100),
        "succeeded",
        "success",
        0,
    ),
    "success with issues": (
        (*RAN, shown("SucceededWithIssues")),
        exited(worker_exit_code=101),
        "succeeded",
        "success",
        0,
    ),
    "success before the Listener has printed it": (
        RAN,
        RunnerExit(worker_exit_code=100),
        "succeeded",
        "success",
        0,
    ),
    "success before the stop": (
        (*RAN, shown("Succeeded")),
        exited(worker_exit_code=100, stopped_by="shutdown"),
        "succeeded",
        "success",
        0,
    ),
    "success, then the Listener is killed": (
        (*RAN, shown("Succeeded")),
        signalled(worker_exit_code=100),
        "succeeded",
        "success",
        0,
    ),
    "success of a Worker that outlived its Listener": (
        RAN,
        signalled(worker_exit_code=100, orphaned=True),
        "succeeded",
        "success",
        0,
    ),
    "failure of a Worker that outlived its Listener": (
        RAN,
        signalled(worker_exit_code=102, orphaned=True),
        "failed",
        "failure",
        102,
    ),
    "a Worker without its Listener is killed": (
        BEGAN,
        signalled(worker_signal=9, orphaned=True),
        "unknown",
        "runner_crash",
        137,
    ),
    "a Worker without its Listener ends as nobody knows": (
        (*RAN, shown("Succeeded", "worker_log")),
        signalled(orphaned=True),
        "unknown",
        "runner_crash",
        None,
    ),
    "failure": (
        (*RAN, shown("Failed")),
        exited(worker_exit_code=102),
        "failed",
        "failure",
        102,
    ),
    "the Worker failed, whatever was printed": (
        (*RAN, shown("Succeeded")),
        exited(worker_exit_code=102),
        "failed",
        "failure",
        102,
    ),
    "a success that the job wrote before it killed its runner": (
        (*BEGAN, shown("Succeeded")),
        signalled(worker_signal=9),
        "unknown",
        "runner_crash",
        137,
    ),
    "a success that the job wrote before it killed its Worker": (
        (*BEGAN, shown("Succeeded")),
        exited(worker_signal=9),
        "unknown",
        "worker_crash",
        137,
    ),
    "a hook of ours fails or is missing": (
        (running(), steps(), shown("Failed")),
        exited(worker_exit_code=102),
        "failed",
        "failure",
        102,
    ),
    "cancelled by the server": (
        (*RAN, signs.CancelReceived(AT, "perflog"), shown("Canceled")),
        exited(worker_exit_code=103),
        "cancelled",
        "cancelled",
        103,
    ),
    "cancelled by the server, the Worker killed in the end": (
        (*BEGAN, shown("Canceled")),
        exited(worker_signal=9),
        "cancelled",
        "cancelled",
        137,
    ),
    "a signal to the Listener makes the Worker report a failure": (
        (*BEGAN, *SIGNALLED, shown("Canceled")),
        exited(worker_exit_code=102),
        "failed",
        "shutdown",
        102,
    ),
    "our stop makes the Worker report a failure": (
        BEGAN,
        RunnerExit(worker_exit_code=102, stopped_by="timeout"),
        "failed",
        "timeout",
        102,
    ),
    "a name says that the Listener exits": (
        (*RAN, signs.ShutdownSignalled(AT, "runner_log"), shown("Canceled")),
        exited(worker_exit_code=103),
        "cancelled",
        "cancelled",
        103,
    ),
    "signalled by somebody else and gone without a result": (
        (*BEGAN, *SIGNALLED),
        exited(),
        "unknown",
        "shutdown",
        None,
    ),
    "terminated by SIGTERM": (BEGAN, exited(143), "unknown", "runner_crash", None),
    "ignores every signal and is killed by us": (
        BEGAN,
        signalled(stopped_by="timeout", worker_signal=9),
        "cancelled",
        "timeout",
        137,
    ),
    "the Listener is killed": (BEGAN, signalled(), "unknown", "runner_crash", None),
    "the Listener is taken by the OOM killer": (
        BEGAN,
        signalled(oom_kill_delta=1),
        "unknown",
        "oom_runner",
        None,
    ),
    "the Listener is gone and nobody knows how": (
        BEGAN,
        RunnerExit(),
        "unknown",
        "runner_crash",
        None,
    ),
    "the Worker is killed": (
        (*BEGAN, shown("Failed")),
        exited(worker_signal=9),
        "failed",
        "worker_crash",
        137,
    ),
    "the Worker dies of an exception": (
        (*BEGAN, shown("Failed")),
        exited(worker_exit_code=1),
        "failed",
        "worker_crash",
        1,
    ),
    "GitHub does not take the result": (
        (*RAN, shown("Succeeded", "worker_log"), shown("Failed")),
        exited(worker_exit_code=1),
        "failed",
        "result_not_reported",
        1,
    ),
    "the Worker is killed, and then we stop": (
        (*BEGAN, shown("Failed")),
        exited(worker_signal=9, stopped_by="termination_notice"),
        "failed",
        "termination_notice",
        137,
    ),
    "the Worker is taken by the OOM killer": (
        (*BEGAN, shown("Failed")),
        exited(worker_signal=9, oom_kill_delta=2),
        "failed",
        "oom_runner",
        137,
    ),
    "the Worker dies of an exception while a step is taken": (
        (*BEGAN, shown("Failed")),
        exited(worker_exit_code=1, oom_kill_delta=1),
        "failed",
        "worker_crash",
        1,
    ),
    "the Worker has no room to write": (
        (*BEGAN, signs.DiskFull(AT, "worker_log"), shown("Failed")),
        exited(worker_signal=6),
        "failed",
        "disk_full",
        134,
    ),
    "a step is about full disks": (
        (*RAN, signs.DiskFull(AT, "worker_log"), shown("Failed")),
        exited(worker_exit_code=102, disk_free_bytes=10**10),
        "failed",
        "failure",
        102,
    ),
    "the Worker dies and the Listener too": (
        BEGAN,
        signalled(worker_signal=6),
        "unknown",
        "runner_crash",
        134,
    ),
    "the Worker is taken by the OOM killer and nobody tells a result": (
        BEGAN,
        exited(worker_signal=9, oom_kill_delta=1),
        "unknown",
        "oom_runner",
        137,
    ),
    "the Worker hangs and is killed by us": (
        (running(), shown("Failed")),
        exited(worker_signal=9, worker_stuck=True),
        "failed",
        "worker_stuck",
        137,
    ),
    "the Worker hangs, is killed by us, and nobody tells a result": (
        (running(),),
        exited(worker_signal=9, worker_stuck=True),
        "unknown",
        "worker_stuck",
        137,
    ),
    "the Worker ended just before we killed it": (
        RAN,
        exited(worker_exit_code=100, worker_stuck=True),
        "succeeded",
        "success",
        0,
    ),
    "the Worker hangs, and a success is claimed of it that the log contradicts": (
        (running(), worker(0), shown("Succeeded", "runner_log")),
        exited(worker_stuck=True),
        "unknown",
        "worker_stuck",
        None,
    ),
    "a success is printed of a Worker that died by the log": (
        (*RAN, worker(139), shown("Succeeded")),
        exited(),
        "unknown",
        "worker_crash",
        None,
    ),
    "a step is taken by the OOM killer": (
        (*RAN, shown("Failed")),
        exited(worker_exit_code=102, oom_kill_delta=1),
        "failed",
        "oom_job",
        102,
    ),
    "a step is taken and the job succeeds all the same": (
        (*RAN, shown("Succeeded")),
        exited(worker_exit_code=100, oom_kill_delta=1),
        "succeeded",
        "success",
        0,
    ),
    "the job fills the disk": (
        (*RAN, shown("Failed")),
        exited(worker_exit_code=102, disk_free_bytes=DISK_FULL_BYTES - 1),
        "failed",
        "disk_full",
        102,
    ),
    "the job fails with room on the disk": (
        (*RAN, shown("Failed")),
        exited(worker_exit_code=102, disk_free_bytes=DISK_FULL_BYTES),
        "failed",
        "failure",
        102,
    ),
    "the Listener ends on a full disk": (
        BEGAN,
        exited(2, disk_free_bytes=0),
        "unknown",
        "disk_full",
        None,
    ),
    "deprecated before any job": (
        (deprecated(),),
        exited(1),
        "unknown",
        "version_deprecated",
        None,
    ),
    "deprecated, shown by the exit status": (
        (),
        exited(7),
        "unknown",
        "version_deprecated",
        None,
    ),
    "the registration goes while a job runs": (
        (*BEGAN, signs.RegistrationGone(AT, "output", "gone"), shown("Canceled")),
        exited(worker_exit_code=103),
        "cancelled",
        "registration_gone",
        103,
    ),
    "a name says that the registration is gone": (
        (
            *BEGAN,
            signs.NameOfSeveralLines(AT, "worker_log"),
            signs.RegistrationGone(AT, "output", "gone"),
            shown("Canceled"),
        ),
        exited(worker_exit_code=103),
        "cancelled",
        "cancelled",
        103,
    ),
    "a ghost, by the watchdog": (
        (signs.JobRequested(AT, "perflog"),),
        RunnerExit(ghost=True),
        "abandoned",
        "ghost",
        None,
    ),
    "a ghost, by the log, stopped by us": (
        (signs.JobSkipped(AT, "runner_log", "Skipping"),),
        exited(stopped_by="shutdown"),
        "abandoned",
        "ghost",
        None,
    ),
    "no ghost, for the job runs": (
        (*BEGAN, shown("Failed"), completed()),
        exited(ghost=True, worker_exit_code=102),
        "failed",
        "failure",
        102,
    ),
    "the job is lost before the Worker starts": (
        (running(), signs.RegistrationRemoved(AT, "output")),
        exited(),
        "unknown",
        "runner_crash",
        None,
    ),
    "the set-up fails, by the silent hooks": (
        (running(), shown("Failed")),
        exited(worker_exit_code=102),
        "failed",
        "setup_failed",
        102,
    ),
    "the set-up fails on a full disk": (
        (running(), shown("Failed")),
        exited(worker_exit_code=102, disk_free_bytes=0),
        "failed",
        "disk_full",
        102,
    ),
    "hooks that were refused prove nothing by their silence": (
        (running(), signs.HookRefused(AT, "hook", "no"), shown("Failed")),
        exited(worker_exit_code=102),
        "failed",
        "failure",
        102,
    ),
    "the lock is lost": (
        (*RAN, shown("Abandoned")),
        exited(worker_exit_code=103),
        "abandoned",
        "lock_lost",
        103,
    ),
    "abandoned by the Worker itself": (
        RAN,
        RunnerExit(worker_exit_code=105),
        "abandoned",
        "lock_lost",
        105,
    ),
    "abandoned, claims somebody, and the Worker succeeded": (
        (*RAN, shown("Abandoned")),
        exited(worker_exit_code=100),
        "succeeded",
        "success",
        0,
    ),
    "abandoned while we were stopping": (
        (*RAN, shown("Abandoned")),
        exited(worker_exit_code=103, stopped_by="termination_notice"),
        "abandoned",
        "termination_notice",
        103,
    ),
    "skipped": (
        (running(), shown("Skipped")),
        exited(worker_exit_code=104),
        "cancelled",
        "cancelled",
        104,
    ),
    "the machine restarts": (
        BEGAN,
        RunnerExit(boot_changed=True),
        "unknown",
        "machine_restarted",
        None,
    ),
    "no job at all": ((), exited(), "unknown", "unknown", None),
    # From here on the Worker's exit status cannot be had.
    "success, by what was printed": (
        (running(), shown("Succeeded")),
        exited(),
        "succeeded",
        "success",
        0,
    ),
    "success, by the Listener's log": (
        (*RAN, worker(100)),
        exited(),
        "succeeded",
        "success",
        0,
    ),
    "success, by what was printed, and the Listener killed": (
        (*RAN, shown("Succeeded")),
        signalled(),
        "unknown",
        "runner_crash",
        None,
    ),
    "success before the machine restarted": (
        (*RAN, shown("Succeeded")),
        RunnerExit(boot_changed=True),
        "succeeded",
        "success",
        0,
    ),
    "failure, by what was printed": (
        (*RAN, shown("Failed")),
        exited(),
        "failed",
        "failure",
        None,
    ),
    "failure shown by the Listener's exit status": (
        RAN,
        exited(102),
        "failed",
        "failure",
        None,
    ),
    "exit status 100 of the Listener is no success": (
        BEGAN,
        exited(100),
        "unknown",
        "runner_crash",
        None,
    ),
    "a signal to the Listener, by the Worker's log": (
        (*BEGAN, *SIGNALLED, shown("Failed", "worker_log"), shown("Canceled")),
        exited(),
        "failed",
        "shutdown",
        None,
    ),
    "the Worker is killed, by the Listener's log": (
        (*BEGAN, shown("Failed"), worker(137)),
        exited(),
        "failed",
        "worker_crash",
        None,
    ),
    "the Worker is killed, by the hook that did not run": (
        (*BEGAN, shown("Failed")),
        exited(),
        "failed",
        "worker_crash",
        None,
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_verdict_of(case):
    seen, runner_exit, result, cause, exit_code = TABLE[case]
    judged = verdict(evidence(*seen), runner_exit)
    assert (judged.result, judged.cause, judged.exit_code) == (result, cause, exit_code)


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize(("code", "result"), [(102, "failed"), (103, "cancelled")])
def test_a_job_that_we_stop_has_our_reason_and_the_workers_result(stop, code, result):
    judged = verdict(
        evidence(*BEGAN, *SIGNALLED), RunnerExit(worker_exit_code=code, stopped_by=stop)
    )
    assert (judged.result, judged.cause) == (result, stop)


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("code", range(100, 106))
def test_what_is_printed_does_not_change_a_result_that_the_worker_reported(
    result, code
):
    plain = verdict(evidence(*RAN), exited(worker_exit_code=code))
    printed = verdict(evidence(*RAN, shown(result)), exited(worker_exit_code=code))
    if (code, result) != (103, "Abandoned"):
        assert printed.result == plain.result
        assert printed.exit_code == plain.exit_code


def test_a_status_that_cannot_be_had_is_named_in_the_evidence():
    judged = verdict(evidence(*RAN, shown("Failed")), exited())
    assert judged.reasons[0] == "worker_status_unknown"
    known = verdict(evidence(*RAN, shown("Failed")), exited(worker_exit_code=102))
    assert "worker_status_unknown" not in known.reasons


def test_without_hooks_their_silence_proves_nothing():
    failed = evidence(running(), shown("Failed"), hooks_expected=False)
    assert verdict(failed, exited()).cause == "failure"
    begun = evidence(*BEGAN, shown("Failed"), hooks_expected=False)
    assert verdict(begun, exited()).cause == "failure"


def test_every_rule_decides_some_case_of_the_table():
    decided = {(result, cause) for _, _, result, cause, _ in TABLE.values()}
    fixed = {(rule.result, rule.cause) for rule in RULES if rule.result and rule.cause}
    assert fixed <= decided


def test_the_grounds_are_reported_in_words():
    seen = evidence(*BEGAN, shown("Failed"))
    grounds = verdict(seen, exited(worker_signal=9, oom_kill_delta=1)).reasons
    assert {
        "result Failed (output)",
        "worker ended by signal 9",
        "listener exited with 0",
        "started hook ran",
        "out-of-memory kills during the job: 1",
    } <= set(grounds)


# What holds for every evidence.

ENDINGS = st.builds(
    RunnerExit,
    exit_code=st.none() | st.sampled_from([0, 1, 2, 5, 7, 100, 102, 127, 137, 143]),
    signal=st.none() | st.sampled_from([2, 9, 11, 15]),
    known=st.booleans(),
    worker_exit_code=st.none() | st.sampled_from([0, 1, *range(100, 107)]),
    worker_signal=st.none() | st.sampled_from([9, 11]),
    worker_stuck=st.booleans(),
    orphaned=st.booleans(),
    stopped_by=st.sampled_from([None, *STOPS]),
    oom_kill_delta=st.integers(0, 2),
    disk_free_bytes=st.none() | st.sampled_from([0, 10**10]),
    boot_changed=st.booleans(),
    ghost=st.booleans(),
)
CAUSES = {rule.cause for rule in RULES} - {None} | set(STOPS)


@MANY_EXAMPLES
@given(HISTORIES, ENDINGS, st.booleans())
def test_every_evidence_has_a_verdict_and_success_needs_a_witness(
    history, runner_exit, hooks_expected
):
    found = of(history, hooks_expected)
    judged = verdict(found, runner_exit)
    assert isinstance(judged, Verdict)
    assert judged.result in {"succeeded", "failed", "cancelled", "abandoned", "unknown"}
    assert judged.cause in CAUSES
    assert (judged.result == "succeeded") == (judged.cause == "success")
    assert (judged.result == "succeeded") == (judged.exit_code == 0)
    if judged.result == "succeeded":
        assert runner_exit.worker_status in (100, 101, None)
    if judged.result == "succeeded" and runner_exit.worker_status is None:
        assert runner_exit.signal is None
        assert found.printed in ("Succeeded", "SucceededWithIssues", None)
        assert found.printed or found.worker_code in (100, 101)


@given(HISTORIES, ENDINGS)
def test_without_a_result_there_is_no_success_and_no_failure(history, runner_exit):
    silent = [
        sign
        for sign in history
        if not isinstance(sign, (signs.JobResult, signs.WorkerEnded))
    ]
    unknown = {"exit_code": None, "worker_exit_code": None, "worker_signal": None}
    judged = verdict(of(silent), replace(runner_exit, **unknown))
    assert judged.result in {"unknown", "cancelled", "abandoned"}


@given(HISTORIES, ENDINGS)
def test_evidence_and_ending_survive_json_and_stay_small(history, runner_exit):
    found = of(history)
    text = json.dumps(found.as_json())
    assert len(text) <= 32 * 1024
    assert Evidence.of_json(json.loads(text)) == found
    assert (
        RunnerExit.of_json(json.loads(json.dumps(runner_exit.as_json()))) == runner_exit
    )


@pytest.mark.parametrize("document", [[], None, 5])
def test_what_is_no_ending_is_a_bad_message(document):
    with pytest.raises(BadMessage):
        RunnerExit.of_json(document)


# A Listener's end without a job.

CRASH_TABLE = {
    "killed while idle": ((), signalled(), "runner_crash", RELAUNCH, True),
    "segmentation fault": ((), signalled(11), "runner_crash", RELAUNCH, True),
    "nobody knows": ((), RunnerExit(), "runner_crash", RELAUNCH, True),
    "unknown code": ((), exited(42), "runner_crash", RELAUNCH, True),
    "killed with a job": (BEGAN, signalled(), "runner_crash", REREGISTER, True),
    "job lost": (BEGAN, exited(), "runner_crash", REREGISTER, True),
    "worker killed": (
        (*BEGAN, shown("Failed")),
        exited(worker_signal=9),
        "worker_crash",
        REREGISTER,
        True,
    ),
    "ghost": ((), exited(ghost=True), "ghost", REREGISTER, False),
    "poll errors": ((), exited(2), "retryable", RELAUNCH, True),
    "session conflict": (
        (signs.SessionConflict(AT, "output"),),
        exited(5),
        "session_conflict",
        RELAUNCH,
        False,
    ),
    "deprecated, old exit code": (
        (deprecated(),),
        exited(1),
        "version_deprecated",
        RELAUNCH,
        False,
    ),
    "deprecated, new exit code": (
        (),
        exited(7),
        "version_deprecated",
        RELAUNCH,
        False,
    ),
    "registration deleted": (
        (signs.RegistrationGone(AT, "output", "gone"),),
        exited(1),
        "registration_gone",
        REREGISTER,
        False,
    ),
    "registration cleaned up": (
        (signs.RegistrationRemoved(AT, "output"),),
        exited(),
        "registration_gone",
        REREGISTER,
        False,
    ),
    "token revoked": (
        (signs.OAuthRevoked(AT, "runner_log"),),
        exited(),
        "registration_gone",
        REREGISTER,
        False,
    ),
    "token revoked, silently": ((), exited(), "ended_without_job", REREGISTER, False),
    "not configured": (
        (signs.NotConfigured(AT, "output"),),
        exited(1),
        "not_configured",
        REREGISTER,
        False,
    ),
    "updating": ((), exited(4), "updating", RELAUNCH, False),
    "binary missing": ((), exited(127), "not_executable", GIVE_UP, True),
    "not executable": ((), exited(126), "not_executable", GIVE_UP, True),
    "terminated": (
        (signs.RunnerFailed(AT, "output", "Failed to create session. x"),),
        exited(1),
        "terminated",
        REREGISTER,
        True,
    ),
}


@pytest.mark.parametrize("case", CRASH_TABLE)
def test_the_listeners_end(case):
    seen, runner_exit, kind, step, abnormal = CRASH_TABLE[case]
    found = crash(runner_exit, evidence(*seen))
    assert (found.kind, found.next_step, found.abnormal) == (kind, step, abnormal)
    assert found.reason


@pytest.mark.parametrize("result", RESULTS)
def test_an_end_after_a_result_is_in_order(result):
    assert crash(exited(), evidence(*RAN, shown(result))) is None


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("runner_exit", [exited(), signalled(), exited(143), exited(2)])
def test_an_end_that_we_asked_for_is_in_order(stop, runner_exit):
    assert crash(replace(runner_exit, stopped_by=stop), evidence(*BEGAN)) is None


def test_every_kind_of_end_is_in_the_table():
    assert {kind.kind for kind in CRASHES} == {row[2] for row in CRASH_TABLE.values()}


@given(HISTORIES, ENDINGS)
def test_every_end_is_in_order_or_has_a_next_step(history, runner_exit):
    found = crash(runner_exit, of(history))
    assert found is None or found.next_step in {RELAUNCH, REREGISTER, GIVE_UP}
