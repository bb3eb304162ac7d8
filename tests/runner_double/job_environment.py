"""The environment of hooks and steps, and the files by which they change it.

Hooks get GITHUB_* and RUNNER_*, but neither the job's result, nor a numeric job id, nor
the workflow's `env:` (actions/runner ScriptHandler.cs, GitHubContext.cs).
"""

from __future__ import annotations

import json
import os
import platform
import uuid
from pathlib import Path
from typing import Any

from tests.runner_double.job_message import github_context

COMMAND_FILES = {
    "GITHUB_ENV": "set_env_",
    "GITHUB_PATH": "add_path_",
    "GITHUB_OUTPUT": "set_output_",
    "GITHUB_STATE": "save_state_",
    "GITHUB_STEP_SUMMARY": "step_summary_",
    "GITHUB_ARTIFACTS": "artifacts_",
    "GITHUB_ARTIFACTS_LIST": "artifacts_list_",
}
ARCHITECTURES = {"x86_64": "X64", "aarch64": "ARM64"}


class JobEnvironment:
    """Folders and variables of one job below `root`."""

    def __init__(self, root: Path, job: dict[str, Any], runner_name: str) -> None:
        self._job = job
        self._runner_name = runner_name
        self._work = root / "_work"
        self.temp = self._work / "_temp"
        repository = job["repository"].split("/")[-1]
        self.workspace = self._work / repository / repository
        #: The step that ran last leaves its name to what comes after it.
        self.action: dict[str, str] = {}
        #: Variables from GITHUB_ENV files, and folders from GITHUB_PATH files.
        self._added: dict[str, str] = {}
        self._paths: list[str] = []

    def lay_out(self) -> None:
        """Create the folders and `event.json`."""
        for folder in (
            self.workspace,
            self.temp / "_github_workflow",
            self.temp / "_runner_file_commands",
            self._work / "_tool",
            self._work / "_actions",
        ):
            folder.mkdir(parents=True, exist_ok=True)
        event = github_context(self._job)["event"]
        self._event_path.write_text(json.dumps(event))

    def variables(self) -> dict[str, str]:
        """What a hook gets, with fresh command files."""
        context = github_context(self._job)
        github = {
            f"GITHUB_{key.upper()}": str(value).lower() if value is False else value
            for key, value in context.items()
            if key != "event"
        }
        inherited = {**os.environ, **self._added}
        inherited["PATH"] = ":".join([*self._paths, inherited.get("PATH", "/usr/bin")])
        return {
            **inherited,
            "CI": os.environ.get("CI", "true"),
            "GITHUB_ACTIONS": "true",
            **github,
            **self.action,
            "GITHUB_EVENT_PATH": str(self._event_path),
            "GITHUB_WORKSPACE": str(self.workspace),
            **self._runner_variables(),
            **self._command_files(),
        }

    def name_step(self, number: int) -> None:
        """The step with this number, from 0, is about to run."""
        self.action = {
            "GITHUB_ACTION": f"__run_{number}",
            "GITHUB_ACTION_REF": "",
            "GITHUB_ACTION_REPOSITORY": "",
        }

    def absorb(self, variables: dict[str, str]) -> None:
        """Read what the process wrote into GITHUB_ENV and GITHUB_PATH."""
        for line in Path(variables["GITHUB_ENV"]).read_text().splitlines():
            key, equals, value = line.partition("=")
            if equals:
                self._added[key] = value
        for folder in Path(variables["GITHUB_PATH"]).read_text().splitlines():
            self._paths.insert(0, folder)

    @property
    def _event_path(self) -> Path:
        return self.temp / "_github_workflow" / "event.json"

    def _runner_variables(self) -> dict[str, str]:
        machine = platform.machine()
        return {
            "RUNNER_OS": "Linux",
            "RUNNER_ARCH": ARCHITECTURES.get(machine, machine),
            "RUNNER_NAME": self._runner_name,
            "RUNNER_TOOL_CACHE": str(self._work / "_tool"),
            "RUNNER_TEMP": str(self.temp),
            "RUNNER_WORKSPACE": str(self.workspace.parent),
            "RUNNER_TRACKING_ID": self._job["tracking_id"],
        }

    def _command_files(self) -> dict[str, str]:
        suffix = str(uuid.uuid4())
        folder = self.temp / "_runner_file_commands"
        paths = {key: folder / f"{name}{suffix}" for key, name in COMMAND_FILES.items()}
        for path in paths.values():
            path.touch()
        return {key: str(path) for key, path in paths.items()}
