"""The check of Docker: its socket answers or will soon, and the job may use it.

An optional Docker costs the boot two seconds at most, and nothing where there is none.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import time
from pathlib import Path

from miglet.bootstrap.framework import CheckWarning, Finding, Unavailable, check
from miglet.bootstrap.probe import ask
from miglet.bootstrap.runner import runner_account
from miglet.config.settings import Settings
from miglet.runner.installation import may, named
from miglet.supervisor.privileges import Account

SOCKET = "/var/run/docker.sock"

#: Seconds that an optional Docker may take to answer.
OPTIONAL_SECONDS = 2.0

#: Seconds that one ping may take. A socket that systemd listens on accepts it long
#: before Docker is there.
PING_SECONDS = 2.0

#: Seconds between two tries while it starts.
PAUSE_SECONDS = 0.2


@check
def docker(settings: Settings, deadline: float) -> str:
    """Docker answers; a required one is waited for while it starts."""
    wanted = settings.bootstrap.docker
    if wanted == "off":
        return "not asked for"
    path = socket_path(os.environ.get("DOCKER_HOST", ""))
    user = runner_account(settings)
    if wanted == "required":
        return _answering(path, deadline, Unavailable, user)
    if not os.path.exists(path) and not shutil.which("dockerd"):
        return f"not installed (no {path})"
    brief = min(deadline, time.monotonic() + OPTIONAL_SECONDS)
    return _answering(path, brief, CheckWarning, user)


def socket_path(host: str) -> str:
    """The Unix socket that DOCKER_HOST names, or the usual one.

    Raises CheckWarning for another kind of address; it may hold a password.
    """
    scheme, _, path = host.partition("://")
    if host and scheme != "unix":
        hint = "unset DOCKER_HOST, or set bootstrap.docker to off"
        raise CheckWarning(f"DOCKER_HOST is a {scheme} address: not checked", hint)
    return path or SOCKET


def _answering(
    path: str, deadline: float, kind: type[Finding], user: Account | None
) -> str:
    failure = wait_for(path, deadline)
    if failure:
        hint = "is the docker service enabled in the image? See bootstrap.docker"
        raise kind(f"{path}: {failure}", hint)
    if not may(Path(path), user, os.W_OK):
        hint = "put that user in the socket's group (usermod -aG docker USER)"
        raise CheckWarning(f"answers at {path}, but not to {named(user)}", hint)
    return f"answers at {path}"


def wait_for(path: str, deadline: float) -> str:
    """Why it does not answer; empty as soon as it does.

    Being kept out is final: Docker makes its socket as it starts, with its rights.
    """
    while True:
        try:
            failure = ping(path, min(deadline, time.monotonic() + PING_SECONDS))
        except PermissionError:
            return "MIGlet's user may not use it"
        # No try in the very last moment: it would only tell that it had no time.
        if not failure or deadline - time.monotonic() <= 2 * PAUSE_SECONDS:
            return failure
        select.select([], [], [], PAUSE_SECONDS)


def ping(path: str, deadline: float) -> str:
    """One ``GET /_ping`` of the Docker Engine API; what was wrong with the answer.

    Raises PermissionError.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            connection.connect(path)
            answer = ask(connection, "GET /_ping", "docker", deadline)
        except TimeoutError:
            return "accepts connections, but does not answer"
        except PermissionError:
            raise
        except OSError as error:
            return error.strerror or str(error)
    return "" if answer.status == 200 else f"answered {answer.text[:80]!r}"
