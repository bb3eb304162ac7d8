"""The environment that the runner, its jobs and its hooks get, and all of it.

Everything in here can be read by every job, so no secret ever is; of MIGlet's own
environment only the search path and the language are passed on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from miglet.supervisor.privileges import Account
from miglet.supervisor.privileges import account as account_named

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_LANG = "C.UTF-8"

#: Names under which programs look for a proxy; there is no agreement on the case.
PROXY_NAMES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
NO_PROXY = "localhost,127.0.0.1,::1,169.254.169.254,metadata.google.internal"


class Hooks(NamedTuple):
    """The scripts that the runner's Worker runs before and after a job."""

    started: Path
    completed: Path


def account_environment(
    account: Account | None, base: Mapping[str, str]
) -> dict[str, str]:
    """What any program of the runner's needs: where it is, and who it is.

    As root actions/runner refuses to work unless it is told that this is meant.
    """
    who = account if account and os.geteuid() == 0 else account_named(None)
    environment = {
        "PATH": base.get("PATH") or DEFAULT_PATH,
        "LANG": base.get("LANG") or DEFAULT_LANG,
        "HOME": who.home,
        "USER": who.name,
        "LOGNAME": who.name,
    }
    if who.uid == 0:
        environment["RUNNER_ALLOW_RUNASROOT"] = "1"
    return environment


def proxy_environment(proxy: str | None) -> dict[str, str]:
    """The proxy in all its spellings; the metadata server is never behind one."""
    if not proxy:
        return {}
    return {
        **dict.fromkeys(PROXY_NAMES, proxy),
        "no_proxy": NO_PROXY,
        "NO_PROXY": NO_PROXY,
    }


def runner_environment(
    account: Account | None,
    base: Mapping[str, str],
    job_directory: Path,
    hooks: Hooks | None = None,
    perflog: Path | None = None,
    proxy: str | None = None,
) -> dict[str, str]:
    """The Listener's whole environment.

    `hooks` and `perflog`, a folder that the runner's user can write to, are further
    sources of a job's signs (actions/runner JobExtension.cs, HostContext.cs).
    """
    environment = account_environment(account, base) | proxy_environment(proxy)
    environment["MIGLET_JOB_DIRECTORY"] = str(job_directory)
    environment["ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE"] = "1"
    if hooks:
        environment["ACTIONS_RUNNER_HOOK_JOB_STARTED"] = str(hooks.started)
        environment["ACTIONS_RUNNER_HOOK_JOB_COMPLETED"] = str(hooks.completed)
    if perflog:
        environment["RUNNER_PERFLOG"] = str(perflog)
    return environment
