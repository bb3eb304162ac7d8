"""How a runner is registered and launched, and how its registration is taken back.

Token, config.sh, launch; and at the end a removal token and `config.sh remove`, where
the runner has not used its registration up. A controller without removal tokens removes
the runner at the machine's end.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import time
import uuid
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Any

from miglet.config.settings import Settings
from miglet.controller.answers import RegistrationToken, RemovalToken
from miglet.errors import UNAVAILABLE, ControllerError, MigletError
from miglet.http.retry import Backoff
from miglet.job import hooks
from miglet.job.diag import diag_folder, existing_logs
from miglet.messages.facts import (
    ControllerFailed,
    FaultNoted,
    RegistrationFailed,
    RunnerLaunched,
    TokenSpent,
)
from miglet.messages.orders import ProvideRunner
from miglet.runner import metadata_firewall
from miglet.runner.installation import (
    REGISTRATION_FILES,
    Hooks,
    account_environment,
    forget_registration,
    proxy_environment,
    registered,
    registration_files,
    runner_environment,
    runner_version,
)
from miglet.runner.launcher import (
    LAUNCH_SECONDS,
    RUNNER_OOM_SCORE_ADJ,
    LaunchFailed,
    LaunchSpec,
    configuration_launcher,
    runner_launcher,
)
from miglet.runner.ownership import REINSTALL
from miglet.runner.registration import Configuration, Registration
from miglet.runner.registration_errors import Next, Outcome
from miglet.runner.run import Run
from miglet.supervisor.failpoints import reach
from miglet.supervisor.privileges import Account, account
from miglet.workers.steps import (
    EXIT_STATUSES,
    POLL_SECONDS,
    GivenUp,
    StepContext,
    Steps,
    failure_of,
)
from miglet.workers.token_request import RegistrationTokens, digest, request_token

#: Registration tokens that one registration may use.
MOST_TOKENS = 3

#: How often config.sh, and the Listener's launch, are tried for one registration.
MOST_ATTEMPTS = 10
MOST_LAUNCHES = 5

#: Seconds that ending config.sh, with all that it started, may take.
KILL_SECONDS = 10.0


class RunnerRegistration:
    """One attempt to provide a runner, from the order to the launched Listener."""

    def __init__(self, context: StepContext, order: ProvideRunner) -> None:
        settings = context.settings
        self._context = context
        self._order = order
        self._directory = Path(settings.runner.directory)
        self._account: Account | None = None
        retry = settings.controller.retry
        self._backoff = Backoff(retry.initial_backoff, retry.max_backoff)
        self._began = time.time()
        self._attempts = 0
        self._token: RegistrationToken | None = None
        self._tokens = RegistrationTokens(context, order.name, order.spent_tokens)

    def run(self) -> Generator[float, None, Run]:
        """The whole way; returns the Run. Raises GivenUp when there is none."""
        try:
            self._account = account(self._context.settings.runner.user)
            self._refuse_danger()
            self._context.extend_liveness(metadata_firewall.LOAD_SECONDS)
            self._block_metadata(self._account)
            yield from self._end_leftover()
            if not (self._order.keep_registration and self._is_registered()):
                yield from self._configure()
            return (yield from self._launch())
        except MigletError as error:
            if isinstance(error, GivenUp):
                raise
            raise GivenUp(failure_of(error)) from error

    def _block_metadata(self, account: Account) -> None:
        settings = self._context.settings
        block = settings.runner.block_metadata is True
        addresses = clouds().metadata_addresses() if block else ()
        metadata_firewall.apply(settings, account, addresses)

    def _is_registered(self) -> bool:
        """Whether the folder has a whole registration under the name that is wanted."""
        present = registered(self._directory)
        whole = registration_files(self._directory) == {*REGISTRATION_FILES}
        return whole and present is not None and present.agent_name == self._order.name

    def _configure(self) -> Steps:
        while True:
            forget_registration(self._directory)
            if self._token is None:
                self._token = yield from self._tokens.next()
            outcome = yield from self._run_config(self._token)
            if outcome.good or self._is_registered():
                return
            yield self._after_failure(outcome)

    def _end_leftover(self) -> Steps:
        """A config.sh that a dead watcher left may still register: see it end."""
        launcher = configuration_launcher(self._context.settings)
        leftover = Configuration.leftover(launcher)
        if leftover is None:
            return
        settings = self._context.settings
        yield from wait_for(
            self._context, leftover, settings.github.registration_timeout
        )
        self._order = dataclasses.replace(self._order, keep_registration=True)

    def _run_config(self, token: RegistrationToken) -> Generator[float, None, Outcome]:
        github = self._context.settings.github
        self._attempts += 1
        wanted = Registration(
            directory=self._directory,
            url=token.runner_url,
            name=self._order.name,
            labels=tuple(token.labels or github.labels),
            runner_group=token.runner_group or "",
            environment=self._plain_environment(),
            account=self._account,
        )
        self._context.report(TokenSpent(digest(token)))
        launcher = configuration_launcher(self._context.settings)
        self._context.extend_liveness(LAUNCH_SECONDS)
        reach("configuration.starting")
        running = Configuration.start(launcher, wanted, token.token)
        reach("configuration.started")
        outcome = yield from wait_for(
            self._context, running, github.registration_timeout
        )
        reach("configuration.ended")
        return outcome

    def _refuse_danger(self) -> None:
        """GivenUp where a job may have changed what would be started with a token."""
        danger = self._context.folder.danger(self._account, removing=False)
        if danger:
            message = f"no token is given to {self._directory}: {danger}"
            raise GivenUp(
                RegistrationFailed(
                    "misconfig",
                    "runner_folder_changeable",
                    message,
                    REINSTALL,
                    EXIT_STATUSES["misconfig"],
                )
            )

    def _after_failure(self, outcome: Outcome) -> float:
        """Seconds until the next attempt; raises GivenUp when there is none."""
        if outcome.next is Next.NEW_TOKEN:
            self._token = None
            if self._tokens.count >= MOST_TOKENS:
                raise GivenUp(refusal(outcome))
        if outcome.next is Next.GIVE_UP or self._attempts >= MOST_ATTEMPTS:
            raise GivenUp(refusal(outcome))
        delay = self._backoff.delay()
        self._context.report(
            FaultNoted(
                outcome.category, outcome.kind, outcome.message, "runner", outcome.hint
            )
        )
        return delay

    def _launch(self) -> Generator[float, None, Run]:
        """Start the Listener; a machine that is short of something may recover."""
        for attempt in range(1, MOST_LAUNCHES + 1):
            try:
                run = launch(self._context, self._order.name, self._account)
            except LaunchFailed as error:
                if attempt == MOST_LAUNCHES:
                    raise
                self._context.report(
                    FaultNoted(
                        error.category,
                        "launch_failed",
                        str(error),
                        "runner",
                        error.hint,
                    )
                )
                yield self._backoff.delay()
            else:
                self._context.report(RunnerLaunched(self.describe(run)))
                return run
        raise AssertionError("the last attempt returns or raises")

    def describe(self, run: Run) -> dict[str, Any]:
        """What the arbiter remembers of the runner."""
        token, github = self._token, self._context.settings.github
        present = registered(self._directory)
        return {
            **describe(run),
            "labels": list(token.labels if token and token.labels else github.labels),
            "runner_group": present.pool_name if present else None,
            "runner_url": token.runner_url if token else None,
            "attempts": max(1, self._attempts),
            "began": self._began,
        }

    def _plain_environment(self) -> dict[str, str]:
        proxy = proxy_variables(self._context.settings)
        return account_environment(self._account, os.environ) | proxy


def wait_for(
    context: StepContext, running: Configuration, seconds: float
) -> Generator[float, None, Outcome]:
    """Wait for config.sh, but not for ever; dropped on the way, it is killed."""
    limit = time.monotonic() + seconds
    try:
        while (outcome := running.poll()) is None:
            if time.monotonic() >= limit:
                context.extend_liveness(KILL_SECONDS)
                return running.kill()
            yield POLL_SECONDS
    finally:
        if running.outcome is None:
            running.kill()
    return outcome


def refusal(outcome: Outcome) -> RegistrationFailed:
    """config.sh will not do it."""
    status = EXIT_STATUSES.get(outcome.category, UNAVAILABLE)
    return RegistrationFailed(
        outcome.category, outcome.kind, outcome.message, outcome.hint, status
    )


#: The folder below paths.runtime that the runner's user may fill: in the packaged
#: service a file system of its own.
REPORTS = "job"

HOOK_HINT = (
    f"make {hooks.SCRIPTS} readable for the runner's user, and call its scripts from"
    " hooks of your own; jobs are reported without them, but less is known of a failure"
)


def launch(context: StepContext, name: str, account: Account | None) -> Run:
    """Start the Listener; from here on the run's folder knows of it."""
    settings = context.settings
    directory = Path(settings.runner.directory)
    reports = Path(settings.paths.runtime) / REPORTS
    job, perflog = reports / "hooks", reports / "perflog"
    for folder in (job, perflog):
        hooks.prepare(folder, account)
    diag = diag_folder(directory)
    spec = LaunchSpec(
        run_id=uuid.uuid4().hex,
        name=name,
        directory=directory,
        argv=(str(directory / "bin" / "Runner.Listener"), "run"),
        environment=environment(context, account, job, perflog),
        account=account,
        job_directory=job,
        diag_directory=diag,
        earlier_logs=existing_logs(diag),
        oom_score_adj=RUNNER_OOM_SCORE_ADJ,
    )
    context.extend_liveness(LAUNCH_SECONDS)
    context.folder.note_registration()
    reach("runner.launching")
    run = runner_launcher(settings).start(spec)
    reach("runner.launched")
    return run


