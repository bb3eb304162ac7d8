"""Evidence of a job: what each sign adds to it."""

import json
from dataclasses import fields

import pytest
from hypothesis import given

from miglet.errors import BadMessage
from miglet.job import signs
from miglet.job.evidence import Evidence
from miglet.job.signs import KINDS, SOURCES
from miglet.job.verdict import (
    RunnerExit,
)
from miglet.messages.events import JobIdentity
from tests.job.samples import (
    AT,
    HISTORIES,
    SIGNS,
    evidence,
    exited,
    listening,
    of,
    running,
)


@given(HISTORIES, SIGNS)
def test_evidence_only_grows(history, sign):
    before = of(history)
    after = before.add(sign)
    assert before.first.keys() <= after.first.keys()
    assert all(after.first[kind] <= at for kind, at in before.first.items())
    assert before.texts.items() <= after.texts.items()
    assert before.results.keys() <= after.results.keys()
    known = {name for name, value in vars(before.identity).items() if value is not None}
    assert all(getattr(after.identity, name) is not None for name in known)


@given(HISTORIES)
def test_a_sign_that_is_reported_again_changes_nothing(history):
    told_once = of(history)
    assert of(history + history) == told_once


def test_the_largest_evidence_stays_below_32_kibibytes():
    long = '\U0001f680\u00e9"' * 400
    found = Evidence()
    names = [field.name for field in fields(JobIdentity)]
    values = dict.fromkeys(names, long)
    largest = signs.identity_of({**values, "job_id": "9" * 20, "run_id": "9" * 20})
    for source in SOURCES:
        for kind in KINDS.values():
            worst = {
                "at": AT,
                "source": source,
                "result": "Succeeded",
                "code": -(10**8),
            }
            worst |= {"name": signs.clip(long, 512), "identity": largest}
            worst |= {"text": signs.clip(long), "version": signs.clip(long)}
            wanted = {field.name for field in fields(kind)}
            found = found.add(kind(**{k: v for k, v in worst.items() if k in wanted}))
    assert len(json.dumps(found.as_json())) <= 32 * 1024


@pytest.mark.parametrize("document", [{}, {"first": 1}, [], None, {"first": {"a": []}}])
def test_what_is_no_evidence_is_a_bad_message(document):
    with pytest.raises(BadMessage):
        Evidence.of_json(document)


def test_what_a_newer_version_knows_is_left_out():
    document = evidence(running()).as_json()
    document["first"]["Teleported"] = 1.0
    document["results"]["crystal_ball"] = "Succeeded"
    document["results"]["output"] = "Excellent"
    assert Evidence.of_json(document) == evidence(running())
    assert (
        RunnerExit.of_json({"exit_code": 0, "known": True, "mood": "good"}) == exited()
    )


def test_the_most_trusted_source_describes_the_job_whoever_speaks_first():
    worker_log = JobIdentity(job_id="1", name="from the message")
    hook = JobIdentity(run_id="2", name="from the hook", ref="r")
    told_both = [
        signs.JobIdentified(AT, "worker_log", worker_log),
        signs.JobIdentified(AT, "hook", hook),
        running(),
    ]
    for order in (told_both, told_both[::-1]):
        identity = of(order).identity
        assert identity == JobIdentity(
            job_id="1", run_id="2", name="from the message", ref="r"
        )


def test_the_first_sign_of_a_job_is_the_earliest_not_the_first_reported():
    found = of([running(), signs.WorkerStarted(AT + 0.5, "perflog"), listening()])
    assert (found.job_seen_at, found.job_source) == (AT + 0.5, "perflog")
    assert of([listening(), signs.JobRequested(AT, "perflog")]).job_seen_at is None


def test_a_kind_of_sign_is_dated_by_its_earliest_and_so_is_its_source():
    later, earlier = running(), signs.JobRunning(AT + 0.5, "runner_log", "build")
    for order in ([later, earlier], [earlier, later]):
        found = of(order)
        assert found.at(signs.JobRunning) == AT + 0.5
        assert found.job_source == "runner_log"
