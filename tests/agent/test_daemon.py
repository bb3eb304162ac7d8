"""The daemon: what it begins a boot with."""

from __future__ import annotations

import pytest

from miglet.agent.daemon import runner_name, start_delay, wait_before_start
from miglet.lifecycle.vm import FailedStart

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


@pytest.mark.parametrize(
    ("repeats", "seconds"), [(0, 0), (1, 1), (2, 2), (4, 8), (7, 60), (500, 60)]
)
def test_the_more_starts_fail_alike_the_longer_the_next_one_waits(repeats, seconds):
    assert start_delay(FailedStart("disk", 69, repeats)) == seconds


def test_a_start_after_none_or_another_failure_does_not_wait():
    assert start_delay(None) == 0.0


def test_the_service_manager_is_told_why_a_start_waits_and_that_it_lives():
    said = []

    class Notifier:
        def ready(self, status):
            said.append(status)

        def alive(self):
            said.append("alive")

    wait_before_start(Notifier(), FailedStart("disk", 69, 2), 0.01)
    assert said[0].startswith("waiting until 20")
    assert said[0].endswith("3 starts failed: disk")
    assert said[1] == "alive"
