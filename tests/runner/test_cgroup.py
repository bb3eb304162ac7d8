"""What control groups count: files of the kernel, and what is missing in them."""

from __future__ import annotations

from miglet.runner import cgroup
from miglet.runner.unit import Unit
from miglet.runner.usage import Usage
from tests.runner.groups import group


def test_the_group_tells_what_a_job_used_without_what_could_be_dropped(tmp_path):
    folder = group(
        tmp_path / "group",
        cpu__stat="usage_usec 2500000\nuser_usec 1\n",
        memory__current="1000\n",
        memory__stat="anon 600\ninactive_file 300\nactive_file 100\n",
        io__stat="8:0 rbytes=7 wbytes=11 rios=1\n8:16 rbytes=1 wbytes=2\n",
        memory__events="oom 1\noom_kill 2\noom_group_kill 0\n",
    )
    unit = Unit("u.service", "id", folder)
    assert Usage(**unit.figures()) == Usage(2.5, 700, 8, 13)
    assert unit.oom_kills() == 2


def test_what_the_kernel_does_not_count_is_left_out(tmp_path):
    folder = group(tmp_path / "group", cpu__stat="usage_usec 1000000\n", io__stat="")
    assert Unit("u", "id", folder).figures() == {
        "cpu_seconds": 1.0,
        "io_read_bytes": 0,
        "io_write_bytes": 0,
    }
    assert Unit("u", "id", str(tmp_path / "gone")).figures() == {}
    assert Unit("u", "id", None).figures() == {}
    assert Unit("u", "id", folder).oom_kills() is None


def test_the_processes_of_the_groups_below_are_in_the_group(tmp_path):
    folder = group(tmp_path / "group", cgroup__procs="1\n2\n")
    group(tmp_path / "group" / "below", cgroup__procs="3\n")
    assert sorted(Unit("u", "id", folder).pids()) == [1, 2, 3]
    assert Unit("u", "id", str(tmp_path / "gone")).pids() == []


def test_our_own_group_is_that_of_version_2_where_that_is_mounted(tmp_path):
    mine = tmp_path / "cgroup"
    mine.write_text("4:memory:/elsewhere\n0::/a.slice/b.service\n")
    root = tmp_path / "root"
    (root / "a.slice").mkdir(parents=True)
    assert cgroup.own(str(mine), str(root)) is None
    found = group(root / "a.slice/b.service", cgroup__procs="")
    assert cgroup.own(str(mine), str(root)) == found
    mine.write_text("4:memory:/elsewhere\n")
    assert cgroup.own(str(mine), str(root)) is None
