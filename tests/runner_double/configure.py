"""`config.sh`: what `Runner.Listener configure` prints, writes and answers.

Files appear in the order of the real one: the RSA key before the registration, settings
and credentials after it (actions/runner ConfigurationManager.cs).
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
from typing import Any

from tests.runner_double import registry
from tests.runner_double.host import Exit, Host
from tests.runner_double.options import Options
from tests.runner_double.refusals import refuse, token_outcome

API = "https://api.github.com/actions/runner-registration"
WIDTH = 78
#: How long the exchange of the token takes, as far as it can be seen from outside.
EXCHANGE = 0.3
ALREADY = (
    "Cannot configure the runner because it is already configured. To reconfigure the"
    " runner, run 'config.cmd remove' or './config.sh remove' first."
)
CLOCK = (
    "The local machine's clock may be out of sync with the server time by more than"
    " five minutes. Please sync your clock with your domain or internet time and try"
    " again."
)
OLD_SERVER = (
    "The GitHub server does not support configuring a self-hosted runner with"
    " 'Ephemeral' flag."
)
SVC = """#!/bin/bash
if [ "$(id -u)" -ne 0 ]; then echo "Must run as sudo"; exit 1; fi
echo "This double runs no services"; exit 1
"""


def fail(host: Host, message: str) -> None:
    """Say what is wrong and leave as a failed command does."""
    host.terminal.error(message)
    raise Exit(1)


def banner(host: Host) -> None:
    terminal = host.terminal
    terminal.line()
    terminal.line("-" * (WIDTH + 2))
    for text in ("", "G i t H u b   A c t i o n s", "", "", "", ""):
        terminal.line(f"|{text.center(WIDTH)}|")
    terminal.line(f"|{'Self-hosted runner registration'.center(WIDTH)}|")
    terminal.line(f"|{' ' * WIDTH}|")
    terminal.line("-" * (WIDTH + 2))


def required(host: Host, options: Options, name: str) -> str:
    value = options.value(name)
    if not value:
        fail(
            host,
            f"Invalid configuration provided for {name}."
            " Terminating unattended configuration.",
        )
    return value


def stall(host: Host, entry: dict[str, Any], stage: str) -> None:
    """Hang for ever if the plan says so for this stage; SIGTERM does not help then."""
    if entry.get("outcome") != "hang" or entry.get("at", "authentication") != stage:
        return
    if entry.get("ignore_signals", True):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    host.record("config_hangs", stage=stage)
    host.loop.run_forever()


def write_json(host: Host, name: str, content: dict[str, Any]) -> None:
    """Indented JSON behind a byte order mark."""
    text = json.dumps(content, indent=2)
    (host.root / name).write_text(text, encoding="utf-8-sig")


def write_key(host: Host) -> None:
    """`.credentials_rsaparams`, mode 600; an existing one is used again."""
    path = host.root / ".credentials_rsaparams"
    if path.exists():
        return
    names = ("d", "dp", "dq", "exponent", "inverseQ", "modulus", "p", "q")
    key = {name: base64.b64encode(os.urandom(32)).decode() for name in names}
    write_json(host, path.name, key)
    path.chmod(0o600)


def settings(
    options: Options, name: str, agent_id: int, broker: bool
) -> dict[str, Any]:
    """What `.runner` says; an older server is not asked about flows."""
    url = options.value("url")
    found: dict[str, Any] = {"agentId": agent_id, "agentName": name}
    found.update({"poolId": 1, "poolName": "Default"})
    for key, flag in (("disableUpdate", "disableupdate"), ("ephemeral", "ephemeral")):
        if options.flag(flag):
            found[key] = True
    found.update(
        serverUrl="https://pipelinesghubeus1.actions.githubusercontent.com/double/",
        gitHubUrl=url,
        workFolder=options.value("work", "_work"),
    )
    if broker:
        found.update(
            useV2Flow=True,
            useRunnerAdminFlow=True,
            serverUrlV2="https://broker.actions.githubusercontent.com/",
        )
    return found


def credentials() -> dict[str, Any]:
    where = "https://token.actions.githubusercontent.com/_apis/oauth2/token"
    return {
        "scheme": "OAuth",
        "data": {
            "clientId": "00000000-0000-4000-8000-000000000001",
            "authorizationUrl": where,
            "requireFipsCryptography": "True",
        },
    }


def authenticate(host: Host, options: Options, entry: dict[str, Any]) -> None:
    host.terminal.section("Authentication")
    required(host, options, "url")
    token = required(host, options, "token")
    stall(host, entry, "authentication")
    host.call("runner-registration")
    host.loop.run_for(entry.get("seconds", host.plan.scaled(EXCHANGE)))
    planned = entry.get("outcome", "ok")
    outcome = token_outcome(host.plan.entries["tokens"], token)
    refuse(host, planned if outcome == "ok" else outcome, API)
    host.terminal.line()
    host.terminal.success("Connected to GitHub")


def choose_group(host: Host, options: Options, entry: dict[str, Any]) -> None:
    group = options.value("runnergroup", "default")
    if entry.get("outcome") == "group_unknown":
        fail(host, f'Could not find any self-hosted runner group named "{group}".')
    if entry.get("groups"):
        host.terminal.line()


def claim_name(host: Host, options: Options, entry: dict[str, Any]) -> str:
    """The name to register, with what is said if somebody has it already."""
    name = options.value("name", socket.gethostname())
    wished = entry.get("outcome") in ("replace", "name_taken")
    if not wished and not registry.is_taken(host.root, name):
        return "Runner successfully added"
    host.terminal.line("A runner exists with the same name")
    if not options.flag("replace") or entry.get("outcome") == "name_taken":
        registry.note(host.root, "refused", name=name, why="name_taken")
        fail(host, f"A runner exists with the same name {name}.")
    return "Successfully replaced the runner"


def register(host: Host, options: Options, entry: dict[str, Any]) -> None:
    """The registration proper; from its end on the service knows the name."""
    terminal = host.terminal
    terminal.section("Runner Registration")
    write_key(host)
    stall(host, entry, "registration")
    choose_group(host, options, entry)
    terminal.line()
    terminal.line()
    success = claim_name(host, options, entry)
    if entry.get("outcome") == "old_server":
        fail(host, OLD_SERVER)
    name = options.value("name", socket.gethostname())
    host.agent_id = registry.register(
        host.root,
        name,
        url=options.value("url"),
        labels=options.value("labels"),
        group=options.value("runnergroup"),
        ephemeral=options.flag("ephemeral"),
        token_sha256=registry.fingerprint(options.value("token")),
        token_from=options.source("token"),
    )
    host.call("register")
    host.record("registered", name=name, agent_id=host.agent_id)
    stall(host, entry, "registered")
    terminal.success(success)
    if entry.get("outcome") == "clock":
        fail(host, CLOCK)
    if entry.get("connection_test", not host.plan.uses_broker):
        terminal.success("Runner connection is good")


def save(host: Host, options: Options) -> None:
    terminal = host.terminal
    terminal.section("Runner settings")
    name = options.value("name", socket.gethostname())
    broker = host.plan.uses_broker
    write_json(host, ".runner", settings(options, name, host.agent_id, broker))
    write_json(host, ".credentials", credentials())
    script = host.root / "svc.sh"
    script.write_text(SVC)
    script.chmod(0o755)
    host.rest_until_age(host.plan.times.configure)
    terminal.line()
    terminal.success("Settings Saved.")
    terminal.line()


def configure(host: Host, options: Options) -> int:
    """Play one `config.sh`; the exit code, or Exit."""
    entry = host.plan.next_entry(host.root, "config")
    banner(host)
    if any((host.root / name).exists() for name in (".runner", ".runner_migrated")):
        fail(host, ALREADY)
    authenticate(host, options, entry)
    register(host, options, entry)
    save(host, options)
    return 0
