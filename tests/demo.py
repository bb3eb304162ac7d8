"""``make demo``: one machine's life, for real and in plain sight.

The reference controller, the agent and the runner double run as they would anywhere;
this only orders, watches and prints one line for each event that arrives.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.agent_process import Agent, configured, ended
from tests.reference_process import ReferenceController, running_controller
from tests.runner_double import Double, install

VM = "vm-1"

#: Seconds after which the demonstration has failed, whatever it is doing.
LIMIT = 40.0

#: What the runner plays, one entry for each start of its listener.
PLAN: dict[str, Any] = {
    "scale": 0.02,
    "listener": [
        {"scenario": "job", "result": "Succeeded", "name": "build", "seconds": 1.0},
        {"scenario": "job", "result": "Failed", "name": "test", "seconds": 0.6},
        {"scenario": "job", "name": "deploy", "seconds": 60},
        {"scenario": "idle"},
    ],
}

#: Every event that must arrive, and how often.
EXPECTED = {
    "VMStarted": 1,
    "RunnerRegistered": 4,
    "JobStarted": 3,
    "JobCompleted": 3,
    "RunnerCrashed": 1,
    "CommandCompleted": 1,
    "VMShuttingDown": 1,
}

RESULTS = ["succeeded/success", "failed/failure", "unknown/runner_crash"]


def main() -> int:
    """Play it; 0 only if everything arrived."""
    with tempfile.TemporaryDirectory(prefix="miglet-demo-") as name:
        folder = Path(name)
        with running_controller(folder) as controller:
            double = install(folder / "runner", PLAN)
            agent = configured(
                folder / "agent",
                controller.endpoint,
                controller.token_path,
                folder / "runner",
                runner={"after_job": "register"},
                logging={"level": "info"},
            )
            try:
                with ended(agent):
                    return play(controller, agent, double)
            finally:
                double.kill()


def play(controller: ReferenceController, agent: Agent, double: Double) -> int:
    """The machine's life from boot to end."""
    say("controller", f"listens on {controller.endpoint}")
    agent.start()
    say("agent", f"miglet started, pid {agent.pid}; its log: {agent.log_path.name}")
    seen = [event for event in followed(controller, agent, double) if event]
    status = agent.wait(10)
    say("agent", f"miglet ended with exit status {status}")
    return closing(seen, controller, status)


def followed(
    controller: ReferenceController, agent: Agent, double: Double
) -> Iterator[dict[str, Any]]:
    """Each event as it arrives; orders what belongs to it."""
    deadline = time.monotonic() + LIMIT - 8
    after, registered = 0, 0
    while time.monotonic() < deadline:
        for event in news(controller, after):
            after = event["position"]
            show(event)
            yield event
            if event["type"] == "JobStarted" and event["data"]["name"] == "deploy":
                kill_listener(agent)
            registered += event["type"] == "RunnerRegistered"
            if event["type"] == "RunnerRegistered" and registered == 4:
                controller.command(VM, "Drain", {})
                say("controller", "orders: Drain")
            if event["type"] == "VMShuttingDown":
                return
    say("demo", "out of time")


def news(controller: ReferenceController, after: int) -> list[dict[str, Any]]:
    """The events after a position; waits a little for one."""
    if not controller.knows(VM):
        time.sleep(0.05)
        return []
    rows = controller.ask(f"vms/{VM}/events", after=after, wait=1)["events"]
    return [{**row["event"], "position": row["position"]} for row in rows]


def kill_listener(agent: Agent) -> None:
    """What the kernel does to a runner when memory runs out."""
    pid = agent.status()["runner"]["pid"]
    os.kill(pid, signal.SIGKILL)
    say(
        "kernel", f"SIGKILL to the runner's listener, pid {pid}, in the middle of a job"
    )


def say(who: str, text: str) -> None:
    """One line."""
    print(f"{time.strftime('%H:%M:%S')}  {who:<10}  {text}", flush=True)


def show(event: dict[str, Any]) -> None:
    """One event in one line."""
    wanted = DETAILS.get(event["type"], ())
    details = [f"{key}={event['data'].get(key)}" for key in wanted]
    number = event["sequence"] or "-"
    text = f"#{number:<3} {event['type']:<17} {' '.join(details)}"
    say("event", text.rstrip())


DETAILS = {
    "VMStarted": ("version", "runner_version", "cpu_count"),
    "RunnerRegistered": ("runner_name", "runner_id", "attempts"),
    "JobStarted": ("name", "repository", "source"),
    "JobCompleted": ("result", "cause", "exit_code", "duration_seconds"),
    "JobHeartbeat": ("name", "elapsed_seconds"),
    "RunnerCrashed": ("exit_code", "signal", "will_retry"),
    "CommandCompleted": ("command_type", "outcome"),
    "VMShuttingDown": ("reason", "requested_by"),
    "Error": ("category", "code", "message"),
}


def closing(
    seen: list[dict[str, Any]], controller: ReferenceController, status: int
) -> int:
    """The table of what was delivered; 0 if it is what was expected."""
    seen = [event for event in seen if event["sequence"]]
    counts = Counter(event["type"] for event in seen)
    print(f"\n{'event':<18}{'expected':>9}{'delivered':>11}")
    for name in EXPECTED:
        print(f"{name:<18}{EXPECTED[name]:>9}{counts[name]:>11}")
    results = [
        f"{event['data']['result']}/{event['data']['cause']}"
        for event in seen
        if event["type"] == "JobCompleted"
    ]
    sequences = [event["sequence"] for event in seen]
    gapless = sequences == list(range(1, len(seen) + 1))
    beats = len(controller.heartbeats(VM))
    print(f"\njob results      {', '.join(results)}")
    print(f"sequence         1 to {len(seen)}, {'no gap' if gapless else 'WITH GAPS'}")
    print(f"heartbeats       {beats}")
    print(f"exit status      {status}")
    good = (
        counts == EXPECTED and results == RESULTS and gapless and beats and not status
    )
    print("\nEverything arrived." if good else "\nNOT what was expected.")
    return 0 if good else 1


if __name__ == "__main__":
    # Also when the shell that started us had it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    alarm = threading.Timer(LIMIT, lambda: os.kill(os.getpid(), signal.SIGINT))
    alarm.daemon = True
    alarm.start()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing is left running")
