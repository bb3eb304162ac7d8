"""The daemon: what it begins a boot with."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from miglet.agent.daemon import run, runner_name
from miglet.errors import INTERNAL
from tests.histories import busy

BOOT = "8a6ba3f6-0000-4000-8000-000000000000"


@pytest.mark.parametrize("vm_id", ["vm-1", "x" * 48])
def test_a_runner_is_named_after_its_machine_and_the_boot(vm_id):
    assert runner_name(vm_id, BOOT) == f"{vm_id}-8a6ba3f6"


@pytest.mark.parametrize("length", [49, 64, 128])
def test_a_runners_name_has_room_for_a_number_within_64_characters(length):
    name = runner_name("x" * length, BOOT)
    assert len(f"{name}-999999") <= 64
    assert name.startswith("x" * 39)
    assert name.endswith("-8a6ba3f6")


def test_machines_whose_long_names_begin_alike_have_runners_of_different_names():
    assert runner_name("x" * 127 + "1", BOOT) != runner_name("x" * 127 + "2", BOOT)


def defect(*_):
    raise ZeroDivisionError


@pytest.mark.parametrize("step", ["start_workers", "run"])
def test_a_defect_is_in_the_journal_before_the_process_ends(step, monkeypatch):
    steps = {"start_workers": lambda names: None, "run": lambda: 0, step: defect}
    arbiter = SimpleNamespace(vm=busy(), **steps)
    seen = []
    journal = SimpleNamespace(record=lambda state, events: seen.append(state))
    monkeypatch.setattr(os, "_exit", seen.append)
    with pytest.raises(ZeroDivisionError):
        run(arbiter, journal, ["heartbeat-sender"])
    assert seen == [busy().after_crash().to_json(), INTERNAL]
