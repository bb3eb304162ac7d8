"""``make bench``: what MIGlet costs and how fast it is, beside supervisord.

Prints figures of several runs and never judges: a slow machine is not a failure. What
is measured is the real thing: real processes, the reference controller over http and
over https with an authority of its own, and the double in the official runner's times.
The runner's own share of every time is shown apart from MIGlet's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests import bench_supervisord
from tests.agent_process import BIN, Agent, configured, ended
from tests.authority import Authority
from tests.bench_instruments import (
    Clock,
    alone_bytes,
    cpu_seconds,
    median,
    megabytes,
    percent,
    pss_bytes,
    quantiles,
    wall_times,
)
from tests.bench_journal import commits_per_second
from tests.paths import ROOT
from tests.reference_process import ReferenceController, running_controller
from tests.runner_double.double import Double, install
from tests.terminal import Terminal

STARTS = 7
JOBS = 20
KILLS = 12
SETTLE_SECONDS = 30.0
REST_SECONDS = 60.0
JOB_LIMIT_SECONDS = 20.0 * JOBS

#: Processes of a large job, and how long their use is sampled.
PROCESSES = 2000
CROWDED_SECONDS = 30.0

#: The commands as Debian's packages install them, but from this checkout.
DEBIAN = {"miglet": "miglet.cli", "miglet-ctl": "miglet.ctl.__main__"}
DEBIAN_PYTHON = "/usr/bin/python3"
IMPORTS = (
    "import backoff, jsonschema, multiprocess, prometheus_client, psutil,"
    " pythonjsonlogger, requests, yaml"
)

#: What the agent runs with: defaults, but for what a benchmark on one machine needs.
RESTING: dict[str, Any] = {
    "controller": {"timeout": "30s", "command_wait": "25s", "command_interval": "5s"},
    "heartbeat": {"interval": "15s", "timeout": "60s"},
    "metrics": {"collection_interval": "10s"},
    "runner": {"ghost_timeout": "2m", "ready_timeout": "60s"},
    "logging": {"level": "info"},
}
#: Figure, its name in the table, and what is wanted; the runner's own share comes last.
FIGURES = (
    ("start", "start -> first request", "300 ms"),
    ("started", "job's message in the log -> JobStarted, p50 / p95", "10 / 30 ms"),
    ("completed", "Worker's end -> JobCompleted, p50 / p95", "30 / 60 ms"),
    ("result", "result printed -> JobCompleted, p50 / p95", ""),
    ("replaced", "SIGKILL of a worker -> its successor", "10 ms"),
    ("alive", "SIGKILL of a worker -> successor's first ping", ""),
    ("status", "miglet-ctl / supervisorctl status", "50 ms"),
    ("memory", "memory at rest (PSS, whole tree)", "50 MB"),
    ("alone", "  if nobody else used the same libraries", ""),
    ("crowded", f"memory with a job of {PROCESSES} processes", "100 MB"),
    ("processor", f"processor at rest, over {REST_SECONDS:.0f} s", "0.3 %"),
    ("commits", "journal commits per second", ""),
    ("runner_message", "  runner: job taken -> its message in the log", ""),
    ("runner_result", "  runner: last step -> result reported to GitHub", ""),
    ("runner_line", "  runner: Worker's end -> result printed", ""),
    ("runner_end", "  runner: result printed -> Listener's end", ""),
)

Figures = dict[str, str]


@dataclass(frozen=True)
class Site:
    """Where machines of one benchmark live: a folder, and the controller they call."""

    terminal: Terminal
    clock: Clock
    folder: Path
    controller: ReferenceController
    #: Further settings of `controller`.
    trust: dict[str, Any]

    @contextlib.contextmanager
    def machine(
        self, name: str, plan: Any, **settings: Any
    ) -> Iterator[tuple[Agent, Double]]:
        """An agent with its double, not started yet."""
        double = install(self.folder / f"{name}-runner", plan)
        both = {**RESTING, **settings, "vm_id": name}
        both["controller"] = {**RESTING["controller"], **self.trust}
        agent = configured(
            self.folder / name,
            self.controller.endpoint,
            self.controller.token_path,
            self.folder / f"{name}-runner",
            **both,
        )
        try:
            with ended(agent):
                yield agent, double
        finally:
            double.kill()

    def say(self, text: str) -> None:
        scheme = self.controller.endpoint.partition(":")[0]
        self.terminal.say(scheme, text)


def main() -> None:
    """Measure everything; the whole takes about seven minutes."""
    terminal = Terminal()
    clock = Clock(terminal)
    compile_all()
    columns: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="miglet-bench-") as name:
        folder = Path(name)
        with site(terminal, clock, folder / "http", encrypted=False) as plain:
            columns["http"] = {**measured(plain), **journal(folder)}
        with site(terminal, clock, folder / "https", encrypted=True) as private:
            columns["https"] = measured(private)
            columns["Debian"] = debian(private)
        terminal.say("supervisord", "four programs that do nothing")
        columns["supervisord"] = bench_supervisord.measured(clock, folder / "peer")
    show(terminal, columns)


def show(terminal: Terminal, columns: dict[str, Figures]) -> None:
    """The table."""
    order = ("http", "https", "Debian", "supervisord")
    terminal.line()
    head = "".join(f"{name:>18}" for name in order)
    terminal.line(terminal.styled(f"{'figure':<50}{head}{'wanted':>14}", "bold"))
    for key, label, wanted in FIGURES:
        cells = "".join(f"{columns[name].get(key, '-'):>18}" for name in order)
        terminal.line(f"{label:<50}{cells}{wanted:>14}")
    terminal.line()
    terminal.line(
        "Debian: https with Debian's own Python and packages, where there are any."
    )


@contextlib.contextmanager
def site(
    terminal: Terminal, clock: Clock, folder: Path, encrypted: bool
) -> Iterator[Site]:
    """A controller over http, or over https with a private authority."""
    folder.mkdir()
    if not encrypted:
        with running_controller(folder) as controller:
            yield Site(terminal, clock, folder, controller, {})
        return
    authority = Authority(folder, "private")
    certificate, key = authority.issue("controller")
    with running_controller(folder, tls_cert=certificate, tls_key=key) as controller:
        controller.session.verify = str(authority.path)
        trust = {"auth": {"ca_path": str(authority.path)}}
        yield Site(terminal, clock, folder, controller, trust)


def compile_all() -> None:
    """As an installation does: who compiles starts late and keeps more memory."""
    for python in {sys.executable, DEBIAN_PYTHON}:
        command = [python, "-m", "compileall", "-q", str(ROOT / "miglet")]
        subprocess.run(command, check=False)


def measured(site: Site) -> Figures:
    """All figures of one scheme."""
    return {**starts(site), **rest(site), **crowded(site), **jobs(site)}


def starts(site: Site) -> Figures:
    """From the start of the process to its first request at the controller."""
    took = []
    for number in range(STARTS):
        site.say(f"start {number + 1} of {STARTS}")
        name = f"start-{number}"
        with site.machine(name, {"listener": {"scenario": "idle"}}) as (agent, _):
            began = time.monotonic()
            agent.start()
            event = site.controller.wait_for(name, "VMStarted")
            took.append(event["received_mono"] - began)
            agent.signal(signal.SIGTERM)
            agent.wait(30)
    return {"start": median(took)}


def rest(site: Site) -> Figures:
    """Memory, processor, replacement of workers and the status call, while idle."""
    with site.machine("rest", {"listener": {"scenario": "idle"}}) as (agent, _):
        agent.start()
        resting = at_rest(site, agent)
        calls = wall_times([BIN / "miglet-ctl", "--socket", agent.socket, "status"])
        site.say(f"{KILLS} workers are killed")
        kills = [replaced(agent, name) for name in kill_order(site.clock, agent)]
    return {
        **resting,
        "replaced": median([forked for forked, _ in kills]),
        "alive": median([pinged for _, pinged in kills]),
        "status": median(calls),
    }


def at_rest(site: Site, agent: Agent) -> Figures:
    """Memory and processor of an idle machine."""
    site.clock.until(lambda: agent.state() == "idle", "the machine gets ready")
    site.say(f"{SETTLE_SECONDS + REST_SECONDS:.0f} s at rest")
    tree = processes(agent)
    site.clock.wait(SETTLE_SECONDS, "the machine comes to rest")
    before = cpu_seconds(tree)
    site.clock.wait(REST_SECONDS, "the machine is at rest")
    return {
        "memory": megabytes(pss_bytes(tree)),
        "alone": megabytes(alone_bytes(tree)),
        "processor": percent(cpu_seconds(tree) - before, REST_SECONDS),
    }


def processes(agent: Agent) -> list[psutil.Process]:
    """The agent and its workers."""
    return [psutil.Process(agent.pid), *agent.workers().values()]


def crowded(site: Site) -> Figures:
    """Memory while a job has a great many processes, which are sampled."""
    started = site.folder / "started"
    many = f"for n in $(seq {PROCESSES}); do sleep 3600 & done; touch {started}; wait"
    job = {"scenario": "job", "steps": [{"name": "Many", "script": many}]}
    with site.machine("crowded", {"listener": job}) as (agent, _):
        agent.start()
        site.say(f"a job of {PROCESSES} processes")
        site.clock.until(started.exists, "they are started")
        site.clock.wait(CROWDED_SECONDS, "they are sampled")
        return {"crowded": megabytes(pss_bytes(processes(agent)))}


def debian(site: Site) -> Figures:
    """Memory at rest with the Python and the packages that the .deb depends on."""
    there = subprocess.run([DEBIAN_PYTHON, "-c", IMPORTS], capture_output=True)
    if there.returncode:
        return {"memory": "not installed"}
    with site.machine("debian", {"listener": {"scenario": "idle"}}) as (agent, _):
        agent.commands = debian_commands(site.folder / "bin")
        agent.start()
        return at_rest(site, agent)


def debian_commands(folder: Path) -> Path:
    """The folder, with the commands in it."""
    folder.mkdir()
    for command, module in DEBIAN.items():
        (folder / command).write_text(
            f"#!{DEBIAN_PYTHON} -I\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
            f"from {module} import main\nsys.exit(main())\n"
        )
        (folder / command).chmod(0o755)
    return folder


def kill_order(clock: Clock, agent: Agent) -> Iterator[str]:
    """Workers in turn, with so long between two deaths of one that it has settled."""
    names = list(agent.workers())
    for number in range(KILLS):
        if number and number % (2 * len(names)) == 0:
            clock.wait(11.0, "the workers settle")
        yield names[number % len(names)]


def replaced(agent: Agent, name: str) -> tuple[float, float]:
    """Seconds from a worker's SIGKILL to its successor, and to its first ping."""
    victim = agent.status()["workers"][name]["pid"]
    before = children_of(agent.pid)
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    # Seen from outside: a call of `status` would keep the parent from its work.
    while not children_of(agent.pid) - before:
        pass
    forked = time.monotonic() - began
    while True:
        worker = agent.status()["workers"][name]
        heard = worker["last_seen_seconds"] is not None
        if worker["pid"] not in (victim, None) and heard:
            return forked, time.monotonic() - began


