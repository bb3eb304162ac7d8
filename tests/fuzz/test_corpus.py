"""Every seed, every former finding, and a fixed number of inputs made from them."""

from __future__ import annotations

from random import Random

import pytest

from miglet.messages import codec
from tests.cases import check_each
from tests.fuzz import with_hypothesis
from tests.fuzz.targets import TARGETS

#: Inputs for each target in `make quick`, in `make test`, and in `make test-all`.
FEWER, FEW, MANY = 5, 15, 500

EVERY_TARGET = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@EVERY_TARGET
def test_replay(target):
    seeds = target.seeds()
    check_each(seeds, lambda name: target.run(seeds[name]))


@EVERY_TARGET
def test_a_few_inputs_of_each_kind_are_harmless(target, quick):
    with_hypothesis.run(target, number=0, examples=FEWER if quick else FEW)


@pytest.mark.slow
@EVERY_TARGET
def test_many_inputs_of_each_kind_are_harmless(target):
    with_hypothesis.run(target, number=1, examples=MANY)
    with_hypothesis.compare_costs(target, Random(1))


def test_each_folder_of_seeds_has_a_target():
    folders = {
        folder.name for folder in next(iter(TARGETS.values())).corpus.parent.iterdir()
    }
    assert folders == set(TARGETS)


def test_the_seeds_of_messages_are_messages():
    for name, data in TARGETS["queue_message"].seeds().items():
        assert name.startswith("found-") or codec.decode(data)
