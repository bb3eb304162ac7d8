"""The checks of the system, above all of upgrades that nobody asked for."""

from __future__ import annotations

import pytest

from miglet.bootstrap.machine import upgrades
from tests.preflight_machine import look, settings_of

TIMERS = ("apt-daily.timer", "apt-daily-upgrade.timer")
BUSY = 'APT::Periodic::Update-Package-Lists "1";\n'


@pytest.fixture
def etc(tmp_path):
    """An /etc with apt's timers enabled, and apt configured to use them."""
    system = tmp_path / "etc" / "systemd" / "system"
    wants = system / "timers.target.wants"
    wants.mkdir(parents=True)
    for name in TIMERS:
        (wants / name).symlink_to(f"/lib/systemd/system/{name}")
    apt = tmp_path / "etc" / "apt" / "apt.conf.d"
    apt.mkdir(parents=True)
    (apt / "20auto-upgrades").write_text(BUSY)
    return tmp_path / "etc"


def test_timers_that_have_something_to_do_are_named(etc):
    assert upgrades(etc) == list(TIMERS)


def test_a_masked_timer_does_nothing(etc):
    (etc / "systemd" / "system" / TIMERS[0]).symlink_to("/dev/null")
    assert upgrades(etc) == [TIMERS[1]]


def test_a_disabled_timer_does_nothing(etc):
    (etc / "systemd" / "system" / "timers.target.wants" / TIMERS[1]).unlink()
    assert upgrades(etc) == [TIMERS[0]]


@pytest.mark.parametrize(
    ("name", "text", "active"),
    [
        ("99off", 'APT::Periodic::Enable "0";', False),
        ("99off", 'APT::Periodic::Update-Package-Lists "0";', False),
        ("10earlier", 'APT::Periodic::Update-Package-Lists "0";', True),
        ("99off.dpkg-old", 'APT::Periodic::Enable "0";', True),
        ("99more", 'APT::Periodic::Unattended-Upgrade "always";', True),
        ("99comment", '// APT::Periodic::Enable "0";', True),
    ],
)
def test_apt_is_believed_when_it_says_what_the_timers_do(etc, name, text, active):
    (etc / "apt" / "apt.conf.d" / name).write_text(f"{text}\n")
    assert bool(upgrades(etc)) is active


def test_without_a_configuration_the_timers_do_nothing(etc, tmp_path):
    (etc / "apt" / "apt.conf.d" / "20auto-upgrades").unlink()
    assert upgrades(etc) == []
    assert upgrades(tmp_path / "nowhere") == []


@pytest.mark.parametrize("name", ["control_groups", "init_system"])
def test_what_the_machine_is_made_of_is_reported(tmp_path, name):
    row = look(name, settings_of(tmp_path))
    assert row["status"] == "ok"
    assert row["detail"]
