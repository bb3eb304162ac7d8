"""What is read of the machine: true values, from any kernel, or None."""

from __future__ import annotations

import collections
import logging
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from miglet.metrics.machine import METRICS, Machine, Sampler
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
    "network",
}

FILES = {
    "vmstat": "nr_free_pages 12\noom_kill 3\n",
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

FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
CpuTimes = collections.namedtuple("CpuTimes", [*FIELDS, "guest", "guest_nice"])


def counters(received: int, sent: int) -> SimpleNamespace:
    return SimpleNamespace(
        bytes_recv=received,
        errin=3,
        dropin=4,
        bytes_sent=sent,
        errout=6,
        dropout=7,
    )


class Kernel:
    """The values that psutil reports to the metrics."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = CpuTimes(100, 0, 100, 700, 100, 0, 0, 0, 50, 0)
        self.devices = {
            "lo": counters(900, 900),
            "eth0": counters(100, 200),
            "docker0": counters(50, 50),
        }
        memory = SimpleNamespace(total=1000 * 1024, available=600 * 1024)
        for name, value in {
            "cpu_times": lambda: self.times,
            "getloadavg": lambda: (0.421, 0.3, 0.1),
            "virtual_memory": lambda: memory,
            "net_io_counters": lambda pernic: self.devices,
        }.items():
            monkeypatch.setattr(psutil, name, value)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


@pytest.fixture
def machine(tmp_path: Path, kernel: Kernel) -> Machine:
    for name, text in FILES.items():
        file = tmp_path / "proc" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "sys/class/net/eth0/device").mkdir(parents=True)
    return Machine(tmp_path, tmp_path / "proc", tmp_path / "sys")


def test_a_sample_of_a_machine_with_everything(machine: Machine, kernel: Kernel):
    sampler = Sampler(machine)
    kernel.times = CpuTimes(130, 0, 120, 730, 120, 0, 0, 0, 60, 0)
    (machine.proc / "vmstat").write_text("oom_kill 5\n")
    sample = sampler.sample()
    assert sample["cpu_percent"] == 50.0
    assert sample["load1"] == 0.42
    assert sample["memory_total_bytes"] == 1000 * 1024
    assert sample["memory_used_bytes"] == 400 * 1024
    assert sample["oom_kills"] == 2
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


def test_cpu_is_what_was_used_since_the_previous_sample(
    machine: Machine, kernel: Kernel
):
    sampler = Sampler(machine)
    kernel.times = CpuTimes(200, 0, 100, 700, 100, 0, 0, 0, 0, 0)
    assert sampler.sample()["cpu_percent"] == 100.0
    kernel.times = CpuTimes(200, 0, 100, 900, 100, 0, 0, 0, 0, 0)
    assert sampler.sample()["cpu_percent"] == 0.0
    assert sampler.sample()["cpu_percent"] is None  # not one tick has passed


def test_without_physical_devices_all_but_the_loopback_count(machine: Machine):
    (machine.sys / "class/net/eth0/device").rmdir()
    assert Sampler(machine).sample()["network"]["rx_bytes"] == 150


def test_a_kernel_without_pressure_information_tells_none(machine: Machine):
    for file in (machine.proc / "pressure").iterdir():
        file.unlink()
    assert Sampler(machine).sample()["pressure"] == {}


def test_a_group_that_is_not_wanted_is_left_out(machine: Machine):
    sampler = Sampler(machine, frozenset({"disk", "network"}))
    sample = sampler.sample()
    assert sample["network"] == {}
    assert sample["disk_used_bytes"] is sample["disk_total_bytes"] is None
    sampler.left_out = frozenset()
    sample = sampler.sample()
    assert sample["network"] and sample["disk_total_bytes"]


@pytest.mark.parametrize("text", [None, "", "x", "cpu a b", "a b\n" * 3, "\0\xff: y"])
def test_a_file_that_cannot_be_read_is_none_and_the_rest_is_there(
    machine: Machine, text: str | None
):
    (machine.proc / "vmstat").unlink()
    if text is not None:
        (machine.proc / "vmstat").write_text(text)
    sample = Sampler(machine).sample()
    assert set(sample) == set(METRICS)
    assert sample["oom_kills"] is None
    assert sample["disk_total_bytes"] > 0
    assert sample["pressure"]["io"]["some_avg10"] == 3.0


@pytest.mark.parametrize(
    ("function", "missing"),
    [
        ("cpu_times", {"cpu_percent"}),
        ("getloadavg", {"load1"}),
        ("virtual_memory", {"memory_used_bytes", "memory_total_bytes"}),
        ("net_io_counters", {"network"}),
        ("disk_usage", {"disk_used_bytes", "disk_total_bytes"}),
    ],
)
@pytest.mark.parametrize("error", [FileNotFoundError("gone"), KeyError("MemTotal:")])
def test_what_psutil_cannot_read_is_none_and_the_rest_is_there(
    machine: Machine,
    kernel: Kernel,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    missing: set[str],
    error: Exception,
):
    def fail(*args: object, **named: object) -> None:
        raise error

    kernel.times = kernel.times._replace(user=200)
    monkeypatch.setattr(psutil, function, fail)
    sample = Sampler(machine).sample()
    assert {name for name, value in sample.items() if value is None} == missing


def test_every_metric_can_be_read_on_the_machine_of_these_tests(machine: Machine):
    sample = Sampler(machine).sample()
    missing = {name for name, value in sample.items() if value is None}
    assert missing <= {"cpu_percent"}, "is the file that it reads not in FILES above?"


def test_what_cannot_be_read_is_logged_once(
    machine: Machine, caplog: pytest.LogCaptureFixture
):
    (machine.proc / "vmstat").unlink()
    sampler = Sampler(machine)
    with caplog.at_level(logging.DEBUG, "miglet.metrics"):
        for _ in range(3):
            sampler.sample()
    said = [record for record in caplog.records if "oom_kills" in record.getMessage()]
    assert len(said) == 1


def test_the_disk_of_a_folder_that_is_not_there_yet_is_its_parents(machine: Machine):
    sampler = Sampler(machine)
    there = sampler.sample()["disk_total_bytes"]
    machine.disk = machine.disk / "not" / "yet"
    assert sampler.sample()["disk_total_bytes"] == there


def test_this_machine_is_seen_as_psutil_sees_it():
    sampler = Sampler(Machine())
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
    sampler = Sampler(Machine())
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
    one_cpu = 100 / (psutil.cpu_count() or 1)
    assert sampler.sample()["cpu_percent"] > one_cpu * 0.5


def test_a_sample_takes_a_few_milliseconds():
    sampler = Sampler(Machine())
    took = []
    for _ in range(50):
        begun = time.thread_time()
        sampler.sample()
        took.append(time.thread_time() - begun)
    assert sorted(took)[25] < 0.003


def test_every_metric_of_the_heartbeat_is_sampled_and_explained():
    assert set(METRICS) >= HEALTH
    units = ("_percent", "_bytes", "_count")
    without_unit = {"load1", "pressure", "oom_kills", "network"}
    for name, metric in METRICS.items():
        assert metric.help, name
        has_unit = name.endswith(units) or name in without_unit
        assert has_unit, f"{name} must end with one of {units}"


def test_every_metric_appears_on_the_prometheus_page_with_a_help_text():
    for metric in METRICS.values():
        assert metric.series and all(each.help for each in metric.series), metric.name
