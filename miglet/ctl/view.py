"""What ``miglet-ctl`` shows: answers of the agent as lines for people.

The rule that holds here: answers carry untrusted text, a job's name above all,
so every text passes `clean`, and what is missing is shown as ``-``, never a crash.
Only the standard library is imported: this is part of how fast ``miglet-ctl`` is.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    #: The answer to `status`.
    Status = dict[str, Any]

#: Sentences are wrapped to what any terminal has.
WIDTH = 79

#: What moves a cursor, sounds a bell or reorders text: C0, DEL, C1, and the
#: bidirectional controls of Unicode.
HARMFUL = (*range(32), *range(127, 160), 0x200E, 0x200F, *range(0x202A, 0x202F))
HARMLESS = dict.fromkeys((*HARMFUL, *range(0x2066, 0x206A)), "?") | {9: " ", 10: " "}


def clean(value: Any) -> str:
    """`value` as text that cannot harm a terminal; ``-`` when there is none."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{clean(key)}={clean(value[key])}" for key in value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(clean, value)) or "-"
    text = str(value).encode("utf-8", "replace").decode()
    return text.translate(HARMLESS)


def section(status: Status, name: str) -> dict[str, Any]:
    """The object called `name` in `status`; empty when it is missing or null."""
    found = status.get(name)
    return found if isinstance(found, dict) else {}


def number(value: Any) -> float:
    """`value` if it is a number, else 0."""
    return value if isinstance(value, (int, float)) else 0


def duration(seconds: Any) -> str:
    """Seconds as people say them: ``4.2 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if not isinstance(seconds, (int, float)):
        return "-"
    if isinstance(seconds, float) and not math.isfinite(seconds):
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def size(count: Any) -> str:
    """Bytes as people say them: ``1.5 GiB``."""
    if not isinstance(count, (int, float)):
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def moment(at: Any) -> str:
    """An RFC 3339 time, shorter: ``2026-01-15 10:30:00 UTC``."""
    text = clean(at)
    if len(text) > 19 and text[10] == "T" and text.endswith("Z"):
        return f"{text[:10]} {text[11:19]} UTC"
    return text


def table(rows: Iterable[Sequence[Any]]) -> list[str]:
    """Rows in columns as wide as their widest cell."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]


def fit(line: str, width: int) -> str:
    """`line`, cut to `width` columns; 0: as it is."""
    return line if not width or len(line) <= width else line[: width - 1] + "…"


def wrapped(line: str, indent: int) -> list[str]:
    """`line` in lines of at most WIDTH columns, all but the first one indented."""
    return textwrap.wrap(line, WIDTH, subsequent_indent=" " * indent)


def status_lines(status: Status) -> list[str]:
    """The whole of ``miglet-ctl status``."""
    rows = [
        ("state", state_of(status)),
        ("machine", machine_of(status)),
        ("controller", controller_of(section(status, "controller"))),
        ("runner", runner_of(section(status, "runner"))),
        ("job", job_of(section(status, "job"))),
        ("events", events_of(section(status, "events"))),
        ("boot", boot_of(section(status, "timeline"))),
        ("last error", status.get("last_error") or "none"),
        ("log level", status.get("log_level")),
    ]
    up = duration(status.get("uptime_seconds"))
    version, pid = clean(status.get("version")), clean(status.get("pid"))
    title = f"MIGlet {version}, pid {pid}, up {up}"
    lines = [part for line in table(rows) for part in wrapped(line, 12)]
    return [title, *lines, "", *worker_lines(section(status, "workers"))]


def state_of(status: Status) -> str:
    """The state, since when, and in capitals if not all is well."""
    text = f"{clean(status.get('state'))} since {moment(status.get('since'))}"
    return f"{text}, DEGRADED" if status.get("degraded") else text


def machine_of(status: Status) -> str:
    """Who the machine is."""
    vm, pool, org = (clean(status.get(name)) for name in ("vm_id", "pool_id", "org_id"))
    return f"{vm} in pool {pool} of {org}"


def boot_of(timeline: Status) -> str:
    """How long after the kernel MIGlet was started, and each step after that."""
    known = {name: ms for name, ms in timeline.items() if isinstance(ms, (int, float))}
    if "miglet" not in known:
        return "-"
    began = known["miglet"]
    steps = [
        f"{clean(name)} +{duration((ms - began) / 1000)}"
        for name, ms in known.items()
        if name not in ("kernel", "miglet")
    ]
    return ", ".join([f"{duration(began / 1000)} after the kernel", *steps])


def controller_of(controller: Status) -> str:
    """Whether the controller answers."""
    reachable = controller.get("reachable")
    heard = duration(controller.get("last_contact_seconds"))
    text = "reachable" if reachable else "UNREACHABLE"
    if heard != "-":
        text += f", last contact {heard} ago"
    return text if reachable else f"{text}: {clean(controller.get('last_error'))}"


def runner_of(runner: Status) -> str:
    """The runner's state and what to look for in the list of processes."""
    if not runner:
        return "none"
    where = runner.get("unit") or f"pid {clean(runner.get('pid'))}"
    text = f"{clean(runner.get('state'))}, {clean(runner.get('name'))}, {where}"
    text += f", version {clean(runner.get('version'))}"
    return f"{text}, adopted" if runner.get("adopted") else text


