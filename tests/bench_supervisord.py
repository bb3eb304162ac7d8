"""The peer of the benchmark: supervisord with four programs that do nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.agent_process import BIN
from tests.bench_instruments import (
    Clock,
    cpu_seconds,
    median,
    megabytes,
    percent,
    pss_bytes,
    wall_times,
)
from tests.support import eventually

PROGRAMS = 4
KILLS = 4
CPU_SECONDS = 20.0
#: So long a program has to run before supervisord restarts it at once.
SETTLE_SECONDS = 1.5


def measured(clock: Clock, folder: Path) -> dict[str, str]:
    """Its figures, by the names of MIGlet's."""
    folder.mkdir()
    config = write_config(folder)
    command = [BIN / "supervisord", "-c", config]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            return figures(clock, folder, config, psutil.Process(process.pid))
        finally:
            process.terminate()


def write_config(folder: Path) -> Path:
    """A configuration with programs that note when they are started."""
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
            for n in range(PROGRAMS)
        )
    )
    return config


def figures(
    clock: Clock, folder: Path, config: Path, daemon: psutil.Process
) -> dict[str, str]:
    """Measure a running supervisord."""
    eventually(lambda: len(starts(folder)) == PROGRAMS, 20, "supervisord's programs")
    clock.wait(2.0, "supervisord comes to rest")
    tree = [daemon, *daemon.children()]
    memory = megabytes(pss_bytes(tree))
    before = cpu_seconds(tree)
    clock.wait(CPU_SECONDS, "supervisord at rest")
    share = percent(cpu_seconds(tree) - before, CPU_SECONDS)
    calls = wall_times([BIN / "supervisorctl", "-c", config, "status"])
    kills = []
    for _ in range(KILLS):
        before_kill = len(starts(folder))
        victim = daemon.children()[0]
        began = time.monotonic()
        victim.kill()
        eventually(lambda n=before_kill: len(starts(folder)) > n, 10, "the restart")
        kills.append(max(starts(folder)) - began)
        clock.wait(SETTLE_SECONDS, "supervisord's program settles")
    return {
        "memory": memory,
        "processor": share,
        "replaced": median(kills),
        "status": median(calls),
    }


def starts(folder: Path) -> list[float]:
    """When the programs were started."""
    lines = [
        line for path in folder.glob("starts-*") for line in path.read_text().split()
    ]
    return [float(line) for line in lines]
