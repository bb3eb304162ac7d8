"""Runs `config.sh`, which registers the runner with GitHub or removes it again.

It runs behind a shim of its own, like the runner: one that is left by a watcher which
died is found and ended, never run beside. The token is in its environment and nowhere
else. Nothing in here waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from miglet.formats import one_line
from miglet.messages.codec import Value, frozen_value
from miglet.redaction import remember_secret
from miglet.runner.installation import FolderUnusable, Problem, registration_files
from miglet.runner.launcher import Launcher, LaunchSpec
from miglet.runner.registration_errors import (
    TIMED_OUT,
    Outcome,
    failed,
    interpret,
    interpret_removal,
)
from miglet.runner.run import Run
from miglet.supervisor.privileges import Account

#: How config.sh gets a token without it being on a command line
#: (actions/runner CommandSettings.cs).
TOKEN_VARIABLE = "ACTIONS_RUNNER_INPUT_TOKEN"

#: What config.sh writes are credentials: for the runner's user alone.
PRIVATE_UMASK = 0o077


@frozen_value
class Registration(Value):
    """What the runner is to be registered as, and by whom."""

    directory: Path
    url: str
    name: str
    labels: tuple[str, ...]
    #: Empty: the organisation's default group.
    runner_group: str
    environment: Mapping[str, str] = field(repr=False)
    account: Account | None = None
    #: The runner's work folder; None leaves it at `_work`.
    work: str | None = None

    def argv(self) -> tuple[str, ...]:
        """The command line of config.sh; raises FolderUnusable on a value it misreads.

        It takes a value that begins with a dash for an option, and drops it. One with a
        line break is not what anybody meant, and ends up in files of one line a value.
        """
        options = {
            "--url": self.url,
            "--name": self.name,
            "--labels": ",".join(self.labels),
            "--runnergroup": self.runner_group,
            "--work": self.work or "",
        }
        given = [pair for pair in options.items() if pair[1]]
        misread = [
            Problem(
                f"{option} {value!r} begins with a dash or has control characters",
                "correct that setting",
            )
            for option, value in given
            if value.startswith("-") or value != one_line(value)
        ]
        if misread:
            raise FolderUnusable(misread)
        flags = ("--unattended", "--ephemeral", "--disableupdate", "--replace")
        return (*flags, *(word for pair in given for word in pair))


class Configuration:
    """One run of config.sh, until its outcome is known."""

    def __init__(self, launcher: Launcher, run: Run) -> None:
        self.launcher = launcher
        self.run = run
        self.outcome: Outcome | None = None

    @classmethod
    def start(
        cls, launcher: Launcher, wanted: Registration, token: str
    ) -> Configuration:
        """Begin to register the runner; `launcher` is for such runs alone.

        Raises RunnerPresent, FolderUnusable or LaunchFailed.
        """
        environment = with_token(wanted.environment, token)
        argv = wanted.argv()
        return cls.launch(launcher, wanted.directory, argv, environment, wanted.account)

    @classmethod
    def remove(
        cls,
        launcher: Launcher,
        directory: Path,
        environment: Mapping[str, str],
        account: Account | None,
        token: str,
    ) -> Configuration:
        """Begin to remove the registration, with a removal token; raises as `start`."""
        secret = with_token(environment, token)
        return cls.launch(launcher, directory, ("remove",), secret, account)

    @classmethod
    def launch(
        cls,
        launcher: Launcher,
        directory: Path,
        arguments: tuple[str, ...],
        environment: Mapping[str, str],
        account: Account | None,
    ) -> Configuration:
        """Start config.sh with `arguments`, in the runner's folder as it requires."""
        spec = LaunchSpec(
            run_id="configuration",
            name="config.sh",
            directory=directory,
            argv=(str(directory / "config.sh"), *arguments),
            environment=environment,
            account=account,
            umask=PRIVATE_UMASK,
        )
        return cls(launcher, launcher.start(spec))

    @classmethod
    def leftover(cls, launcher: Launcher) -> Configuration | None:
        """The run that a dead watcher left, to be polled or killed before another."""
        run = launcher.find()
        return cls(launcher, run) if run else None

    @property
    def removing(self) -> bool:
        """Whether it removes the registration, rather than makes one."""
        return self.run.argv[1:2] == ("remove",)

    def poll(self) -> Outcome | None:
        """What came of it; None while it runs. Afterwards another can be started."""
        if self.outcome is None and (status := self.run.ended()):
            self.outcome = self.judged(status.shell_code)
            self.clear()
        return self.outcome

    def judged(self, exit_code: int | None) -> Outcome:
        """The outcome of the run that has ended."""
        output = self.run.printed()
        if self.removing:
            return interpret_removal(exit_code, output)
        return interpret(exit_code, output, registration_files(self.run.directory))

    def kill(self) -> Outcome:
        """End it, because its time is up, with all that it started."""
        outcome = self.poll()
        if outcome is None:
            outcome = self.outcome = failed(TIMED_OUT, self.run.printed())
            self.clear()
        return outcome

    def clear(self) -> None:
        """Leave nothing behind: no process that would write later, no record."""
        self.run.kill()
        self.run.forget()

    def wait_descriptor(self) -> int | None:
        """A pidfd that is readable when config.sh has ended, as of `Run`."""
        return self.run.wait_descriptor()


def with_token(environment: Mapping[str, str], token: str) -> dict[str, str]:
    """`environment` with the token, which no log shows from now on."""
    remember_secret(token)
    return {**environment, TOKEN_VARIABLE: token}