def environment(
    context: StepContext, account: Account | None, job: Path, perflog: Path
) -> dict[str, str]:
    """The Listener's environment, and with it every job's.

    Without our hooks where they could not be read: a job fails whose hook is missing.
    """
    features = context.settings.features
    scripts = Hooks(
        hooks.SCRIPTS / "job-started.sh", hooks.SCRIPTS / "job-completed.sh"
    )
    problem = hook_problem(context.settings, account) if features.job_hooks else ""
    if problem:
        context.report(
            FaultNoted("misconfig", "job_hooks_unusable", problem, "runner", HOOK_HINT)
        )
    usable = features.job_hooks and not hooks.unreadable(hooks.SCRIPTS, account)
    own = runner_environment(
        account,
        os.environ,
        job,
        scripts if usable else None,
        perflog if features.perflog else None,
    )
    return own | proxy_variables(context.settings)


def proxy_variables(settings: Settings) -> dict[str, str]:
    """What tells programs of the runner's proxy; no metadata server is behind it."""
    proxy = settings.runner.proxy
    return proxy_environment(proxy, clouds().metadata_hosts()) if proxy else {}


def clouds() -> ModuleType:
    """The clouds' modules, which few machines need here."""
    return importlib.import_module("miglet.metadata.clouds")


def hook_problem(settings: Settings, who: Account | None) -> str:
    """Why our hooks are not going to report; empty where they are."""
    return (
        hooks.unreadable(hooks.SCRIPTS, who)
        or hooks.closed(Path(settings.paths.runtime), who)
        or hooks.replaced(Path(settings.runner.directory), hooks.SCRIPTS)
    )


