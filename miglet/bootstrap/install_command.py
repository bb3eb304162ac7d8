"""``miglet install-runner``: the runner's release, put where MIGlet will start it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from miglet.config.load import drafted
from miglet.config.sources import layers_of
from miglet.errors import DONE, MISCONFIGURED
from miglet.runner.installation import runner_version
from miglet.runner.ownership import REINSTALL, same_user, weakness
from miglet.runner.release import dependency_problems, install_release
from miglet.supervisor.privileges import account


def install(sources: dict[str, Any], archive: str, sha256: str | None) -> int:
    """Install `archive` as ``runner.directory`` for ``runner.user``; the exit status.

    Only these two settings matter: an image is built before the rest is known.
    """
    values = drafted(layers_of(os.environ, **sources)).values
    directory = Path(values["runner.directory"])
    user = account(values["runner.user"])
    install_release(Path(archive), directory, user, sha256)
    say(f"actions/runner {runner_version(directory) or ''} is in {directory}")
    if same_user(user):
        say(f"jobs run as {user.name}, as MIGlet does: they can change the runner")
    elif weak := weakness(directory):
        say(f"jobs can change the runner: {weak}; {REINSTALL}")
    problems = dependency_problems(directory)
    for problem in problems:
        say(str(problem))
    return MISCONFIGURED if problems else DONE


def say(text: str) -> None:
    """One line on stdout."""
    sys.stdout.write(text + "\n")
