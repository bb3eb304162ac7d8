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


#: By extension: programs in order of preference, and their arguments before the path.
SHELLS = {
    ".sh": (("bash", "sh"), ["-e"]),
    ".ps1": (("pwsh", "powershell"), ["-command"]),
    ".js": (("node",), []),
}


def command_for(path: str, search_path: str) -> list[str]:
    """The command line for the hook, its program found along `search_path`."""
    if not os.path.isfile(path):
        raise HookUnusable("File doesn't exist")
    extension = os.path.splitext(path)[1]
    if extension not in SHELLS:
        raise HookUnusable(
            f"{path} is not a valid path to a script."
            " Make sure it ends in '.sh', '.ps1' or '.js'."
        )
    names, arguments = SHELLS[extension]
    for name in names:
        if program := shutil.which(name, path=search_path):
            return [program, *arguments, path]
    raise HookUnusable(f"{names[-1]}: command not found")