def hooks_report(settings: Settings) -> bool:
    """Whether our hooks report, so that their silence means something."""
    return settings.features.job_hooks and not hook_problem(
        settings, account(settings.runner.user)
    )


def describe(run: Run) -> dict[str, Any]:
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


#: Most seconds that config.sh may take at the end, and one that was left as well.
REMOVAL_SECONDS = 5.0


class RegistrationRemoval:
    """One attempt to leave no registration behind; the end does not wait for more."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._directory = Path(context.settings.runner.directory)

    def run(self) -> Generator[float, None, tuple[str, str]]:
        """Returns what became of the registration, and that in words for people."""
        try:
            return (yield from self._remove())
        except MigletError as error:
            return "failed", f"not removed: {error}"

    def _remove(self) -> Generator[float, None, tuple[str, str]]:
        yield from self._end_leftover()
        if registered(self._directory) is None:
            return "not_registered", "there was no registration left"
        danger = self._danger()
        if danger:
            forget_registration(self._directory)
            return "left_to_controller", f"left to the controller: {danger}"
        reach("removal.asking")
        token = yield from self._token()
        reach("removal.asked")
        if isinstance(token, RemovalToken):
            return (yield from self._run_config(token))
        forget_registration(self._directory)
        return token

    def _end_leftover(self) -> Steps:
        """A config.sh that a dead watcher left may still register: not after this."""
        launcher = configuration_launcher(self._context.settings)
        leftover = Configuration.leftover(launcher)
        if leftover:
            yield from wait_for(self._context, leftover, REMOVAL_SECONDS)

    def _danger(self) -> str:
        """Why no removal token may be given to config.sh; empty: it may."""
        try:
            who = account(self._context.settings.runner.user)
        except MigletError as error:
            return str(error)
        return self._context.folder.danger(who, removing=True)

    def _token(self) -> Generator[float, None, RemovalToken | tuple[str, str]]:
        """The token, or what becomes of the registration without one, and why."""
        context = self._context
        wanted = {
            "org_id": context.settings.org_id,
            "pool_id": context.settings.pool_id,
        }
        call = functools.partial(
            context.client.removal_token, wanted, context.identity.trace_id
        )
        try:
            reply = yield from request_token(
                context, call, context.settings.controller.timeout
            )
        except ControllerError as error:
            context.report(
                ControllerFailed("removal-token", error.category, str(error), 0)
            )
            return "failed", f"no removal token: {error}"
        if reply.removal is None:
            return "left_to_controller", "the controller removes the runner itself"
        return RemovalToken(**reply.removal)

    def _run_config(
        self, token: RemovalToken
    ) -> Generator[float, None, tuple[str, str]]:
        who = account(self._context.settings.runner.user)
        proxy = proxy_variables(self._context.settings)
        self._context.extend_liveness(LAUNCH_SECONDS)
        running = Configuration.remove(
            configuration_launcher(self._context.settings),
            self._directory,
            account_environment(who, os.environ) | proxy,
            who,
            token.token,
        )
        outcome = yield from wait_for(self._context, running, REMOVAL_SECONDS)
        reach("removal.ended")
        if outcome.good:
            return "removed", "removed"
        return "failed", f"not removed: {outcome.message}"
