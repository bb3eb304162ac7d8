"""What is read of the machine: true values, from any kernel, or None."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from miglet.metrics import METRICS, Machine, Sampler
from tests.support import eventually

#: The keys that the heartbeat's ``vm_health`` has in any case.
HEALTH = {
    "cpu_percent",
    "load1",
    "memory_used_bytes",
    "memory_total_bytes",
    "disk_used_bytes",
    "disk_total_bytes",
    "pressure",
    "oom_kills",
    "clock_offset_ms",
    "network",
}

FILES = {
    "stat": "cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 2 3 4\n",
    "loadavg": "0.42 0.30 0.10 1/234 5678\n",
    "meminfo": "MemTotal:  1000 kB\nMemFree: 200 kB\nMemAvailable:  600 kB\n",
    "vmstat": "nr_free_pages 12\noom_kill 3\n",
    "net/dev": (
        "Inter-|   Receive                          |  Transmit\n"
        " face |bytes packets errs drop fifo frame compressed multicast|bytes\n"
        "    lo: 900 9 0 0 0 0 0 0 900 9 0 0 0 0 0 0\n"
        "  eth0: 100 2 3 4 0 0 0 0 200 5 6 7 0 0 0 0\n"
        "docker0:50 1 0 0 0 0 0 0 50 1 0 0 0 0 0 0\n"
    ),
    "pressure/cpu": "some avg10=1.50 avg60=0.00 avg300=0.00 total=5\n",
    "pressure/memory": (
        "some avg10=2.00 avg60=0.00 avg300=0.00 total=5\n"
        "full avg10=0.25 avg60=0.00 avg300=0.00 total=5\n"
    ),
    "pressure/io": (
        "some avg10=3.00 avg60=0.00 avg300=0.00 total=5\n"
        "full avg10=2.00 avg60=0.00 avg300=0.00 total=5\n"
    ),
}


@dataclass
class Wanted:
    include_disk: bool = True
    include_network: bool = True


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    for name, text in FILES.items():
        file = tmp_path / "proc" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "sys/class/net/eth0/device").mkdir(parents=True)
    return Machine(tmp_path, tmp_path / "proc", tmp_path / "sys")


def rewrite(machine: Machine, name: str, text: str) -> None:
    (machine.proc / name).write_text(text)


def test_a_sample_of_a_machine_with_everything(machine: Machine):
    sampler = Sampler(Wanted(), machine)
    machine.clock_offset_ms = 12.5
    rewrite(machine, "stat", "cpu  130 0 120 730 120 0 0 0 60 0\n")
    rewrite(machine, "vmstat", "oom_kill 5\n")
    sample = sampler.sample()
    assert sample["cpu_percent"] == 50.0
    assert sample["load1"] == 0.42
    assert sample["memory_total_bytes"] == 1000 * 1024
    assert sample["memory_used_bytes"] == 400 * 1024
    assert sample["oom_kills"] == 2
    assert sample["clock_offset_ms"] == 12.5
    assert sample["pressure"] == {
        "cpu": {"some_avg10": 1.5, "full_avg10": None},
        "memory": {"some_avg10": 2.0, "full_avg10": 0.25},
        "io": {"some_avg10": 3.0, "full_avg10": 2.0},
    }
    assert sample["network"] == {
        "rx_bytes": 100,
        "rx_errors": 3,
        "rx_dropped": 4,
        "tx_bytes": 200,
        "tx_errors": 6,
        "tx_dropped": 7,
    }


def test_cpu_is_what_was_used_since_the_sample_before(machine: Machine):
    sampler = Sampler(Wanted(), machine)
    rewrite(machine, "stat", "cpu  200 0 100 700 100 0 0 0 0 0\n")
    assert sampler.sample()["cpu_percent"] == 100.0
    rewrite(machine, "stat", "cpu  200 0 100 900 100 0 0 0 0 0\n")
    assert sampler.sample()["cpu_percent"] == 0.0
    assert sampler.sample()["cpu_percent"] is None  # not one tick has passed


def test_without_physical_devices_all_but_the_loopback_count(machine: Machine):
    (machine.sys / "class/net/eth0/device").rmdir()
    assert Sampler(Wanted(), machine).sample()["network"]["rx_bytes"] == 150


def test_a_kernel_without_pressure_information_tells_none(machine: Machine):
    for file in (machine.proc / "pressure").iterdir():
        file.unlink()
    assert Sampler(Wanted(), machine).sample()["pressure"] == {}


def test_what_is_not_wanted_is_left_out(machine: Machine):
    sampler = Sampler(Wanted(False, False), machine)
    sample = sampler.sample()
    assert sample["network"] == {}
    assert sample["disk_used_bytes"] is sample["disk_total_bytes"] is None
    sampler.settings = Wanted()
    sample = sampler.sample()
    assert sample["network"] and sample["disk_total_bytes"]


@pytest.mark.parametrize("name", ["stat", "loadavg", "meminfo", "vmstat", "net/dev"])
@pytest.mark.parametrize("text", [None, "", "x", "cpu a b", "a b\n" * 3, "\0\xff: y"])
def test_what_cannot_be_read_is_none_and_the_rest_is_there(
    machine: Machine, name: str, text: str | None
):
    (machine.proc / name).unlink()
    if text is not None:
        (machine.proc / name).write_text(text)
    sample = Sampler(Wanted(), machine).sample()
    assert set(sample) == set(METRICS)
    assert sample["disk_total_bytes"] > 0
    assert sample["pressure"]["io"]["some_avg10"] == 3.0


def test_what_cannot_be_read_is_logged_once(
    machine: Machine, caplog: pytest.LogCaptureFixture
):
    (machine.proc / "loadavg").unlink()
    sampler = Sampler(Wanted(), machine)
    with caplog.at_level(logging.DEBUG, "miglet.metrics"):
        for _ in range(3):
            sampler.sample()
    said = [record for record in caplog.records if "load1" in record.getMessage()]
    assert len(said) == 1


def test_the_disk_of_a_folder_that_is_not_there_yet_is_its_parents(machine: Machine):
    sampler = Sampler(Wanted(), machine)
    there = sampler.sample()["disk_total_bytes"]
    machine.disk = machine.disk / "not" / "yet"
    assert sampler.sample()["disk_total_bytes"] == there


def test_this_machine_is_seen_as_psutil_sees_it():
    sampler = Sampler(Wanted(), Machine())
    before = psutil.cpu_times()
    eventually(lambda: psutil.cpu_times() != before, what="a tick of the clock")
    sample, memory, disk = (
        sampler.sample(),
        psutil.virtual_memory(),
        psutil.disk_usage("/"),
    )
    assert sample["memory_total_bytes"] == memory.total
    used = memory.total - memory.available
    assert sample["memory_used_bytes"] == pytest.approx(used, abs=200e6)
    assert sample["disk_total_bytes"] == disk.total
    assert sample["disk_used_bytes"] == pytest.approx(disk.used, abs=200e6)
    assert sample["load1"] == pytest.approx(psutil.getloadavg()[0], abs=1.0)
    assert 0 <= sample["cpu_percent"] <= 100


def test_cpu_percent_follows_the_load():
    sampler = Sampler(Wanted(), Machine())
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
    one_cpu = 100 / (psutil.cpu_count() or 1)
    assert sampler.sample()["cpu_percent"] > one_cpu * 0.5


def test_a_sample_takes_a_few_milliseconds():
    sampler = Sampler(Wanted(), Machine())
    took = []
    for _ in range(50):
        begun = time.thread_time()
        sampler.sample()
        took.append(time.thread_time() - begun)
    assert sorted(took)[25] < 0.003


def test_every_metric_of_the_heartbeat_is_sampled_and_explained():
    assert set(METRICS) >= HEALTH
    units = ("_percent", "_bytes", "_count", "_ms")
    without_unit = {"load1", "pressure", "oom_kills", "network"}
    for name, read in METRICS.items():
        assert (read.__doc__ or "").strip(), name
        assert name.endswith(units) or name in without_unit
