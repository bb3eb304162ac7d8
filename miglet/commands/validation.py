"""In a short-lived child: holds commands and changed settings against their schemas.

All or nothing: the answer has either no fault, or every fault and no effect.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from typing import Any

import jsonschema

from miglet.config.load import Loaded, explanation, origins_of, reload, update
from miglet.config.settings import Settings
from miglet.controller import contract
from miglet.errors import Misconfigured
from miglet.formats import canonical_command
from miglet.messages.facts import CommandValidated
from miglet.metadata.attempts import Limits
from miglet.metadata.sources import keep_token, sources_of
from miglet.supervisor.failpoints import reach
from miglet.supervisor.queues import Queue

#: A reload ends before its child task counts as hung.
BRIEFLY = Limits(overall_seconds=5.0)

#: The command whose parameters are settings.
UPDATE = "UpdateConfig"


def validate_command(
    queue: Queue, command: dict[str, Any], faults: list[str], current: dict[str, Any]
) -> None:
    """Report CommandValidated for the command."""
    reach("command.validating")
    found = list(faults) or list(command_faults(command["type"], command["parameters"]))
    settings = None
    if not found and canonical_command(command["type"]) == canonical_command(UPDATE):
        try:
            parameters = command["parameters"]
            overlay = parameters.get("config", parameters)
            settings = update(loaded_of(current), overlay)
        except Misconfigured as error:
            found = [str(fault) for fault in error.faults]
    queue.put(answer(command, found, settings))


def validate_reload(
    queue: Queue, sources: dict[str, Any], current: dict[str, Any]
) -> None:
    """Report CommandValidated for the configuration as it is now."""
    command = {"id": "", "type": UPDATE, "parameters": {}, "requested_by": "SIGHUP"}
    try:
        found = sources_of(os.environ, sources, BRIEFLY)
        settings = reload(loaded_of(current), found.whole())
        keep_token(found, settings.settings)
    except Misconfigured as error:
        queue.put(answer(command, [str(fault) for fault in error.faults], None))
    else:
        queue.put(answer(command, [], settings))


def answer(
    command: dict[str, Any], faults: list[str], loaded: Loaded | None
) -> CommandValidated:
    """What is reported to the arbiter."""
    return CommandValidated(
        **command,
        faults=faults,
        settings=loaded.settings.as_dict() if loaded else None,
        origins=explanation(loaded) if loaded else None,
    )


def command_faults(kind: str, parameters: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the command, by its JSON Schema."""
    names = {canonical_command(name): name for name in contract.COMMANDS}
    if canonical_command(kind) not in names:
        yield unknown_command(kind)
        return
    schema = contract.schema(f"command-{names[canonical_command(kind)]}")
    for error in jsonschema.Draft7Validator(schema).iter_errors(parameters):
        place = ".".join(map(str, error.absolute_path)) or "parameters"
        expected = error.schema.get("x-expected")
        yield f"{place}: {f'expected {expected}' if expected else error.message[:300]}"


def unknown_command(kind: str) -> str:
    """An unknown command, with the nearest known one."""
    near = difflib.get_close_matches(kind, contract.COMMANDS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown command {kind!r}{hint}"


def loaded_of(current: dict[str, Any]) -> Loaded:
    """The configuration in force."""
    return Loaded(Settings.of(current["settings"]), origins_of(current["origins"]))
