"""What a line of the runner's own logs means, taken by itself.

Source: actions/runner, whose wording a release may change: what is not understood is
no sign.
"""

from __future__ import annotations

import re

from miglet.job import signs
from miglet.job.listener_output import STAMP, Maker, parse_line, wall_time
from miglet.job.signs import Sign, cut

_LINE = re.compile(rf"\[({STAMP}) (CRIT|ERR |WARN|INFO|VERB) ([^\]]+)\] (.*)")
_WRITTEN = re.compile(r"WRITE (?:LINE|ERROR): (.*)", re.DOTALL)
_NO_SPACE = "No space left on device"
_FAULTS = ("CRIT", "ERR ")


def _requested(at: float, source: str, _: re.Match[str]) -> Sign:
    return signs.JobRequested(at, source)


def _received(at: float, source: str, _: re.Match[str]) -> Sign:
    return signs.JobReceived(at, source)


def _skipped(at: float, source: str, match: re.Match[str]) -> Sign:
    return signs.JobSkipped(at, source, cut(match[0]))


def _worker_ended(at: float, source: str, match: re.Match[str]) -> Sign:
    return signs.WorkerEnded(at, source, int(match[1]))


def _result(at: float, source: str, match: re.Match[str]) -> Sign:
    return signs.JobResult(at, source, match[1])


def _shutdown(at: float, source: str, _: re.Match[str]) -> Sign:
    return signs.ShutdownSignalled(at, source)


def _worker_shutdown(at: float, source: str, _: re.Match[str]) -> Sign:
    return signs.ShutdownReceived(at, source)


def _revoked(at: float, source: str, _: re.Match[str]) -> Sign:
    return signs.OAuthRevoked(at, source)


def _cancelled(at: float, source: str, _: re.Match[str]) -> Sign:
    return signs.CancelReceived(at, source)


def _steps(at: float, source: str, _: re.Match[str]) -> Sign:
    return signs.StepsBegan(at, source)


def _version(at: float, source: str, match: re.Match[str]) -> Sign:
    return signs.RunnerVersion(at, source, cut(match[1]))


def _table(*rows: tuple[str, Maker]) -> list[tuple[re.Pattern[str], Maker]]:
    return [(re.compile(pattern, re.DOTALL), make) for pattern, make in rows]


_RESULT = "|".join(signs.RESULTS)
#: Which lines mean something in which log (actions/runner Listener/JobDispatcher.cs,
#: Listener/Runner.cs, Worker/Worker.cs, Worker/StepsRunner.cs).
_MEANINGS = {
    "runner_log": _table(
        (r"Version: (\d[\w.+-]*)$", _version),
        (r"Acknowledging runner request '", _requested),
        (r"Job request \S+ for plan \S+ job \S+ received\.", _requested),
        (r"Skipping message Job\..*", _skipped),
        (r"Worker finished for job \S+\. Code: (-?\d{1,9})\b", _worker_ended),
        (rf"finish job request for job \S+ with result: ({_RESULT})\b", _result),
        (r"Runner will be shutdown for \w+", _shutdown),
        (r"Runner OAuth token has been revoked", _revoked),
    ),
    "worker_log": _table(
        (r"Message received\.", _received),
        (r"Runner will be shutdown for \w+", _worker_shutdown),
        (r"Processing step: DisplayName=", _steps),
        (r"Cancellation/Shutdown message received", _cancelled),
        (rf"Job result after all job steps finish: ({_RESULT})\b", _result),
    ),
}


def parse_log_line(text: str, seen: float, source: str) -> Sign | None:
    """What a line of the Listener's or the Worker's log says, or None."""
    match = _LINE.match(text)
    if not match:
        # The further lines of an exception, or of a name that contains newlines.
        return (
            signs.DiskFull(seen, source)
            if _NO_SPACE in text
            else _printed(text, seen, source)
        )
    stamp, level, component, said = match.groups()
    at = wall_time(stamp) or seen
    if _NO_SPACE in said and level in _FAULTS:
        return signs.DiskFull(at, source)
    written = _WRITTEN.match(said) if component == "Terminal" else None
    if written:
        return parse_line(written[1], at, source)
    for pattern, make in _MEANINGS[source]:
        meaning = pattern.match(said)
        if meaning:
            return make(at, source, meaning)
    return None


def _printed(text: str, seen: float, source: str) -> Sign | None:
    """The last line of a result that was printed for a name of several lines."""
    sign = parse_line(text, seen, source) if source == "runner_log" else None
    return sign if isinstance(sign, signs.JobResult) else None
