"""Whether a Listener's end was in order, and if not, what the next step is; pure.

How often the next step is taken is the caller's to limit: the runner itself sets no
limit to anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from miglet.job import signs
from miglet.job.ending import Ending
from miglet.job.evidence import Evidence
from miglet.job.verdict import Case, verdict

#: The next step: start the Listener again with the registration it has, register
#: anew with a fresh token, or neither, because it cannot help.
RELAUNCH, REREGISTER, GIVE_UP = "relaunch", "reregister", "give_up"


@dataclass(frozen=True)
class Crash:
    """A Listener's end that was not in order."""

    #: What it was, e.g. `version_deprecated`; see CRASHES.
    kind: str
    next_step: str
    #: Whether something broke (a `RunnerCrashed` event is due), or merely ended.
    abnormal: bool
    #: One sentence for people.
    reason: str


class Kind(NamedTuple):
    """If `applies`, the Listener's end was of this kind."""

    kind: str
    next_step: str
    abnormal: bool
    applies: Callable[[Case], object]


def _saw(*kinds: type[signs.Sign]) -> Callable[[Case], bool]:
    return lambda case: any(case.evidence.saw(kind) for kind in kinds)


def _exited(*codes: int) -> Callable[[Case], bool]:
    return lambda case: case.ending.exit_code in codes


def _lost_job(case: Case) -> bool:
    return case.job_seen and not case.reported


#: The first that applies decides (actions/runner Constants.cs, Runner.cs). After a
#: job's loss the registration is spent. A session conflict, a network that is down and
#: a deprecated version, which services have claimed by mistake, may pass with time.
CRASHES = [
    Kind("worker_crash", REREGISTER, True, lambda c: c.worker_crashed),
    Kind("ghost", REREGISTER, False, lambda c: c.ghost),
    Kind(
        "version_deprecated",
        RELAUNCH,
        False,
        lambda c: c.evidence.saw(signs.VersionDeprecated) or c.ending.exit_code == 7,
    ),
    Kind("runner_crash", REREGISTER, True, _lost_job),
    Kind(
        "registration_gone",
        REREGISTER,
        False,
        _saw(signs.RegistrationGone, signs.OAuthRevoked, signs.RegistrationRemoved),
    ),
    Kind("not_configured", REREGISTER, False, _saw(signs.NotConfigured)),
    Kind("session_conflict", RELAUNCH, False, _exited(5)),
    Kind("retryable", RELAUNCH, True, _exited(2)),
    Kind("updating", RELAUNCH, False, _exited(3, 4)),
    Kind("not_executable", GIVE_UP, True, _exited(126, 127)),
    # Revoked credentials and a removed registration may end it without a word.
    Kind("ended_without_job", REREGISTER, False, _exited(0)),
    Kind("terminated", REREGISTER, True, _exited(1)),
    Kind("runner_crash", RELAUNCH, True, lambda c: True),
]


def crash(ending: Ending, evidence: Evidence) -> Crash | None:
    """What was wrong with the Listener's end; None: nothing.

    In order are a job whose result was told, and an end that we asked for.
    """
    case = Case(evidence, ending)
    if ending.stopped_by or (case.reported and not case.worker_crashed):
        return None
    kind = next(kind for kind in CRASHES if kind.applies(case))
    return Crash(kind.kind, kind.next_step, kind.abnormal, _reason(case))


def _reason(case: Case) -> str:
    return "; ".join(verdict(case.evidence, case.ending).reasons)
