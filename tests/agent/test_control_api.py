"""The control API: derived from the commands, and complete for miglet-ctl."""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

import pytest

from miglet.agent.control_api import COMMAND_OF, METHODS, answer
from miglet.commands import registry
from miglet.control.rpc import BAD_PARAMS, UNKNOWN_METHOD, RpcError
from miglet.controller import contract
from miglet.ctl.__main__ import SUBCOMMANDS
from miglet.formats import canonical_command
from miglet.lifecycle.table import COMMANDS
from miglet.messages.facts import CommandValidated

OPERATOR = SimpleNamespace(uid=0, pid=7)

#: What `miglet-ctl` needs of its options, whatever the subcommand is.
OPTIONS = argparse.Namespace(
    json=True, count=3, reason="new image", immediate=True, level="debug"
)


class FakeConnection:
    """Keeps the methods that a subcommand calls."""

    def __init__(self) -> None:
        self.called: list[tuple[str, dict[str, Any]]] = []

    def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        self.called.append((method, params or {}))
        if method in ("events", "config"):
            return []
        return {"accepted": True, "state": "idle", "lines": []}

    def notices(self) -> list[Any]:
        return []


def called_by(subcommand: str) -> list[tuple[str, dict[str, Any]]]:
    connection = FakeConnection()
    run, _ = SUBCOMMANDS[subcommand]
    run(connection, OPTIONS)
    return connection.called


def test_every_method_that_changes_something_gives_a_command_of_the_registry():
    assert registry.__doc__  # its import fills the table's commands
    known = set(COMMANDS)
    assert {canonical_command(name) for name in COMMAND_OF.values()} <= known
    assert {canonical_command(name) for name in contract.COMMANDS} == known


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_each_subcommand_of_ctl_calls_methods_that_exist(subcommand, capsys):
    # `watch` is the subscription of the socket's server, not a method of the API.
    names = [name for name, _ in called_by(subcommand)]
    assert names and set(names) <= {*METHODS, "watch"}


@pytest.mark.parametrize("method", COMMAND_OF)
def test_a_method_that_changes_something_posts_what_ctl_asked_for(method, capsys):
    asked = [
        params
        for subcommand in SUBCOMMANDS
        for name, params in called_by(subcommand)
        if name == method
    ]
    assert len(asked) == 1, f"subcommands of miglet-ctl that call {method}"
    [params] = asked
    arbiter: Any = SimpleNamespace(inbox=[])
    assert answer(arbiter, method, params, OPERATOR) == {"accepted": True}
    [fact] = arbiter.inbox
    assert isinstance(fact, CommandValidated)
    assert fact.type == COMMAND_OF[method]
    assert fact.requested_by == "operator (uid 0)"
    assert fact.parameters == params


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("reboot", {}, UNKNOWN_METHOD),
        ("shutdown", {"mode": "now"}, BAD_PARAMS),
        ("drain", {"reason": 7}, BAD_PARAMS),
        ("drain", {"reason": "x" * 257}, BAD_PARAMS),
        ("set_log_level", {"level": "loud"}, BAD_PARAMS),
        ("events", {"limit": 0}, BAD_PARAMS),
        ("events", {"limit": True}, BAD_PARAMS),
    ],
)
def test_a_request_that_cannot_be_met_is_an_error_and_changes_nothing(
    method, params, code
):
    journal = SimpleNamespace(recent=list)
    arbiter: Any = SimpleNamespace(inbox=[], journal=journal)
    with pytest.raises(RpcError) as refused:
        answer(arbiter, method, params, OPERATOR)
    assert refused.value.code == code
    assert arbiter.inbox == []
