"""Blocking the metadata server without a kernel: the rules as text, and what fails.

A program in the place of nft(8) says what it was given, and fails when it is to.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from miglet.config.settings import Settings
from miglet.messages.events import Identity
from miglet.messages.orders import ProvideRunner
from miglet.metadata.clouds import metadata_addresses
from miglet.runner import metadata_firewall
from miglet.runner.folder_record import FolderRecord
from miglet.runner.metadata_firewall import MetadataOpen, Unblockable
from miglet.supervisor.privileges import Account
from miglet.workers.registration import RunnerRegistration
from miglet.workers.steps import GivenUp
from tests.preflight_machine import look
from tests.runner.test_metadata_firewall import NOBODY, block, settings

as_root = pytest.mark.skipif(
    os.geteuid() != 0 or not metadata_firewall.may_filter(),
    reason="only root with CAP_NET_ADMIN calls nft itself",
)


@pytest.fixture
def nft(tmp_path, monkeypatch):
    """A program in the place of nft; answers with the status it is given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "nft"

    def ends_with(status: int) -> Path:
        calls = tmp_path / "calls"
        program.write_text(
            f'#!/bin/sh\n{{ echo "$@"; cat; }} >>{calls}\n'
            f'[ "$1" = --check ] && exit 0\necho no such filter >&2\nexit {status}\n'
        )
        program.chmod(0o755)
        return calls

    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return ends_with


@pytest.fixture
def no_nft(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(metadata_firewall, "ADMINISTRATION", str(tmp_path))


def test_the_rules_replace_our_table_and_name_no_other():
    text = metadata_firewall.ruleset(["1001", "100000-165535"], metadata_addresses())
    lines = text.splitlines()
    assert lines[:3] == [
        "add table inet miglet",
        "delete table inet miglet",
        "table inet miglet {",
    ]
    assert text.count("table ") == 3
    asked = [line.strip() for line in lines if "skuid" in line]
    assert asked == [
        "meta skuid 1001 jump metadata",
        "meta skuid 100000-165535 jump metadata",
    ]
    for address in metadata_addresses():
        (line,) = (line for line in lines if address in line)
        assert line.endswith("goto refusal")
    assert "drop" not in text


@as_root
def test_the_rules_reach_nft_as_one_document(nft, tmp_path):
    calls = nft(0)
    block(settings(tmp_path, True), NOBODY)
    assert calls.read_text() == "-f -\n" + metadata_firewall.ruleset(
        ["65534"], metadata_addresses()
    )


def test_a_machine_that_never_blocked_runs_nothing(no_nft, tmp_path):
    block(settings(tmp_path, False), NOBODY)
    assert look("runner_metadata", settings(tmp_path, False))["status"] == "ok"


@as_root
def test_what_was_once_blocked_is_taken_away_once(nft, tmp_path):
    calls = nft(0)
    block(settings(tmp_path, True), NOBODY)
    calls.unlink()
    block(settings(tmp_path, False), NOBODY)
    assert calls.read_text() == "-f -\n" + metadata_firewall.REMOVAL
    block(settings(tmp_path, False), NOBODY)
    assert calls.read_text().count("-f -") == 1


@as_root
def test_what_could_not_be_taken_away_is_tried_again(nft, tmp_path):
    nft(0)
    block(settings(tmp_path, True), NOBODY)
    nft(1)
    with pytest.raises(MetadataOpen, match="no such filter"):
        block(settings(tmp_path, False), NOBODY)
    calls = nft(0)
    calls.unlink()
    block(settings(tmp_path, False), NOBODY)
    assert metadata_firewall.REMOVAL in calls.read_text()


@as_root
@pytest.mark.parametrize("status", [0, 1])
def test_a_load_that_was_cut_short_is_taken_away_too(nft, tmp_path, status):
    """The kernel may have taken what nft could not tell us of."""
    calls = nft(status)
    try:
        block(settings(tmp_path, True), NOBODY)
    except MetadataOpen:
        assert status
    calls = nft(0)
    calls.unlink()
    block(settings(tmp_path, False), NOBODY)
    assert calls.exists()


def test_without_nft_the_check_says_what_to_install(no_nft, tmp_path):
    row = look("runner_metadata", settings(tmp_path, True))
    assert (row["status"], row["category"]) == ("fail", "misconfig")
    assert "apt-get install nftables" in row["hint"]


def test_without_the_right_it_says_who_has_it(nft, tmp_path, monkeypatch):
    nft(0)
    monkeypatch.setattr(metadata_firewall, "may_filter", lambda: False)
    monkeypatch.setattr(metadata_firewall, "systemd_usable", lambda: False)
    row = look("runner_metadata", settings(tmp_path, True))
    assert (row["status"], row["category"]) == ("fail", "misconfig")
    assert "as root" in row["hint"]


@pytest.mark.parametrize(
    ("line", "may"),
    [("CapEff:\t000001ffffffffff\n", True), ("CapEff:\t00000000000000eb\n", False)],
)
def test_the_right_is_a_capability_and_not_a_user(tmp_path, line, may):
    status = tmp_path / "status"
    status.write_text(f"Name:\tmiglet\nCapPrm:\t000001ffffffffff\n{line}")
    assert metadata_firewall.may_filter(status) is may


def test_root_cannot_be_kept_from_anything():
    with pytest.raises(Unblockable, match="nothing keeps root") as caught:
        metadata_firewall.owners(Account("root", 0, 0, "/root"))
    assert "runner.user" in caught.value.hint


def test_a_user_that_asks_for_metadata_itself_is_not_kept_from_it(monkeypatch):
    uids = frozenset({NOBODY.uid})
    monkeypatch.setattr(metadata_firewall, "unprivileged_uids", lambda: uids)
    mine = Account("me", os.geteuid() or NOBODY.uid, 1, "/")
    for each in (NOBODY, mine):
        with pytest.raises(Unblockable, match="asks for metadata"):
            metadata_firewall.owners(each)


def test_subordinate_users_are_those_of_this_user_alone(tmp_path):
    subuid = tmp_path / "subuid"
    subuid.write_text(
        "# nobody:1:1\n\nroot:100000:65536\nnobody:165536:65536\n"
        "65534:300000:1\nnobody:many:1\nnobody:7:0\nnobody:7\n"
    )
    assert metadata_firewall.owners(NOBODY, subuid) == (
        "65534",
        "165536-231071",
        "300000-300000",
    )
    assert metadata_firewall.owners(NOBODY, tmp_path / "none") == ("65534",)


class Watcher:
    """As much of the runner-watcher as registering needs."""

    identity = Identity("v", "p", "o", "0" * 32)
    client = None

    def __init__(self, wanted: Settings) -> None:
        self.settings = wanted
        directory = Path(wanted.runner.directory)
        self.folder = FolderRecord(directory.parent, directory)
        self.reported: list[object] = []

    def report(self, fact: object) -> None:
        self.reported.append(fact)

    def extend_liveness(self, seconds: float) -> None:
        """The test is."""


@as_root
def test_where_it_cannot_be_loaded_no_runner_is_registered(nft, tmp_path):
    nft(1)
    wanted = settings(tmp_path, True)
    assert look("runner_metadata", wanted)["status"] == "ok"
    watcher = Watcher(wanted)
    with pytest.raises(GivenUp) as caught:
        next(RunnerRegistration(watcher, ProvideRunner("vm-1")).run())
    fact = caught.value.fact
    assert (fact.category, fact.exit_status) == ("infrastructure", 69)
    assert "no such filter" in fact.message and fact.hint
    assert not watcher.reported
    assert not (tmp_path / "run" / "configuration").exists()
