"""`config.sh` and its like: scenarios 1 to 9, 38 and 39 of the double's table."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from functools import partial
from typing import Any

import pytest

from tests.runner_double.double import jitconfig
from tests.runner_double.options import parse
from tests.runner_double.stage import (
    CONFIGURE,
    Stage,
    await_truth,
    config,
    configured_files,
    run,
    stage,
)
from tests.support import eventually

__all__ = ["stage"]
ALL = {".runner", ".credentials", ".credentials_rsaparams"}


def settings(double: Any) -> dict[str, Any]:
    return json.loads((double.root / ".runner").read_text(encoding="utf-8-sig"))


def banner_is_out(double: Any) -> bool:
    return double.log("Runner").count("WRITE LINE: --") == 2


def test_a_configuration_prints_saves_and_registers(stage: Stage) -> None:
    double = stage.lay_out()
    ended = config(double)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith(
        "\n# Authentication\n\n\n√ Connected to GitHub\n\n# Runner Registration\n\n\n\n"
        "√ Runner successfully added\n\n# Runner settings\n\n\n√ Settings Saved.\n\n"
    )
    assert "Self-hosted runner registration" in ended.stdout
    assert settings(double)["agentName"] == "vm-1"
    assert settings(double)["ephemeral"] is True
    for name in (".runner", ".credentials", ".credentials_rsaparams"):
        assert (double.root / name).read_bytes().startswith(b"\xef\xbb\xbf")
    key = double.root / ".credentials_rsaparams"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert all((double.root / name).exists() for name in (".env", ".path", "svc.sh"))
    assert list(double.registry()["runners"]) == ["vm-1"]


def test_the_token_is_known_by_its_sum_and_its_way_alone(stage: Stage) -> None:
    double = stage.ready()
    (start,) = double.truth("config_start")
    assert start["token_from"] == "environment"
    run(double, "config.sh", *CONFIGURE, "--token", "BBBB-TOKEN")
    assert double.truth("config_start")[1]["token_from"] == "argv"
    for path in (double.root / "double").glob("*.js*"):
        assert "-TOKEN" not in path.read_text()


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"groups": True}, "# Runner Registration\n\n\n\n\n√ Runner"),
        ({"connection_test": True}, "added\n√ Runner connection is good\n"),
        (
            {"outcome": "replace"},
            "A runner exists with the same name\n√ Successfully replaced the runner\n",
        ),
    ],
)
def test_variants_of_a_good_configuration(
    stage: Stage, entry: dict[str, Any], text: str
) -> None:
    ended = config(stage.lay_out(config=entry))
    assert ended.returncode == 0
    assert text in ended.stdout


@pytest.mark.parametrize(
    ("outcome", "times", "message"),
    [
        ("404", 1, "404 (Not Found)."),
        ("401", 3, "401 (Unauthorized)."),
        ("403", 3, "403 (Forbidden)."),
        ("500", 3, "500 (Internal Server Error)."),
    ],
)
def test_a_refused_token_is_reported_on_stderr(
    stage: Stage, outcome: str, times: int, message: str
) -> None:
    double = stage.lay_out(tokens={"AAAA-TOKEN": outcome})
    ended = config(double)
    assert ended.returncode == 1
    assert ended.stderr.count("Http response code: ") == times
    assert ended.stderr.endswith(
        f"Response status code does not indicate success: {message}\n"
    )
    assert configured_files(double) == set()
    assert double.registry()["history"][0]["why"] == outcome


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        ("name_taken", "A runner exists with the same name vm-1."),
        (
            "group_unknown",
            'Could not find any self-hosted runner group named "default".',
        ),
        ("network", "Name or service not known (api.github.com:443)"),
        ("clock", "clock may be out of sync"),
        ("old_server", "configuring a self-hosted runner with 'Ephemeral' flag."),
    ],
)
def test_other_failures(stage: Stage, outcome: str, message: str) -> None:
    double = stage.lay_out(config=[{"outcome": outcome}, {}])
    ended = config(double)
    assert (ended.returncode, message in ended.stderr) == (1, True)
    assert configured_files(double) <= {".credentials_rsaparams"}
    assert config(double).returncode == 0


def test_a_taken_name_needs_replace(stage: Stage) -> None:
    double = stage.ready()
    run(double, "config.sh", "remove", "--local")
    meek = [word for word in CONFIGURE if word != "--replace"]
    ended = run(double, "config.sh", *meek)
    assert ended.returncode == 1
    double.replan({"scale": 0.0})
    ended = config(double)
    assert "√ Successfully replaced the runner" in ended.stdout


def test_a_configured_runner_is_not_configured_again(stage: Stage) -> None:
    double = stage.ready()
    ended = config(double)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Cannot configure the runner because it is already")
    assert configured_files(double) == ALL
    assert len(double.registry()["history"]) == 1


@pytest.mark.parametrize(
    ("at", "files", "registered"),
    [
        ("authentication", set(), False),
        ("registration", {".credentials_rsaparams"}, False),
        ("registered", {".credentials_rsaparams"}, True),
    ],
)
def test_a_hanging_configuration_ends_by_kill_alone(
    stage: Stage, at: str, files: set[str], registered: bool
) -> None:
    double = stage.lay_out(config={"outcome": "hang", "at": at})
    process = stage.start(double, "config.sh", ACTIONS_RUNNER_INPUT_URL="u")
    pid = await_truth(double, "config_hangs")["pid"]
    os.kill(pid, signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    os.kill(pid, signal.SIGKILL)
    assert process.wait(10) == 137
    assert configured_files(double) == files
    assert bool(double.registry()["runners"]) is registered


def test_a_slow_configuration_dies_by_sigterm_and_leaves_by_sigint(
    stage: Stage,
) -> None:
    for signum, code in ((signal.SIGTERM, 143), (signal.SIGINT, 1)):
        double = stage.lay_out(config={"seconds": 60})
        process = stage.start(double, "config.sh", ACTIONS_RUNNER_INPUT_URL="u")
        pid = await_truth(double, "config_start")["pid"]
        eventually(partial(banner_is_out, double), what="the banner")
        os.kill(pid, signum)
        output, _ = process.communicate(timeout=10)
        assert process.returncode == code
        assert output.endswith("Exiting...\n") is (signum == signal.SIGINT)


@pytest.mark.parametrize(
    ("preflight", "added", "message"),
    [
        (None, {"RUNNER_ALLOW_RUNASROOT": ""}, "Must not run with sudo\n"),
        ("no_icu", {}, "Libicu's dependencies is missing for Dotnet Core 6.0\nExecute"),
        ("no_libraries", {}, "Dependencies is missing for Dotnet Core 6.0\nExecute"),
    ],
)
def test_what_stops_config_before_it_starts(
    stage: Stage, preflight: str | None, added: dict[str, str], message: str
) -> None:
    if added and os.getuid() != 0:
        pytest.skip("only root is refused")
    double = stage.lay_out(preflight=preflight)
    ended = config(double, **added)
    assert ended.returncode == 1
    assert ended.stdout.startswith(message)
    assert double.truth() == []


def test_without_ldd_there_is_no_configuration(stage: Stage) -> None:
    double = stage.lay_out()
    tools = double.root / "tools"
    tools.mkdir()
    for name in ("id", "env"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    ended = config(double, PATH=str(tools))
    assert ended.returncode == 1
    assert ended.stdout.startswith("Can not find 'ldd'.")


def test_a_missing_value_and_an_unknown_option(stage: Stage) -> None:
    double = stage.lay_out()
    ended = config(double, "--unattended", "--url=u", "--foo")
    assert ended.returncode == 1
    assert "command configure: '" in ended.stderr
    assert "Invalid configuration provided for url." in ended.stderr


def test_the_parser_takes_the_first_of_duplicates_and_no_dashes() -> None:
    options = parse(
        ["configure", "--name", "a", "--name", "b", "--work", "--ephemeral"]
    )
    assert options.value("name") == "a"
    assert options.value("work") == ""
    assert options.flag("ephemeral") and options.flag("work")
    options.inputs = {"replace": "1", "disableupdate": "True", "name": "c"}
    assert (options.flag("replace"), options.flag("disableupdate")) == (False, True)
    assert (options.value("name"), options.source("name")) == ("a", "argv")


def test_a_runner_is_removed_only_by_the_service_s_leave(stage: Stage) -> None:
    double = stage.ready(remove=[{"outcome": "422"}, {"outcome": "404"}, {}])
    for message in ("422 (Unprocessable Entity).", "404 (Not Found)."):
        ended = run(double, "config.sh", "remove")
        assert ended.returncode == 1
        assert "Failed: Removing runner from the server\n" in ended.stderr
        assert ended.stderr.endswith(f"{message}\n")
        assert configured_files(double) == ALL
    ended = run(double, "config.sh", "remove")
    assert (ended.returncode, ended.stdout) == (
        0,
        "\n# Runner removal\n\n\n√ Runner removed successfully\n"
        "√ Removed .credentials\n√ Removed .runner\n\n",
    )
    assert double.registry()["runners"] == {}
    ended = run(double, "config.sh", "remove")
    assert ended.returncode == 0
    assert "Does not exist. Skipping Removing .runner\n" in ended.stdout


def test_a_jit_configuration_replaces_config_sh(stage: Stage) -> None:
    double = stage.lay_out({"scenario": "idle"})
    process = stage.listener(double, ACTIONS_RUNNER_INPUT_JITCONFIG=jitconfig("vm-2"))
    await_truth(double, "listening")
    assert configured_files(double) == ALL
    double.push_job({})
    process.communicate(timeout=10)
    assert (process.returncode, configured_files(double)) == (0, set())


def test_a_broken_jit_configuration_is_an_error(stage: Stage) -> None:
    ended = run(stage.lay_out(), "run.sh", "--jitconfig", "%%%")
    assert ended.returncode == 0
    assert "exit with terminated error" in ended.stdout


@pytest.mark.parametrize(
    ("flag", "text"), [("--version", "2.336.0\n"), ("--check", "Check: PASS\n")]
)
def test_questions_are_answered_with_code_0(stage: Stage, flag: str, text: str) -> None:
    ended = run(stage.lay_out(), "bin/Runner.Listener", flag)
    assert (ended.returncode, ended.stdout) == (0, text)
