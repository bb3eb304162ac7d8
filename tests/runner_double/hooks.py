"""Which program a job hook is run with, and why it may not be run at all.

The extension decides; neither a shebang nor an execute bit is looked at
(actions/runner JobHookProvider.cs).
"""

from __future__ import annotations

import os
import shutil

STARTED = "ACTIONS_RUNNER_HOOK_JOB_STARTED"
COMPLETED = "ACTIONS_RUNNER_HOOK_JOB_COMPLETED"


class HookUnusable(Exception):
    """The hook cannot be run; its text is what the job's log says."""


def shell_for(path: str, search_path: str) -> list[str]:
    """The command line that runs the hook, its program found along `search_path`."""
    if path.endswith(".sh"):
        shell = shutil.which("bash", path=search_path) or shutil.which(
            "sh", path=search_path
        )
        return [shell or "/bin/sh", "-e", path]
    if path.endswith(".ps1"):
        return [shutil.which("pwsh", path=search_path) or "powershell", "-command", path]
    if path.endswith(".js"):
        return [shutil.which("node", path=search_path) or "node", path]
    raise HookUnusable(
        f"{path} is not a valid path to a script."
        " Make sure it ends in '.sh', '.ps1' or '.js'."
    )


def command_for(path: str, search_path: str) -> list[str]:
    """As `shell_for`, after a look whether the file exists."""
    if not os.path.isfile(path):
        raise HookUnusable("File doesn't exist")
    return shell_for(path, search_path)
