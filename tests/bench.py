"""``make bench``: what MIGlet costs and how fast it is, beside supervisord.

Prints medians of several runs and never judges: a slow machine is not a failure. What
is measured is the real thing: real processes, the reference controller, the double.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.agent_process import BIN, Agent, configured, ended
from tests.bench_journal import commits_per_second
from tests.paths import ROOT
from tests.reference_process import ReferenceController, running_controller
from tests.runner_double import Double, install
from tests.support import eventually

STARTS = 7
JOBS = 30
KILLS = 12
CALLS = 15
REST_SECONDS = 30.0
CPU_SECONDS = 60.0

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
    "logging": {"level": "info"},
}


def main() -> None:
    """Measure everything; the whole takes about four minutes."""
    compile_all()
    with tempfile.TemporaryDirectory(prefix="miglet-bench-") as name:
        folder = Path(name)
        peer = measured_supervisord(folder / "supervisord")
        with running_controller(folder) as controller:
            rows = [
                *starts(folder, controller),
                *rest(folder, controller, peer),
                installed_memory(folder, controller),
                *jobs(folder, controller),
                *journal(folder),
            ]
    print(f"\n{'figure':<46}{'MIGlet':>16}{'supervisord':>16}{'target':>12}")
    for row in rows:
        print(f"{row[0]:<46}{row[1]:>16}{row[2]:>16}{row[3]:>12}")


def compile_all() -> None:
    """As an installation does: who compiles starts late and keeps more memory."""
    for python in {sys.executable, DEBIAN_PYTHON}:
        command = [python, "-m", "compileall", "-q", str(ROOT / "miglet")]
        subprocess.run(command, check=False)


def milliseconds(seconds: list[float], fraction: float = 0.5) -> str:
    """A quantile of some durations; by default the median."""
    ordered = sorted(seconds)
    place = min(len(ordered) - 1, round(fraction * (len(ordered) - 1)))
    return f"{ordered[place] * 1000:.1f} ms"


@contextlib.contextmanager
def machine(
    folder: Path,
    reference: ReferenceController,
    name: str,
    plan: Any,
    /,
    **settings: Any,
) -> Iterator[tuple[Agent, Double]]:
    """An agent with its double, not started yet."""
    double = install(folder / f"{name}-runner", plan)
    agent = configured(
        folder / name,
        reference.endpoint,
        reference.token_path,
        folder / f"{name}-runner",
        **{"vm_id": name, **settings},
    )
    try:
        with ended(agent):
            yield agent, double
    finally:
        double.kill()


def starts(folder: Path, controller: ReferenceController) -> list[tuple[str, ...]]:
    """From the start of the process to its first request at the controller."""
    took = []
    for number in range(STARTS):
        idle = {"listener": {"scenario": "idle"}}
        with machine(folder, controller, f"start-{number}", idle) as (agent, _):
            began = time.monotonic()
            agent.start()
            event = controller.wait_for(f"start-{number}", "VMStarted")
            took.append(event["received_mono"] - began)
            agent.signal(signal.SIGTERM)
            agent.wait()
    return [("start -> first request", milliseconds(took), "-", "< 400 ms")]


def rest(
    folder: Path, controller: ReferenceController, peer: dict[str, str]
) -> list[tuple[str, ...]]:
    """Memory, processor, replacement of workers and the status call, while idle."""
    plan = {"listener": {"scenario": "idle"}}
    with machine(folder, controller, "rest", plan, **RESTING) as (agent, _):
        agent.start()
        agent.until("idle")
        wait(REST_SECONDS)
        tree = tree_of(agent)
        memory = megabytes(tree)
        share = f"{cpu_percent(tree, CPU_SECONDS):.2f} %"
        calls = wall_times([BIN / "miglet-ctl", "--socket", agent.socket, "status"])
        kills = [replaced(agent, name) for name in kill_order(agent)]
    return [
        ("memory at rest (PSS, whole tree)", memory, peer["memory"], "< 50 MB"),
        ("processor at rest", share, peer["cpu"], "< 0.5 %"),
        (
            "SIGKILL of a worker -> successor's pulse",
            milliseconds(kills),
            peer["kill"],
            "< 50 ms",
        ),
        (
            "miglet-ctl / supervisorctl status",
            milliseconds(calls),
            peer["status"],
            "< 80 ms",
        ),
    ]


def installed_memory(folder: Path, controller: ReferenceController) -> tuple[str, ...]:
    """Memory at rest with the Python and the packages that the .deb depends on."""
    name = "memory at rest, with Debian's packages"
    there = subprocess.run([DEBIAN_PYTHON, "-c", IMPORTS], capture_output=True)
    if there.returncode:
        return (name, "not installed", "-", "< 50 MB")
    idle = {"listener": {"scenario": "idle"}}
    with machine(folder, controller, "debian", idle, **RESTING) as (agent, _):
        agent.commands = debian_commands(folder / "bin")
        agent.start()
        agent.until("idle")
        wait(REST_SECONDS)
        return (name, megabytes(tree_of(agent)), "-", "< 50 MB")


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


def tree_of(agent: Agent) -> list[psutil.Process]:
    """The parent and its workers."""
    return [psutil.Process(agent.pid), *agent.workers().values()]


def megabytes(tree: list[psutil.Process]) -> str:
    """Memory of all of them."""
    return f"{sum(map(pss_bytes, tree)) / 1e6:.1f} MB"


def kill_order(agent: Agent) -> Iterator[str]:
    """Workers in turn, with so long between two deaths of one that it has settled."""
    names = list(agent.workers())
    for number in range(KILLS):
        if number and number % (2 * len(names)) == 0:
            wait(11.0)
        yield names[number % len(names)]


def jobs(folder: Path, controller: ReferenceController) -> list[tuple[str, ...]]:
    """From what the runner prints to what the controller has."""
    job = {"scenario": "job", "seconds": 0.3, "after": 0.1}
    settings = {**RESTING, "runner": {"after_job": "register"}}
    with machine(folder, controller, "jobs", {"listener": job}, **settings) as (
        agent,
        double,
    ):
        agent.start()
        controller.wait_for("jobs", "JobCompleted", seconds=120, count=JOBS)
        agent.signal(signal.SIGTERM)
        agent.wait()
        began = latencies(controller, double, "JobStarted", "running_job")
        over = latencies(controller, double, "JobCompleted", "result")
    return [
        ("'Running job' printed -> JobStarted, p50", milliseconds(began), "-", ""),
        (
            "'Running job' printed -> JobStarted, p95",
            milliseconds(began, 0.95),
            "-",
            "< 150 ms",
        ),
        ("result printed -> JobCompleted, p50", milliseconds(over), "-", ""),
        (
            "result printed -> JobCompleted, p95",
            milliseconds(over, 0.95),
            "-",
            "< 100 ms",
        ),
    ]


def latencies(
    controller: ReferenceController, double: Double, event: str, what: str
) -> list[float]:
    """Seconds from each line of the double to its event's arrival."""
    arrived = [each["received_mono"] for each in controller.events("jobs", event)]
    printed = [each["mono"] for each in double.truth(what)]
    return [end - start for start, end in zip(printed, arrived, strict=False)][:JOBS]


