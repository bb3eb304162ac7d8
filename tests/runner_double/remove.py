"""`config.sh remove`: the service first, then the files, which stay on an error."""

from __future__ import annotations

from tests.runner_double import registry
from tests.runner_double.configure import required
from tests.runner_double.host import CREDENTIALS, SETTINGS, Exit, Host
from tests.runner_double.options import Options
from tests.runner_double.refusals import (
    STATUSES,
    ask_in_vain,
    refuse,
    token_outcome,
)

API = "https://api.github.com/actions/runners/remove-token"
SERVICE = "https://api.github.com/actions/runners"
ABSENT = (
    "Cannot connect to server, because config files are missing."
    " Skipping removing runner from the server."
)


def remove_from_server(host: Host, options: Options, name: str) -> None:
    """Drop the runner from the register, or say how the service refuses."""
    entry = host.plan.next_entry(host.root, "remove")
    token = required(host, options, "token")
    refuse(host, token_outcome(host.plan.entries["remove_tokens"], token), API)
    outcome = entry.get("outcome", "ok")
    if outcome in STATUSES:
        registry.note(host.root, "removal_refused", name=name, why=outcome)
        message = ask_in_vain(host, outcome, f"Delete {SERVICE}/{name}")
        host.terminal.error("Failed: Removing runner from the server")
        host.terminal.error(message)
        raise Exit(1)
    known = registry.drop(host.root, name, "removed")
    if known and outcome != "gone":
        host.terminal.success("Runner removed successfully")
    else:
        host.terminal.line("Does not exist. Skipping Removing runner from the server")


def remove_local(host: Host) -> None:
    for names in (CREDENTIALS, SETTINGS):
        present = [name for name in names if (host.root / name).exists()]
        for name in present:
            (host.root / name).unlink()
        if present:
            host.terminal.success(f"Removed {names[0]}")
        else:
            host.terminal.line(f"Does not exist. Skipping Removing {names[0]}")


def remove(host: Host, options: Options) -> int:
    """Play one `config.sh remove`; the exit code, or Exit."""
    if options.flag("local"):
        remove_local(host)
        return 0
    host.terminal.section("Runner removal")
    host.terminal.line()
    if (host.root / ".service").exists():
        host.terminal.error("Uninstall service first")
        raise Exit(1)
    name = host.settings().get("agentname")
    if name is None:
        host.terminal.line(ABSENT)
    else:
        remove_from_server(host, options, name)
    remove_local(host)
    host.terminal.line()
    return 0