def children_of(pid: int) -> set[str]:
    """The pids of its children."""
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def jobs(site: Site) -> Figures:
    """From what the runner does to what the controller has stored of it."""
    job = {"scenario": "job", "seconds": 0.3}
    runner = {**RESTING["runner"], "after_job": "register"}
    with site.machine("jobs", {"listener": job}, runner=runner) as (agent, double):
        agent.start()
        for number in range(1, JOBS + 1):
            site.say(f"job {number} of {JOBS}")
            site.controller.wait_for(
                "jobs", "JobCompleted", seconds=JOB_LIMIT_SECONDS, count=number
            )
        agent.signal(signal.SIGTERM)
        agent.wait(60)
        return latencies(site.controller, double)


def latencies(controller: ReferenceController, double: Double) -> Figures:
    """MIGlet's share, and the runner's."""

    def happened(what: str) -> list[float]:
        return [each["mono"] for each in double.truth(what)][:JOBS]

    def stored(event: str) -> list[float]:
        found = controller.events("jobs", event)
        return [each["received_mono"] for each in found][:JOBS]

    def gaps(first: list[float], second: list[float]) -> list[float]:
        return [end - start for start, end in zip(first, second, strict=False)]

    message, gone, printed = map(happened, ("job_message", "worker_gone", "result"))
    reported, completed = happened("reported"), stored("JobCompleted")
    return {
        "started": quantiles(gaps(message, stored("JobStarted"))),
        "completed": quantiles(gaps(gone, completed)),
        "result": quantiles(gaps(printed, completed)),
        "runner_message": quantiles(gaps(happened("running_job"), message)),
        "runner_result": quantiles(gaps(happened("step_exit"), reported)),
        "runner_line": quantiles(gaps(gone, printed)),
        "runner_end": quantiles(gaps(printed, happened("listener_exit"))),
    }


def journal(folder: Path) -> Figures:
    """How many transitions the journal can commit."""
    rates = [commits_per_second(folder / f"journal-{n}.db", 1.0) for n in range(3)]
    return {"commits": f"{statistics.median(rates):.0f}"}


if __name__ == "__main__":
    main()
