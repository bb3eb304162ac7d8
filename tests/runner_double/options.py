"""Options of the runner: command line, `ACTIONS_RUNNER_INPUT_*`, and the `.env` file.

The command line wins; of duplicates the first wins; `--a=b` is no form the runner knows
(actions/runner CommandLineParser.cs, CommandSettings.cs).
"""

from __future__ import annotations

import os
from pathlib import Path

PREFIX = "ACTIONS_RUNNER_INPUT_"
SECRETS = {"token", "pat", "jitconfig"}
COMMANDS = {"configure", "remove", "run", "warmup"}
ANYWHERE = {"help", "version", "commit", "check"}
KNOWN = {
    "configure": {
        *("unattended", "replace", "ephemeral", "disableupdate", "no-default-labels"),
        *("generateserviceconfig", "runasservice", "url", "token", "pat", "name"),
        *("runnergroup", "labels", "work", "monitorsocketaddress", "auth"),
        *("username", "windowslogonaccount", "windowslogonpassword"),
    },
    "remove": {"token", "pat", "local", "unattended"},
    "run": {"once", "jitconfig", "startuptype"},
    "warmup": set(),
}


def load_env_file(root: Path) -> None:
    """Let `.env` override the environment; `KEY=` deletes KEY."""
    path = root / ".env"
    for line in path.read_text().splitlines() if path.exists() else []:
        key, equals, value = line.partition("=")
        if key and value:
            os.environ[key] = value
        elif key and equals:
            os.environ.pop(key, None)


class Options:
    """What was asked for, and in which way."""

    def __init__(self) -> None:
        self.command = ""
        self.flags: set[str] = set()
        self.values: dict[str, str] = {}
        self.inputs: dict[str, str] = {}
        self.unknown: list[str] = []

    def flag(self, name: str) -> bool:
        """Whether a flag is up; in the environment only `true` raises it, not `1`."""
        return name in self.flags or self.inputs.get(name, "").lower() == "true"

    def value(self, name: str, default: str = "") -> str:
        return self.values.get(name) or self.inputs.get(name) or default

    def source(self, name: str) -> str | None:
        """Where the value of `name` came from: `argv`, `environment` or nowhere."""
        if self.values.get(name):
            return "argv"
        return "environment" if self.inputs.get(name) else None


def take_inputs() -> dict[str, str]:
    """The inputs in the environment, which then has them no longer."""
    names = [name for name in os.environ if name.upper().startswith(PREFIX)]
    return {name[len(PREFIX) :].lower(): os.environ.pop(name).strip() for name in names}


def parse(arguments: list[str]) -> Options:
    """Options from the command line alone."""
    options = Options()
    words: list[str] = []
    scope = ""
    for argument in [*arguments, "--"]:
        if argument.startswith("-"):
            if scope:
                options.flags.add(scope)
            scope = argument.lstrip("-").lower()
        elif scope:
            options.values.setdefault(scope, argument.strip())
            scope = ""
        else:
            words.append(argument.lower())
    options.command = next((word for word in words if word in COMMANDS), "")
    allowed = KNOWN.get(options.command, set()) | ANYWHERE
    options.unknown = [word for word in words if word not in COMMANDS]
    options.unknown += [
        name for name in [*options.flags, *options.values] if name not in allowed
    ]
    return options


def masked(arguments: list[str], options: Options) -> list[str]:
    """The command line without its secrets."""
    secrets = {options.values.get(name) for name in SECRETS} - {None}
    return ["***" if argument in secrets else argument for argument in arguments]
