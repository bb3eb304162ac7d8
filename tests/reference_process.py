"""The reference controller for tests: the real process, and its operator API in brief.

`running_controller` starts it on a free port of the loopback and ends it; times of
arrival are in every row, on the clock that this process reads too.
"""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from jsonschema import Draft7Validator

from miglet.controller import contract

#: What the controllers of tests accept and hand out.
TOKEN = "controller-token-for-tests"
REGISTRATION_TOKENS = ("AREGISTRATIONTOKEN0001", "AREGISTRATIONTOKEN0002")
REMOVAL_TOKENS = ("AREMOVALTOKEN0001",)
RUNNER_URL = "https://github.com/octo"

COMMAND = [sys.executable, "-m", "miglet.reference.cli"]


@dataclass
class ReferenceController:
    """A running controller, as an operator sees it."""

    endpoint: str
    token_path: Path
    process: subprocess.Popen[str]
    stderr_path: Path
    session: requests.Session = field(default_factory=requests.Session)

    def url(self, path: str) -> str:
        return f"{self.endpoint}/api/v1/{path}"

    def ask(self, path: str, **query: Any) -> Any:
        """GET below /api/v1; an answer other than 2xx is an exception."""
        answer = self.session.get(self.url(path), params=query, timeout=70)
        answer.raise_for_status()
        return answer.json()

    def vms(self) -> list[dict[str, Any]]:
        return self.ask("vms")["vms"]

    def knows(self, vm: str) -> bool:
        answer = self.session.get(self.url(f"vms/{vm}"), timeout=70)
        if answer.status_code == 404:
            return False
        answer.raise_for_status()
        return True

    def vm(self, vm: str) -> dict[str, Any]:
        return self.ask(f"vms/{vm}")

    def events(self, vm: str, type: str | None = None) -> list[dict[str, Any]]:
        """Each event in order of arrival, with position, received_at, received_mono."""
        if not self.knows(vm):
            return []
        rows, after = [], 0
        while batch := self.ask(f"vms/{vm}/events", after=after)["events"]:
            rows += [_flat(row, "event") for row in batch]
            after = batch[-1]["position"]
        return [row for row in rows if type in (None, row["type"])]

    def wait_for(
        self,
        vm: str,
        type: str,
        seconds: float = 60.0,
        count: int = 1,
        where: Callable[[dict[str, Any]], bool] = lambda event: True,
    ) -> dict[str, Any]:
        """The `count`-th event of a type (for which `where` holds)."""
        deadline = time.monotonic() + seconds
        self._wait_known(vm, deadline)
        after, found = 0, 0
        while True:
            left = max(0.0, deadline - time.monotonic())
            batch = self.ask(f"vms/{vm}/events", after=after, wait=left)["events"]
            for row in batch:
                after, event = row["position"], _flat(row, "event")
                found += event["type"] == type and where(event)
                if found == count:
                    return event
            if not batch and left == 0.0:
                seen = [event["type"] for event in self.events(vm)]
                raise AssertionError(f"no {type} within {seconds:g} s; seen: {seen}")

    def heartbeats(self, vm: str) -> list[dict[str, Any]]:
        """The last 1,000 heartbeats, with position, received_at, received_mono."""
        if not self.knows(vm):
            return []
        rows = self.ask(f"vms/{vm}/heartbeats")["heartbeats"]
        return [_flat(row, "heartbeat") for row in rows]

    def command(
        self,
        vm: str,
        type: str,
        parameters: dict[str, Any] | None = None,
        expires_at: str | None = None,
    ) -> str:
        """Queue a command; its id."""
        body = {"type": type, "parameters": parameters, "expires_at": expires_at}
        url = self.url(f"vms/{vm}/commands")
        answer = self.session.post(url, json=body, timeout=10)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def outcome(self, vm: str, id: str, seconds: float = 60.0) -> dict[str, Any]:
        """The command once it is completed: outcome, reason, times_handed_out, ..."""
        status = self.ask(f"vms/{vm}/commands/{id}", wait=seconds)
        assert status["outcome"], f"not completed within {seconds:g} s: {status}"
        return status

    def log(self) -> str:
        """What it has written to stderr so far."""
        return self.stderr_path.read_text()

    def _wait_known(self, vm: str, deadline: float) -> None:
        while not self.knows(vm):
            assert time.monotonic() < deadline, f"{vm} has not called"
            select.select([], [], [], 0.02)


@contextmanager
def running_controller(tmp_path: Path, **options: Any) -> Iterator[ReferenceController]:
    """A controller with its files in `tmp_path`/controller.

    `options` are those of ``miglet-controller serve`` with underscores; True is a
    switch, None drops an option that is set here. Started again on the same `tmp_path`,
    it goes on with what is stored there.
    """
    folder = tmp_path / "controller"
    folder.mkdir(exist_ok=True)
    token_path = _file(folder / "token", [TOKEN])
    words = _words({**_defaults(folder, token_path), **options})
    stderr_path = folder / "stderr"
    with stderr_path.open("a") as stderr:
        process = subprocess.Popen(
            [*COMMAND, "serve", *words],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        endpoint = _announced(process, stderr_path)
        controller = ReferenceController(endpoint, token_path, process, stderr_path)
        controller.session.trust_env = False
        controller.session.headers["Authorization"] = f"Bearer {TOKEN}"
        with controller.session:
            yield controller
    finally:
        _end(process)


def post(
    controller: ReferenceController, path: str, body: Any, **headers: str
) -> requests.Response:
    """POST below /api/v1, whatever is answered."""
    return controller.session.post(
        controller.url(path), json=body, headers=headers, timeout=10
    )


def post_event(
    controller: ReferenceController, body: dict[str, Any], key: str | None = None
) -> requests.Response:
    """POST an event under its id, or under another `key`."""
    headers = {"Idempotency-Key": body["id"] if key is None else key}
    return post(controller, f"vms/{body['vm_id']}/events", body, **headers)


def is_problem(answer: requests.Response, status: int, detail: str) -> bool:
    """Whether the answer is problem JSON as in the contract, with `detail` in it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    body = answer.json()
    Draft7Validator(contract.schema("problem")).validate(body)
    assert detail in body["detail"], body
    return body["status"] == status


def _defaults(folder: Path, token_path: Path) -> dict[str, Any]:
    registration = _file(folder / "registration-tokens", REGISTRATION_TOKENS)
    removal = _file(folder / "removal-tokens", REMOVAL_TOKENS)
    return {
        "listen": "127.0.0.1:0",
        "database": folder / "controller.db",
        "token_file": token_path,
        "registration_token_file": registration,
        "removal_token_file": removal,
        "runner_url": RUNNER_URL,
        "log_level": "debug",
    }


def _file(path: Path, lines: Any) -> Path:
    """A file with `lines`, left alone if a test has written another before."""
    if not path.exists():
        path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _words(options: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in options.items():
        if value is not None:
            words.append("--" + name.replace("_", "-"))
            words += [] if value is True else [str(value)]
    return words


def _announced(process: subprocess.Popen[str], stderr_path: Path) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("listening on "), f"{line!r}; {stderr_path.read_text()}"
    return line.split()[-1]


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
    finally:
        assert process.stdout is not None
        process.stdout.close()


def _flat(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {**row[key], **{name: row[name] for name in row if name != key}}
