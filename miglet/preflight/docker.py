"""The check of Docker: its socket answers, or will soon."""

from __future__ import annotations

import os
import select
import socket
import time

from miglet.config.settings import Settings
from miglet.preflight.registry import Notable, Unavailable, check

SOCKET = "/var/run/docker.sock"

#: Seconds that an optional Docker may take to answer.
OPTIONAL_SECONDS = 2.0

#: Seconds between two tries while it starts.
PAUSE_SECONDS = 0.2


@check
def docker(settings: Settings, deadline: float) -> str:
    """Docker answers; a required one is waited for while it starts."""
    wanted = settings.bootstrap.docker
    if wanted == "off":
        return "not asked for"
    path = socket_path(os.environ.get("DOCKER_HOST", ""))
    if wanted == "optional":
        if not os.path.exists(path):
            return f"not installed (no {path})"
        deadline = min(deadline, time.monotonic() + OPTIONAL_SECONDS)
    trouble = wait_for(path, deadline)
    if not trouble:
        return f"answers at {path}"
    hint = "is the docker service enabled in the image? See bootstrap.docker"
    kind = Unavailable if wanted == "required" else Notable
    raise kind(f"{path}: {trouble}", hint)


def socket_path(host: str) -> str:
    """The Unix socket that DOCKER_HOST names, or the usual one."""
    return host.removeprefix("unix://") if host.startswith("unix://") else SOCKET


def wait_for(path: str, deadline: float) -> str:
    """Why it does not answer; empty as soon as it does."""
    while True:
        trouble = ping(path, deadline)
        left = deadline - time.monotonic()
        if not trouble or left <= 0:
            return trouble
        select.select([], [], [], min(PAUSE_SECONDS, left))


def ping(path: str, deadline: float) -> str:
    """One ``GET /_ping`` of the Docker Engine API; what was wrong with the answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(max(0.05, min(2.0, deadline - time.monotonic())))
        try:
            connection.connect(path)
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            answer = connection.recv(256)
        except OSError as error:
            return str(error)
    line = answer.split(b"\r\n", 1)[0].decode("latin-1")
    return "" if " 200" in line else f"answered {line!r}"
