"""How a registered runner is launched, and what is remembered of it."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from miglet.job import hooks
from miglet.job.diag import diag_folder, existing_logs
from miglet.runner.environment import Hooks, runner_environment
from miglet.runner.installation import registered, runner_version
from miglet.runner.launcher import LAUNCH_SECONDS, LaunchSpec
from miglet.runner.launchers import runner_launcher
from miglet.runner.run import Run
from miglet.supervisor.failpoints import reach
from miglet.supervisor.privileges import Account
from miglet.workers.steps import Host

#: The scripts that the runner calls before and after a job.
HOOKS = Path(hooks.__file__).with_name("hooks")


def launch(host: Host, name: str, account: Account | None) -> Run:
    """Start the Listener; from here on the run's folder knows of it."""
    settings = host.settings
    directory = Path(settings.runner.directory)
    job, perflog = (Path(settings.paths.runtime) / each for each in ("job", "perflog"))
    for folder in (job, perflog):
        hooks.prepare(folder, account)
    diag = diag_folder(directory)
    spec = LaunchSpec(
        run_id=uuid.uuid4().hex,
        name=name,
        directory=directory,
        argv=(str(directory / "bin" / "Runner.Listener"), "run"),
        environment=environment(host, account, job, perflog),
        account=account,
        job_directory=job,
        diag_directory=diag,
        earlier_logs=existing_logs(diag),
    )
    host.be_patient(LAUNCH_SECONDS)
    host.folder.note_registration()
    reach("runner.launching")
    run = runner_launcher(settings).start(spec)
    reach("runner.launched")
    return run


def environment(
    host: Host, account: Account | None, job: Path, perflog: Path
) -> dict[str, str]:
    """The Listener's environment, and with it every job's."""
    features = host.settings.features
    scripts = Hooks(HOOKS / "job-started.sh", HOOKS / "job-completed.sh")
    return runner_environment(
        account,
        os.environ,
        job,
        scripts if features.job_hooks else None,
        perflog if features.perflog else None,
        host.settings.runner.proxy,
    )


def description(run: Run) -> dict[str, Any]:
    """What the run itself and its folder tell of the runner."""
    present = registered(run.directory)
    return {
        "run_id": run.run_id,
        "name": run.name,
        "pid": run.listener.pid,
        "start_time": run.listener.start_time,
        "unit": run.unit.name if run.unit else None,
        "folder": str(run.folder),
        "version": runner_version(run.directory),
        "agent_id": present.agent_id if present else None,
    }
