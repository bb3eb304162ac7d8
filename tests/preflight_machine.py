"""A machine with nothing wrong, for the tests of the checks, and a look at it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import miglet.bootstrap.preflight  # noqa: F401  # registers the checks
from miglet.bootstrap.framework import CHECKS, outcome
from miglet.config.load import load
from miglet.config.settings import Settings
from miglet.config.sources import layers_of
from tests.runner_double.double import install


def settings_of(folder: Path, **changes: object) -> Settings:
    """Settings of a sound machine laid out in `folder`, but for `changes`.

    `__` stands for the dot of a key.
    """
    if not (folder / "runner").exists() and not (folder / "moved").exists():
        lay_out(folder)
    plain = {
        "pool_id": "p",
        "vm_id": "v",
        "org_id": "o",
        "controller.endpoint": "http://127.0.0.1:1",
        "controller.auth.token_path": folder / "token",
        "runner.directory": folder / "runner",
        "runner.user": "",
        "bootstrap.network": "no",
        "bootstrap.docker": "off",
        "bootstrap.min_free_disk": "1MB",
        "paths.state": folder / "state",
        "paths.runtime": folder / "run",
    }
    named = {key.replace("__", "."): value for key, value in changes.items()}
    words = [f"{key}={value}" for key, value in {**plain, **named}.items()]
    config = {"MIGLET_CONFIG": str(folder / "empty.yaml")}
    return load(layers_of(config, words)).settings


def lay_out(folder: Path) -> None:
    """A runner with its Node.js, a token, a configuration that says nothing."""
    install(folder / "runner", {})
    (folder / "runner" / "externals" / "node20").mkdir(parents=True)
    (folder / "empty.yaml").write_text("")
    (folder / "token").write_text("secret-token\n")
    (folder / "token").chmod(0o600)


def look(name: str, settings: Settings, seconds: float = 5.0) -> dict[str, Any]:
    """What one check finds; it has so many seconds."""
    return outcome(name, CHECKS[name], settings, time.monotonic() + seconds)
