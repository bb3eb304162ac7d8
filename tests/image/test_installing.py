"""What an administrator does with the packages on a machine that runs."""

from __future__ import annotations

from tests.image.conftest import Boot
from tests.systemd.console import Console
from tests.systemd.machine import SERVICE

CHECKOUT = "/srv/checkout"
PACKAGES = "/srv/packages"

#: Both packages, and the agent's next version, as the shell finds them.
BOTH = f"{PACKAGES}/*.deb"
NEWER = f"{PACKAGES}/newer/miglet_*.deb"


def install(console: Console, packages: str) -> None:
    """As an administrator would who has copied the files there."""
    quiet = "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq"
    console.done("sh", "-c", f"{quiet} {packages}")


def enabled(console: Console) -> str:
    return console.ran("systemctl", "is-enabled", SERVICE).stdout.strip()


def test_unconfigured_it_does_not_start_and_the_units_status_says_why(boot: Boot):
    nothing = {"miglet_config": None, "miglet_controller_token": None}
    _, machine = boot("base", **nothing)
    install(machine.console, BOTH)
    assert enabled(machine.console) == "enabled"
    assert machine.shown("ActiveState") == "inactive"
    assert machine.console.ran("systemctl", "start", "miglet").returncode != 0
    assert machine.shown("ExecMainStatus") == "78"
    assert (machine.shown("ActiveState"), machine.shown("NRestarts")) == ("failed", "0")
    said = machine.console.ran("systemctl", "status", "--full", "miglet").stdout
    for key in ("pool_id", "org_id", "controller.endpoint"):
        assert f"miglet: {key} (not set): is required" in said


def test_baked_on_a_machine_that_runs_it_waits_for_its_start(boot: Boot):
    _, machine = boot("base")
    machine.console.done("sh", f"{CHECKOUT}/tests/image/bake")
    assert machine.shown("ActiveState") == "inactive" and not machine.status()
    machine.console.done("systemctl", "start", "miglet")
    machine.in_a_job()
    machine.ends_well()


def test_what_the_administrator_disabled_stays_so_over_an_upgrade(boot: Boot):
    _, machine = boot("base")
    install(machine.console, BOTH)
    machine.console.done("systemctl", "disable", SERVICE)
    install(machine.console, NEWER)
    assert machine.console.done("miglet", "--version").strip().endswith("+next")
    assert (enabled(machine.console), machine.shown("ActiveState")) == (
        "disabled",
        "inactive",
    )


def test_removed_it_leaves_configuration_and_state_and_purged_it_leaves_nothing(
    boot: Boot,
):
    _, machine = boot("golden", "base")
    machine.in_a_job()
    machine.ends_well()
    machine.console.done("rm", "-r", f"/etc/systemd/system/{SERVICE}.d")
    install(machine.console, BOTH)
    removal = f"{CHECKOUT}/debian/tests/removal {BOTH}"
    said = machine.console.done("sh", "-c", removal)
    assert "* removed, configuration and state stay" in said
    assert "* purged, nothing stays" in said
