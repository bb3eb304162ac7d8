"""``make demo``: one machine from boot to shutdown, with real processes.

The reference controller, the agent and the double of the runner are started as they
would be elsewhere; the double takes the times of the official runner. This module
starts them, kills some of them, and prints each event that arrives in one line.
``make demo-shell`` leaves all of them running.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests import demo_shell
from tests.agent_process import Agent, configured, ended
from tests.reference_process import ReferenceController, running_controller
from tests.runner_double.double import Double, install
from tests.terminal import Terminal

VM = "vm-1"
Event = dict[str, Any]

#: Seconds after which the demonstration has failed, whatever it is doing.
LIMIT = 120.0

#: What the runner does, one entry for each start of its listener.
PLAN: dict[str, Any] = {
    "listener": [
        {"scenario": "job", "result": "Succeeded", "name": "build", "seconds": 1.0},
        {"scenario": "job", "result": "Failed", "name": "test", "seconds": 0.6},
        {"scenario": "job", "name": "deploy", "seconds": 6.0},
        {"scenario": "job", "name": "publish", "seconds": 4.0},
        {"scenario": "job", "name": "release", "seconds": 60.0},
        {"scenario": "idle"},
    ],
}

#: Every event that must arrive, and how often.
EXPECTED = {
    "VMStarted": 1,
    "RunnerRegistered": 6,
    "JobStarted": 5,
    "JobCompleted": 5,
    "RunnerCrashed": 2,
    "CommandCompleted": 1,
    "VMShuttingDown": 1,
    "VMStopped": 1,
    "Error": 1,  # that MIGlet was started again
}
RESULTS = {
    "build": "succeeded/success",
    "test": "failed/failure",
    "deploy": "succeeded/success",
    "publish": "succeeded/success",
    "release": "failed/worker_crash",
}

#: What comes next after an event, in words.
NEXT = {
    "": "miglet checks the machine and announces it",
    "VMStarted": "config.sh registers the runner",
    "RunnerRegistered": "the runner gets a job",
    "JobStarted": "the job runs",
    "JobCompleted": "config.sh registers the runner for the next job",
    "CommandCompleted": "the machine ends in order",
    "VMShuttingDown": "the runner is stopped and deregistered",
}
STYLES = {
    "VMStarted": "blue",
    "RunnerRegistered": "cyan",
    "JobStarted": "yellow",
    "JobHeartbeat": "dim",
    "RunnerCrashed": "red",
    "Error": "red",
    "VMShuttingDown": "blue",
    "VMStopped": "blue",
}
DETAILS = {
    "VMStarted": ("version", "runner_version", "cpu_count"),
    "RunnerRegistered": ("runner_name", "runner_id", "attempts"),
    "JobStarted": ("name", "repository", "source"),
    "JobCompleted": ("result", "cause", "exit_code", "duration_seconds"),
    "JobHeartbeat": ("name", "elapsed_seconds", "status"),
    "RunnerCrashed": ("exit_code", "signal", "will_retry"),
    "CommandCompleted": ("command_type", "outcome"),
    "VMShuttingDown": ("reason", "requested_by"),
    "VMStopped": ("reason", "removal"),
    "Error": ("category", "code", "message"),
}

TRY_NEXT = (
    ("make demo-shell", "the same machine, idle, with miglet-ctl for you"),
    ("make quick", "the unit tests alone"),
    ("make bench", "what it costs, and how fast it is"),
    ("README.rst", "from the .deb in an image to a first job"),
)


def main(words: list[str]) -> int:
    """Run it; 0 only if everything arrived."""
    terminal = Terminal()
    if words == ["shell"]:
        return shell(terminal)
    with machine(PLAN) as (controller, agent, double):
        return Demonstration(terminal, controller, agent, double).run()


@contextmanager
def machine(
    plan: dict[str, Any],
) -> Iterator[tuple[ReferenceController, Agent, Double]]:
    """Controller, agent and runner in a temporary folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="miglet-demo-") as name:
        folder = Path(name)
        with running_controller(folder) as controller:
            double = install(folder / "runner", plan)
            agent = configured(
                folder / "agent",
                controller.endpoint,
                controller.token_path,
                folder / "runner",
                runner={"after_job": "register", "ghost_timeout": "20s"},
                heartbeat={"interval": "2s"},
                logging={"level": "info"},
            )
            try:
                with ended(agent):
                    yield controller, agent, double
            finally:
                double.kill()