def job_of(job: Status) -> str:
    """The job, the way GitHub's pages name it."""
    if not job:
        return "none"
    text = f"{clean(job.get('name'))} of {clean(job.get('repository'))}"
    text += f" (run {clean(job.get('run_id'))}, job {clean(job.get('job_id'))})"
    return f"{text} for {duration(job.get('elapsed_seconds'))}"


def events_of(events: Status) -> str:
    """How many events are where."""
    names = ("pending", "delivered", "rejected", "dropped")
    return ", ".join(f"{clean(events.get(name))} {name}" for name in names)


def worker_lines(workers: Status) -> list[str]:
    """A line a worker."""
    rows: list[Sequence[Any]] = [("worker", "pid", "health", "restarts", "last seen")]
    for name in workers:
        worker = section(workers, name)
        health = "healthy" if worker.get("healthy") else "UNHEALTHY"
        seen = duration(worker.get("last_seen_seconds"))
        seen = seen if seen == "-" else f"{seen} ago"
        rows.append((name, worker.get("pid"), health, worker.get("restarts"), seen))
    return table(rows)


def change_line(clock: str, change: Status) -> str:
    """What has changed, in a line that begins with the time of day."""
    state = clean(change.get("state"))
    rest = {name: change[name] for name in change if name != "state"}
    return f"{clock}  {state}  {clean(rest) if rest else ''}".rstrip()


def rows_of(items: list[Any], names: Sequence[str]) -> list[str]:
    """A table of those fields of each item, under their names."""
    found = [item for item in items if isinstance(item, dict)]
    rows = [[item.get(name) for name in names] for item in found]
    return table([names, *rows])


def measure_lines(sample: Status) -> list[str]:
    """A line a measure, in units that people read."""
    return table((name, measured(name, value)) for name, value in flat(sample))


def flat(tree: Status, prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of `tree`, by dotted name."""
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, dict):
            found += flat(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, value))
    return found


def measured(name: str, value: Any) -> str:
    """`value` in the unit that the end of `name` tells."""
    if name.endswith("_bytes"):
        return size(value)
    if name.endswith("_seconds"):
        return duration(value)
    if name.endswith("_percent"):
        return f"{clean(value)} %"
    return clean(value)


#: Events that wait longer than a moment come in such numbers.
MANY_EVENTS = 100

#: A start that takes more seconds than this is stuck.
SLOW_START_SECONDS = 120

STARTING = ("initializing", "waiting_for_controller", "registering_runner")


def plural(count: Any, noun: str) -> str:
    """``1 event``, ``2 events``."""
    return f"{clean(count)} {noun}" + ("" if count == 1 else "s")


def problems(status: Status) -> list[str]:
    """What is wrong, a sentence or two each, with what to do about it."""
    found = [
        *state_problems(status),
        *worker_problems(section(status, "workers")),
        *controller_problems(section(status, "controller")),
        *event_problems(section(status, "events")),
    ]
    if status.get("degraded") and not found:
        error = clean(status.get("last_error"))
        found.append(f"MIGlet runs degraded. The last error was: {error}.")
    return found


def state_problems(status: Status) -> list[str]:
    """What is wrong with the way of the machine."""
    state, error = status.get("state"), clean(status.get("last_error"))
    uptime = number(status.get("uptime_seconds"))
    if state == "error":
        return [
            f"MIGlet has given up: {error}. The machine will take no job; fix the "
            "cause in the image or the configuration and start a new machine."
        ]
    if state in STARTING and uptime > SLOW_START_SECONDS:
        return [
            f"MIGlet is {clean(state)} after {duration(uptime)} (last error: {error}). "
            "See the controller's log, and `miglet check` for what the machine lacks."
        ]
    if state == "idle" and not section(status, "runner"):
        return ["MIGlet is idle without a runner. See `miglet-ctl runner-log`."]
    return []


def worker_problems(workers: Status) -> list[str]:
    """Which workers are not well."""
    return [
        f"The worker {clean(name)} is not healthy after "
        f"{plural(section(workers, name).get('restarts'), 'restart')}. It is started "
        "again by itself; `journalctl -u miglet` says why it ends."
        for name in workers
        if not section(workers, name).get("healthy")
    ]


def controller_problems(controller: Status) -> list[str]:
    """Whether the controller is out of reach, or keeps refusing something."""
    if controller.get("reachable"):
        if not controller.get("last_error"):
            return []
        return [f"A call to the controller fails: {clean(controller['last_error'])}."]
    heard = duration(controller.get("last_contact_seconds"))
    heard = "never heard" if heard == "-" else f"last heard {heard} ago"
    return [
        f"The controller is unreachable ({heard}): "
        f"{clean(controller.get('last_error'))}. Jobs go on and events are kept; check "
        "controller.endpoint, the network and the token (`miglet-ctl config`)."
    ]


def event_problems(events: Status) -> list[str]:
    """Whether events pile up or were lost."""
    found = []
    if number(events.get("rejected")):
        found.append(
            f"The controller rejected {plural(events.get('rejected'), 'event')}. "
            "`miglet-ctl events` shows which; its log says why."
        )
    if number(events.get("dropped")):
        found.append(
            f"{plural(events.get('dropped'), 'event')} had to be dropped, since the "
            "journal was full. Free disk space in paths.state."
        )
    if number(events.get("pending")) > MANY_EVENTS:
        found.append(
            f"{clean(events.get('pending'))} events wait for delivery. They leave as "
            "soon as the controller takes them."
        )
    return found
