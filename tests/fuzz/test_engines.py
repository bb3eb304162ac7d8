"""That the targets can fail, and what is done about an input that makes one fail."""

from __future__ import annotations

import contextlib
import re
from random import Random

import pytest

from miglet import formats
from miglet.config import sources
from miglet.job import hooks, signs
from miglet.messages import codec
from miglet.metadata import azure
from miglet.runner import installation, registration_errors
from tests.fuzz import findings, targets, with_hypothesis
from tests.fuzz.findings import TooExpensive
from tests.fuzz.mutation import MUTATIONS, mutated
from tests.fuzz.targets import TARGETS, Target

#: Defects that once were there, or easily could be: the target that finds each, what is
#: replaced, and by what.
PLANTED = [
    ("queue_message", codec, "DEEPEST", 10**6),
    ("hook_report", signs, "INTEGER_LIMIT", 10**30),
    ("hook_report", hooks, "readable", lambda raw: raw.decode("utf-8", "replace")),
    ("job_message", signs, "INTEGER_LIMIT", 10**30),
    ("time_of_day", formats, "LATEST", 1e15),
    ("json_document", formats, "_is_unicode", lambda text: True),
    ("azure_metadata", azure, "concerns", lambda event, name: True),
    ("config_sh_output", registration_errors, "one_line", str),
    ("runner_release", installation, "VERSION", r"([0-9]+\.[0-9]+\.[0-9]+)"),
    ("settings_document", sources, "shown", str),
    ("line_of_text", targets, "one_line", str),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "module", "attribute", "defect"),
    PLANTED,
    ids=[f"{name}-{attribute}" for name, _, attribute, _ in PLANTED],
)
def test_a_planted_defect_is_found(monkeypatch, name, module, attribute, defect):
    monkeypatch.setattr(module, attribute, defect)
    with pytest.raises(Exception) as caught:
        for number in range(20):
            with_hypothesis.run(TARGETS[name], number, examples=300, shrink=False)
    assert isinstance(caught.value.data, bytes)


def cubic(data: bytes) -> None:
    """As much dearer than in proportion that no load of the machine can hide it."""
    for at in range(0, len(data), 512):
        re.search(rb"b", data[at:] * (len(data) // 2048))


def linear(data: bytes) -> None:
    re.search(rb"b", data * 800)


@pytest.mark.slow
def test_a_cost_out_of_proportion_is_found():
    small, large = b"a" * findings.SMALL_BYTES, b"a" * findings.LARGE_BYTES
    with pytest.raises(TooExpensive):
        findings.require_proportion(Target("c", cubic, ""), small, large)
    findings.require_proportion(Target("l", linear, ""), small, large)


@pytest.mark.parametrize(
    ("seconds_of_small", "seconds_of_large", "found"),
    [
        (0.001, 0.064, True),
        (0.001, 0.041, False),
        (0.01, 0.39, False),
        (0.01, 0.41, True),
    ],
)
def test_the_limit_of_a_cost_in_proportion(
    monkeypatch, seconds_of_small, seconds_of_large, found
):
    seconds = {1000: seconds_of_small, 8000: seconds_of_large}
    monkeypatch.setattr(findings, "seconds_for", lambda _, data: seconds[len(data)])
    target = Target("none", linear, "")
    caught = pytest.raises(TooExpensive) if found else contextlib.nullcontext()
    with caught:
        findings.require_proportion(target, bytes(1000), bytes(8000))


def test_too_much_memory_is_found():
    greedy = Target("greedy", lambda data: bytes(1000 * len(data)) and None, "")
    with pytest.raises(TooExpensive):
        findings.require_little_memory(greedy, b"a" * findings.LARGE_BYTES)


def test_a_finding_is_kept_where_it_is_replayed(monkeypatch, tmp_path):
    monkeypatch.setattr(targets, "CORPUS", tmp_path)
    found = Target("some", linear, "")
    findings.keep(found, b"input")
    ((name, data),) = found.seeds().items()
    assert name.startswith(findings.PREFIX) and data == b"input"


def test_the_smallest_failing_input_comes_with_the_failure():
    def fail(data: bytes) -> None:
        assert b"\0" not in data

    failing = Target("http_head", fail, "")
    with pytest.raises(AssertionError) as caught:
        with_hypothesis.run(failing, 0, 500)
    assert b"\0" in caught.value.data


def test_the_same_choices_make_the_same_input():
    seeds = [b'{"a": [1, 2]}', b"text\n"]
    for number in range(200):
        first, again = Random(number), Random(number)
        assert mutated(seeds, first) == mutated(seeds, again)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.__name__)
def test_a_mutation_takes_any_input(mutation):
    for seed in (b"", b"\xff\xfe", b'{"a": 1}', b"[[[", b"1"):
        for number in range(50):
            assert isinstance(mutation(seed, Random(number)), bytes), seed
