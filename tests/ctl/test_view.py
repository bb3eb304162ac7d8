"""What miglet-ctl prints: for people, and never a control character."""

from __future__ import annotations

import copy

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from miglet.ctl import view
from tests.ctl.agent import STATUS

pytestmark = pytest.mark.integration


def test_the_boot_is_distinguished_from_the_start_of_miglet():
    (line,) = [each for each in view.status_lines(STATUS) if each.startswith("boot")]
    assert line.split(maxsplit=1)[1] == "7 h 12 min after the kernel, idle +0.4 s"


def test_what_is_wrong_is_in_capitals():
    ill = copy.deepcopy(STATUS)
    ill["degraded"] = True
    ill["workers"]["runner-watcher"]["healthy"] = False
    ill["controller"] = {"reachable": False, "last_error": "refused"}
    text = "\n".join(view.status_lines(ill))
    assert "DEGRADED" in text and "UNHEALTHY" in text and "UNREACHABLE: refused" in text


ILLS = {
    "given up": {"state": "error", "last_error": "token refused"},
    "waiting_for_controller after": {"state": "waiting_for_controller"},
    "idle without a runner": {"state": "idle", "runner": None},
    "runner-watcher is not healthy": {"workers": {"runner-watcher": {"restarts": 7}}},
    "unreachable (last heard 2 min 0 s ago)": {
        "controller": {"reachable": False, "last_contact_seconds": 120}
    },
    "unreachable (never heard)": {"controller": {"reachable": False}},
    "call to the controller fails: GET commands: 500": {
        "controller": {"reachable": True, "last_error": "GET commands: 500"}
    },
    "rejected 1 event.": {"events": {"rejected": 1}},
    "2 events had to be dropped": {"events": {"dropped": 2}},
    "500 events wait": {"events": {"pending": 500}},
    "runs degraded": {"degraded": True},
}


@pytest.mark.parametrize("expected", ILLS)
def test_the_doctor_finds_it(expected):
    [problem] = view.problems({**STATUS, **ILLS[expected]})
    assert expected in problem
    assert problem.endswith(".") and "  " not in problem


def test_the_doctor_finds_nothing_wrong_with_the_well():
    assert view.problems(STATUS) == []


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*STATUS, *STATUS["job"], "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@example({"state": {"uptime_seconds": float("inf")}})
@given(st.dictionaries(st.sampled_from(list(STATUS)), ANYTHING))
def test_any_status_can_be_shown(status):
    for line in [*view.status_lines(status), *view.problems(status)]:
        assert line.isprintable() or view.clean(line) == line
    view.change_line("12:00:00", status)
    view.measure_lines(status)


@pytest.mark.parametrize(
    "seconds, said",
    [
        (0.42, "0.4 s"),
        (42.4, "42 s"),
        (61, "1 min 1 s"),
        (3600, "1 h 0 min"),
        (90 * 3600, "3 d 18 h"),
        (None, "-"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert view.duration(seconds) == said


def test_sizes_are_said_as_people_say_them():
    counts = (0, 1023, 1536, 5 * 2**40, None)
    assert list(map(view.size, counts)) == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 TiB",
        "-",
    ]
