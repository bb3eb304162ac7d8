"""What the Worker does with a job: set-up, hooks, steps, clean-up, report.

A local shutdown skips everything that is not running yet, the completed hook and
`always()` steps included; a cancel by the server does not (actions/runner
StepsRunner.cs).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.runner_double import mailbox, orphans, registry, times
from tests.runner_double.hooks import COMPLETED, STARTED, HookUnusable, command_for
from tests.runner_double.host import RESULTS, Exit, Host, truthy
from tests.runner_double.invocation import Invocation
from tests.runner_double.job_environment import JobEnvironment
from tests.runner_double.job_log import JobLog
from tests.runner_double.steps import steps_of, write_step

ALWAYS = "always()"
#: The Worker's exit code after an exception that nothing handles.
CRASHED = 1
SHUTDOWN = (
    "##[error]The runner has received a shutdown signal. This can happen when the"
    " runner service is stopped, or a manually started runner is canceled."
)


class JobRunner:
    """One job in its Worker."""

    def __init__(self, host: Host, job: dict[str, Any]) -> None:
        self._host = host
        self._job = job
        self._failed = False
        #: `server` or `shutdown` once the job is to end early.
        self._cancelled_by: str | None = None
        self._invocation: Invocation | None = None
        #: The condition of the step that is running; none runs, or a hook does: None.
        self._condition: str | None = None
        self._log = JobLog(host.root, job["job_id"])
        name = host.settings().get("agentname", "")
        self._environment = JobEnvironment(host.root, job, name)

    def cancel(self, by: str) -> None:
        """End the job early; a shutdown after a server's cancel is a shutdown."""
        self._host.trace.write("Worker", "Cancellation/Shutdown message received.")
        if self._cancelled_by != "shutdown":
            self._cancelled_by = by
        if by == "shutdown":
            self._log.line(SHUTDOWN)
        spared = self._condition in (None, ALWAYS) and by == "server"
        if self._invocation and not spared:
            self._invocation.cancel()

    def run(self) -> str:
        """The job's result, as it was reported to the service."""
        self._set_up()
        if not (self._failed or self._cancelled_by):
            self._run_steps()
        self._complete()
        result = self._result()
        self._report(result)
        return result

    def _set_up(self) -> None:
        host = self._host
        shutil.rmtree(self._environment.temp, ignore_errors=True)
        self._environment.lay_out()
        self._hooks = {name: os.environ.get(name, "") for name in (STARTED, COMPLETED)}
        self._before = orphans.running()
        os.environ["RUNNER_TRACKING_ID"] = self._job["tracking_id"]
        host.count(f"WorkerJobInitialized_{self._job['request_id']}")
        self._log.line(setup_text(host.root))
        host.rest(host.plan.times.set_up)
        if self._job.get("setup_fails"):
            self._log.line("##[error]Unable to resolve action `octo/missing@v1`")
            self._failed = True
        self._log.upload()

    def _run_steps(self) -> None:
        self._run_hook(STARTED, "Set up runner", "job started hook")
        for number, step in enumerate(steps_of(self._job)):
            self._environment.name_step(number)
            self._run_step(step)
        self._run_hook(COMPLETED, "Complete runner", "job completed hook")

    def _run_hook(self, variable: str, title: str, called: str) -> None:
        path = self._hooks[variable]
        if not path:
            return
        self._host.trace.write("StepsRunner", processing(title))
        if self._cancelled_by == "shutdown":
            return
        self._log.line(
            f"A {called} has been configured by the self-hosted runner administrator"
        )
        which = "started" if variable == STARTED else "completed"
        self._host.record("hook_start", which=which, path=path)
        code = self._hook_code(path)
        self._host.record("hook", which=which, path=path, code=code)
        self._conclude(code)

    def _hook_code(self, path: str) -> int:
        variables = self._environment.variables()
        try:
            return self._invoke(command_for(path, variables["PATH"]), variables)
        except HookUnusable as problem:
            self._log.line(f"##[error]{problem}")
            return 1

    def _run_step(self, step: dict[str, Any]) -> None:
        always = step.get("condition") == ALWAYS
        skipped = self._cancelled_by == "shutdown" or (
            not always and (self._failed or self._cancelled_by)
        )
        name = step.get("name", "Run work")
        self._host.trace.write("StepsRunner", processing(name))
        if skipped:
            self._host.trace.write("StepsRunner", "Step result: Skipped")
            self._host.record("step_skipped", name=name)
            return
        self._condition = step.get("condition", "success()")
        self._log.line(f"##[group]Run {name}")
        command = write_step(self._host.root, self._environment.temp, step)
        if "script" in step:  # other steps tell it themselves
            self._host.record("step_start", name=name)
        variables = {**self._environment.variables(), **self._job.get("env", {})}
        code = self._invoke(command, variables)
        self._condition = None
        self._host.record("step_exit", name=name, code=code)
        self._conclude(code)

    def _invoke(self, command: list[str], variables: dict[str, str]) -> int:
        workspace = self._environment.workspace
        self._invocation = Invocation(self._host, command, variables, workspace)
        if self._condition:
            self._arm_mishaps()
        code = self._invocation.wait(self._log.write)
        self._invocation = None
        self._environment.absorb(variables)
        return code

    def _arm_mishaps(self) -> None:
        """What is to happen in the midst of the step: a cancel, or somebody's death."""
        job = self._job
        delay = job.get("mishap_after", 0.1)
        if job.get("server_cancels"):
            self._amid_step(
                delay, self._post("cancel", timeout=job.get("cancel_timeout", 300.0))
            )
        if job.get("registration_goes"):
            self._amid_step(delay, self._post("deleted"))
        if job.get("dies"):
            pid = os.getpid() if job["dies"] == "worker" else os.getppid()
            signum = job.get("signal", signal.SIGKILL)
            self._amid_step(delay, lambda: os.kill(pid, signum))

    def _post(self, kind: str, **order: Any) -> Callable[[], None]:
        """Something that sends the Listener a message from the service."""
        return lambda: mailbox.put(self._host.root, "mail", kind, order)

    def _amid_step(self, seconds: float, mishap: Callable[[], None]) -> None:
        """Let something happen in so many seconds, unless the step is over by then."""
        step = self._invocation

        def happen() -> None:
            if self._invocation is step:
                mishap()

        self._host.loop.call_later(seconds, happen)

    def _conclude(self, code: int) -> None:
        """A step or hook is over; the log names only a result that is no success."""
        if code:
            self._log.line(f"##[error]Process completed with exit code {code}.")
            self._failed = True
        self._log.upload()
        result = "Canceled" if self._cancelled_by else "Failed" if code else ""
        self._host.trace.write("StepsRunner", f"Step result: {result}")

    def _complete(self) -> None:
        for pid, name in orphans.terminate(self._before, self._job["tracking_id"]):
            self._log.line(f"Terminate orphan process: pid ({pid}) ({name})")
            self._host.record("orphan_killed", victim=pid, name=name)
        self._log.upload()
        shutil.rmtree(self._environment.temp, ignore_errors=True)
        self._environment.temp.mkdir()

    def _result(self) -> str:
        if self._cancelled_by == "shutdown":
            return "Failed"
        if self._cancelled_by == "server":
            return "Canceled"
        forced = self._job.get("result", "Succeeded")
        if forced in RESULTS and forced not in ("Succeeded", "Failed"):
            return forced
        return "Failed" if self._failed else "Succeeded"

    def _report(self, result: str) -> None:
        """Tell the service; only then is the job over for everybody else."""
        host = self._host
        host.trace.write(
            "JobRunner", f"Job result after all job steps finish: {result}"
        )
        host.record("job_result", result=result)
        host.rest(host.plan.times.complete)
        broker = host.plan.uses_broker
        where = "against run service" if broker else "event"
        host.trace.write("JobRunner", f"Raising job completed {where}")
        self._await_completion()
        report(host, self._job, result, by="worker")
        if not self._cancelled_by:
            host.trace.write("Worker", "Job completed.")
        host.rest(times.WORKER_EXIT)

    def _await_completion(self) -> None:
        """Until the service has taken the result; `completion` says if it does."""
        fate = self._job.get("completion", "ok")
        if fate == "hangs":
            self._host.record("completion_hangs")
            self._host.loop.run_forever()
        if fate == "fails":
            self._host.record("completion_fails")
            for _ in range(round(times.COMPLETION_TRIES / times.BACK_OFF)):
                self._host.call("complete", status=500)
                self._host.trace.write(
                    "RunServer", "Catch exception during request", "ERR"
                )
                self._host.rest(times.BACK_OFF)
            raise Exit(CRASHED)


def processing(title: str) -> str:
    return f"Processing step: DisplayName='{title}'"


def setup_text(root: Path) -> str:
    """What the job's log begins with: the groups of `.setup_info`, if it exists."""
    path = root / ".setup_info"
    entries = json.loads(path.read_text()) if path.exists() else []
    groups = [f"##[group]{e['group']}\n{e['detail']}\n##[endgroup]" for e in entries]
    return "\n".join(["Set up job", *groups])


def report(host: Host, job: dict[str, Any], result: str, by: str) -> None:
    """Tell the service the result; it drops an ephemeral runner's registration."""
    host.call("complete" if host.plan.uses_broker else "event")
    fields = {"job_id": job["job_id"], "name": job["name"], "result": result}
    host.record("reported", by=by, **fields)
    settings = host.settings()
    if truthy(settings.get("ephemeral")):
        registry.drop(host.root, settings["agentname"], "consumed")