def shell(terminal: Terminal) -> int:
    """``make demo-shell``: an idle machine, and a shell to work with it."""
    with machine({"listener": {"scenario": "idle"}}) as (controller, agent, double):
        agent.start()
        terminal.say("agent", f"miglet started, pid {agent.pid}")
        what = "miglet registers the runner"
        if not terminal.until(lambda: agent.state() == "idle", what, LIMIT):
            terminal.line(agent.log())
            return 1
        demo_shell.run(terminal, controller, agent, double)
        return 0


@dataclass(frozen=True)
class Proof:
    """A sentence of the summary, and whether it is true of what arrived."""

    sentence: str
    holds: Callable[[], bool]


class Demonstration:
    """One machine from boot to shutdown."""

    def __init__(
        self,
        terminal: Terminal,
        controller: ReferenceController,
        agent: Agent,
        double: Double,
    ) -> None:
        self._terminal = terminal
        self._controller = controller
        self._agent = agent
        self._double = double
        self._seen: list[Event] = []
        self._last = ""
        self._status = -1

    def run(self) -> int:
        """From the start to the summary; the exit status."""
        self._say("controller", f"listens on {self._controller.endpoint}")
        self._agent.start()
        self._say("agent", f"miglet started, pid {self._agent.pid}")
        self._follow()
        self._status = self._agent.wait(20)
        self._say("agent", f"miglet ended with exit status {self._status}")
        return self._summarize()

    def _follow(self) -> None:
        """Show each event as it arrives; do what is to be done after it."""
        deadline = time.monotonic() + LIMIT - 20
        known = self._terminal.until(
            lambda: self._controller.knows(VM), NEXT[""], LIMIT - 20
        )
        after = 0
        while known and time.monotonic() < deadline:
            for event in self._news(after):
                after = event["position"]
                self._show(event)
                if event["sequence"]:
                    self._seen.append(event)
                    self._last = next_of(event["type"], self._last)
                self._react(event)
            if not self._agent.alive() and not self._news(after):
                return
            self._terminal.waiting(NEXT[self._last])
        self._say("demo", "out of time", "red")

    def _news(self, after: int) -> list[Event]:
        """The events after a position; waits a little for one."""
        path = f"vms/{VM}/events"
        rows = self._controller.ask(path, after=after, wait=0.5)["events"]
        return [{**row["event"], "position": row["position"]} for row in rows]

    def _react(self, event: Event) -> None:
        """Kill what is to be killed during a job; send the command at the end."""
        name = event["data"].get("name")
        if event["type"] == "JobStarted" and name == "deploy":
            self._kill_miglet()
        if event["type"] == "JobStarted" and name == "publish":
            self._kill_runner_process("listener")
        if event["type"] == "JobStarted" and name == "release":
            self._kill_runner_process("worker")
        registered = self._count()["RunnerRegistered"]
        if event["type"] == "RunnerRegistered" and registered > len(RESULTS):
            self._controller.command(VM, "Drain", {})
            self._say("controller", "orders: Drain")

    def _kill_miglet(self) -> None:
        """What a bug or an operator can do; systemd would start it again as well."""
        before = self._agent.pid
        self._agent.kill()
        self._say(
            "kernel",
            f"SIGKILL to miglet itself, pid {before}, while the job runs",
            "red",
        )
        self._agent.start()
        self._say("agent", f"miglet started again, pid {self._agent.pid}")

    def _kill_runner_process(self, process: str) -> None:
        """What the kernel does to the runner when memory runs out."""
        pid = self._double.truth(f"{process}_start")[-1]["pid"]
        psutil.Process(pid).kill()
        self._say(
            "kernel",
            f"SIGKILL to the runner's {process}, pid {pid}, while the job runs",
            "red",
        )

    def _show(self, event: Event) -> None:
        """One event in one line; the boot's timeline once it is complete."""
        kind, data = event["type"], event["data"]
        known = {key: data.get(key) for key in DETAILS.get(kind, ())}
        details = [
            f"{key}={value}" for key, value in known.items() if value is not None
        ]
        number = event["sequence"] or "-"
        style = STYLES.get(kind, "green")
        if kind == "JobCompleted" and data["result"] != "succeeded":
            style = "red"
        text = f"#{number:<3} {self._terminal.styled(f'{kind:<17}', style)}"
        self._say("event", f"{text} {' '.join(details)}".rstrip())
        if kind == "RunnerRegistered" and not self._of(kind):
            self._say("boot", timeline(data["timeline"]), "blue")

    def _say(self, who: str, text: str, style: str = "dim") -> None:
        self._terminal.say(who, text, style)

    def _count(self) -> Counter[str]:
        return Counter(event["type"] for event in self._seen)

    def _of(self, kind: str) -> list[Event]:
        return [event for event in self._seen if event["type"] == kind]

    def _results(self) -> dict[str, str]:
        """The jobs by name, each with its result and cause."""
        names = [event["data"]["name"] for event in self._of("JobStarted")]
        outcomes = [
            f"{event['data']['result']}/{event['data']['cause']}"
            for event in self._of("JobCompleted")
        ]
        return dict(zip(names, outcomes, strict=False))

    def _proofs(self) -> list[Proof]:
        results = self._results()
        sequences = [event["sequence"] for event in self._seen]
        counts = self._count()
        beats = len(self._controller.heartbeats(VM))

        def held(job: str) -> Callable[[], bool]:
            return lambda: results.get(job) == RESULTS[job]

        return [
            Proof("a job that succeeds is reported as succeeded", held("build")),
            Proof("a job that fails is reported as failed", held("test")),
            Proof(
                "a job survives the death of MIGlet, and is reported", held("deploy")
            ),
            Proof("a job survives the death of its Listener", held("publish")),
            Proof(
                "a job whose Worker is killed is reported as worker_crash",
                held("release"),
            ),
            Proof(
                "every job was reported once, with its start and its end",
                lambda: counts["JobStarted"] == counts["JobCompleted"] == len(RESULTS),
            ),
            Proof(
                f"{len(sequences)} events arrived in order, without a gap",
                lambda: sequences == list(range(1, len(sequences) + 1)),
            ),
            Proof(f"{beats} heartbeats arrived", lambda: beats > 0),
            Proof(
                "the controller's Drain ended the machine in order, exit status 0",
                lambda: self._status == 0 and counts["VMStopped"] == 1,
            ),
            Proof(
                "no other event arrived",
                lambda: counts == Counter(EXPECTED),
            ),
        ]

    def _summarize(self) -> int:
        """What was proved, and what to try next; 0 if all of it was."""
        styled, line = self._terminal.styled, self._terminal.line
        proofs = [(proof.sentence, proof.holds()) for proof in self._proofs()]
        line()
        line(styled("What was proved", "bold"))
        for sentence, holds in proofs:
            mark = styled("  yes", "green") if holds else styled("   NO", "red")
            line(f"{mark}  {sentence}")
        if not all(holds for _, holds in proofs):
            line()
            line(f"arrived:  {dict(self._count())}")
            line(f"expected: {EXPECTED}")
            line(f"results:  {self._results()}")
            line(styled("\nNOT what was expected.", "red"))
            return 1
        line()
        line(styled("What to try next", "bold"))
        for command, use in TRY_NEXT:
            line(f"  {styled(f'{command:<16}', 'cyan')}  {use}")
        return 0


def next_of(kind: str, before: str) -> str:
    """The event that says what is waited for: this one, or the one before it."""
    return kind if kind in NEXT else before


def timeline(moments: dict[str, float]) -> str:
    """The phases of the boot, counted from MIGlet's start."""
    began = moments.get("miglet", 0.0)
    phases = [
        f"{phase} +{at - began:.0f} ms" for phase, at in moments.items() if at > began
    ]
    return f"miglet {began / 1000:.1f} s after the kernel, {', '.join(phases)}"


if __name__ == "__main__":
    # Also when the shell that started us had it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if len(sys.argv) == 1:
        alarm = threading.Timer(LIMIT, lambda: os.kill(os.getpid(), signal.SIGINT))
        alarm.daemon = True
        alarm.start()
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing is left running")
