"""Signs, and evidence made of them."""

from dataclasses import fields

from hypothesis import strategies as st

from miglet.job import signs
from miglet.job.evidence import Evidence
from miglet.job.signs import KINDS, RESULTS, SOURCES
from miglet.job.verdict import (
    RunnerExit,
)
from miglet.messages.events import JobIdentity

AT = 1_800_000_000.0


def listening():
    return signs.Listening(AT, "output", "2.336.0")


def running():
    return signs.JobRunning(AT + 1, "output", "build")


def evidence(*seen, hooks_expected=True):
    found = Evidence(hooks_expected=hooks_expected)
    for sign in (listening(), *seen):
        found = found.add(sign)
    return found


def exited(code=0, **more):
    return RunnerExit(exit_code=code, known=True, **more)


IDENTITIES = st.builds(
    signs.identity_of,
    st.dictionaries(
        st.sampled_from([field.name for field in fields(JobIdentity)]),
        st.integers() | st.text(max_size=800) | st.sampled_from(["1", "22"]),
    ),
)


VALUES = {
    "at": st.floats(0, 2e9),
    "source": st.sampled_from(SOURCES),
    "name": st.text(max_size=20),
    "text": st.text(max_size=20),
    "version": st.text(max_size=20),
    "result": st.sampled_from(RESULTS),
    "code": st.sampled_from([0, 1, 99, *range(100, 107), 134, 137, 139]),
    "identity": IDENTITIES,
}


SIGNS = st.sampled_from(sorted(KINDS)).flatmap(
    lambda kind: st.builds(
        KINDS[kind], **{field.name: VALUES[field.name] for field in fields(KINDS[kind])}
    )
)


HISTORIES = st.lists(SIGNS, max_size=12)


def of(history, hooks_expected=True):
    found = Evidence(hooks_expected=hooks_expected)
    for sign in history:
        found = found.add(sign)
    return found
