"""One invocation of a transient unit, distinguished from all others of its name."""

from __future__ import annotations

import pytest

from miglet.runner.unit import Unit, unit_wanted


def test_a_unit_is_present_in_one_invocation_only(tmp_path):
    unit = Unit("u.service", "f00", None)
    assert not unit.present(str(tmp_path))
    link = tmp_path / "invocation:u.service"
    link.symlink_to("f00")
    assert unit.present(str(tmp_path))
    link.unlink()
    link.symlink_to("ba5")
    assert not unit.present(str(tmp_path))


@pytest.mark.parametrize(
    ("isolation", "usable", "wanted"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("process", True, False),
        ("systemd", True, True),
    ],
)
def test_a_unit_is_chosen_where_there_can_be_one(isolation, usable, wanted):
    assert unit_wanted(isolation, usable) is wanted
