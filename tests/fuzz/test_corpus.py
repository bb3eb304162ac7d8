"""Every seed, every former finding, and a fixed number of inputs made from them."""

from __future__ import annotations

from random import Random

import pytest

from miglet.messages import codec
from tests.fuzz import with_hypothesis
from tests.fuzz.targets import TARGETS

#: Inputs for each target in `make test`, and in `make test-all`.
FEW, MANY = 15, 500

EVERY_TARGET = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))

REPLAYED = [
    pytest.param(target, data, id=f"{target.name}-{name}")
    for target in TARGETS.values()
    for name, data in target.seeds().items()
]


@pytest.mark.parametrize(("target", "data"), REPLAYED)
def test_replay(target, data):
    target.run(data)


@EVERY_TARGET
def test_a_few_inputs_of_each_kind_are_harmless(target):
    with_hypothesis.run(target, number=0, examples=FEW)


@pytest.mark.slow
@EVERY_TARGET
def test_many_inputs_of_each_kind_are_harmless(target):
    with_hypothesis.run(target, number=1, examples=MANY)
    with_hypothesis.compare_costs(target, Random(1))


@EVERY_TARGET
def test_each_target_has_seeds(target):
    assert target.seeds()


def test_each_folder_of_seeds_has_a_target():
    folders = {
        folder.name for folder in next(iter(TARGETS.values())).corpus.parent.iterdir()
    }
    assert folders == set(TARGETS)


def test_the_seeds_of_messages_are_messages():
    for name, data in TARGETS["queue_message"].seeds().items():
        assert name.startswith("found-") or codec.decode(data)