def journal(folder: Path) -> list[tuple[str, ...]]:
    """How many transitions the journal can commit."""
    rates = [commits_per_second(folder / f"journal-{n}.db", 1.0) for n in range(3)]
    return [("journal commits per second", f"{statistics.median(rates):.0f}", "-", "")]


def replaced(agent: Agent, name: str) -> float:
    """Seconds from a worker's SIGKILL to its successor's first pulse."""
    before = agent.status()["workers"][name]["pid"]
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(agent.socket))
        lines = control.makefile("rwb")
        began = time.monotonic()
        os.kill(before, signal.SIGKILL)
        while True:
            lines.write(b'{"jsonrpc":"2.0","id":1,"method":"status","params":{}}\n')
            lines.flush()
            worker = json.loads(lines.readline())["result"]["workers"][name]
            if (
                worker["pid"] not in (before, None)
                and worker["last_seen_seconds"] is not None
            ):
                return time.monotonic() - began
            wait(0.001)


# The peer.


def measured_supervisord(folder: Path) -> dict[str, str]:
    """The same figures of supervisord with four programs that do nothing."""
    folder.mkdir()
    program = folder / "program.py"
    program.write_text(
        "import sys, time\n"
        "open(sys.argv[1], 'a').write('%r\\n' % time.monotonic())\n"
        "time.sleep(100000)\n"
    )
    config = folder / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={folder}/log\npidfile={folder}/pid\n"
        f"[unix_http_server]\nfile={folder}/sock\n"
        f"[supervisorctl]\nserverurl=unix://{folder}/sock\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory ="
        " supervisor.rpcinterface:make_main_rpcinterface\n"
        + "".join(
            f"[program:p{n}]\ncommand={sys.executable} {program} {folder}/starts-{n}\n"
            for n in range(4)
        )
    )
    command = [BIN / "supervisord", "-c", config]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            return peer_figures(folder, config, psutil.Process(process.pid))
        finally:
            process.terminate()


def peer_figures(folder: Path, config: Path, daemon: psutil.Process) -> dict[str, str]:
    """Measure a running supervisord."""
    eventually(lambda: len(started(folder)) == 4, 20, "supervisord's programs")
    wait(2.0)
    tree = [daemon, *daemon.children()]
    memory = megabytes(tree)
    share = cpu_percent(tree, 20.0)
    calls = wall_times([BIN / "supervisorctl", "-c", config, "status"])
    kills = []
    for _ in range(4):
        before = len(started(folder))
        victim = daemon.children()[0]
        began = time.monotonic()
        victim.kill()
        eventually(lambda n=before: len(started(folder)) > n, 10, "the restart")
        kills.append(max(started(folder)) - began)
        wait(1.5)
    return {
        "memory": memory,
        "cpu": f"{share:.2f} %",
        "kill": milliseconds(kills),
        "status": milliseconds(calls),
    }


def started(folder: Path) -> list[float]:
    """When supervisord's programs were started."""
    lines = [
        line for path in folder.glob("starts-*") for line in path.read_text().split()
    ]
    return [float(line) for line in lines]


# Instruments.


def wait(seconds: float) -> None:
    """Let time pass: here it is what is measured over."""
    time.sleep(seconds)


def pss_bytes(process: psutil.Process) -> int:
    """The process's share of memory, proc_pid_smaps(5)."""
    text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("Pss:")]
    return int(line.split()[1]) * 1024


def cpu_percent(tree: list[psutil.Process], seconds: float) -> float:
    """Of one processor, all processes together, over some time."""
    before = sum(sum(process.cpu_times()[:2]) for process in tree)
    began = time.monotonic()
    wait(seconds)
    after = sum(sum(process.cpu_times()[:2]) for process in tree)
    return (after - before) / (time.monotonic() - began) * 100


def wall_times(command: list[Any]) -> list[float]:
    """Wall time of each of several calls, the first one not counted."""
    took = []
    for _ in range(CALLS + 1):
        began = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        took.append(time.monotonic() - began)
    return took[1:]


if __name__ == "__main__":
    main()
