"""What ``miglet-ctl doctor`` has to say: what is wrong, and what to do about it.

The rule that holds here: a complaint is made of whole sentences that name the next
step, so that nobody has to know MIGlet to act on it at three in the morning.
"""

from __future__ import annotations

from typing import Any

from miglet.ctl.view import Status, clean, duration, number, section

#: Events that wait longer than a moment come in such numbers.
MANY_EVENTS = 100

#: A start that takes more seconds than this is stuck.
SLOW_START_SECONDS = 120

STARTING = ("initializing", "waiting_for_controller", "registering_runner")


def plural(count: Any, noun: str) -> str:
    """``1 event``, ``2 events``."""
    return f"{clean(count)} {noun}" + ("" if count == 1 else "s")


def complaints(status: Status) -> list[str]:
    """What is wrong, a sentence or two each, with what to do about it."""
    found = [
        *state_complaints(status),
        *worker_complaints(section(status, "workers")),
        *controller_complaints(section(status, "controller")),
        *event_complaints(section(status, "events")),
    ]
    if status.get("degraded") and not found:
        error = clean(status.get("last_error"))
        found.append(f"MIGlet runs degraded. The last error was: {error}.")
    return found


def state_complaints(status: Status) -> list[str]:
    """What is wrong with the way of the machine."""
    state, error = status.get("state"), clean(status.get("last_error"))
    uptime = number(status.get("uptime_seconds"))
    if state == "error":
        return [
            f"MIGlet has given up: {error}. The machine will take no job; mend the "
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


def worker_complaints(workers: Status) -> list[str]:
    """Which workers are not well."""
    return [
        f"The worker {clean(name)} is not healthy after "
        f"{plural(section(workers, name).get('restarts'), 'restart')}. It is started "
        "again by itself; `journalctl -u miglet` says why it ends."
        for name in workers
        if not section(workers, name).get("healthy")
    ]


def controller_complaints(controller: Status) -> list[str]:
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


def event_complaints(events: Status) -> list[str]:
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
