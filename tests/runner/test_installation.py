"""The runner's folder: what is in it, and whether its user can use it."""

from __future__ import annotations

import codecs
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from miglet.runner.installation import (
    MIGRATED_FILES,
    REGISTRATION_FILES,
    NotRemovable,
    check_folder,
    forget_registration,
    registered,
    runner_version,
)
from miglet.supervisor.privileges import account

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


@pytest.fixture
def installed() -> Iterator[Path]:
    """A folder with the runner in it, where any user can reach it."""
    top = Path(tempfile.mkdtemp(prefix="miglet-folder-", dir="/tmp"))
    top.chmod(0o755)
    directory = top / "runner"
    for name in ("config.sh", "bin/Runner.Listener"):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o755)
    yield directory
    shutil.rmtree(top)


def written(directory: Path, document: object) -> Path:
    path = directory / ".runner"
    path.write_bytes(codecs.BOM_UTF8 + json.dumps(document, indent=2).encode())
    return path


def test_the_registration_is_read_as_the_runner_writes_it(tmp_path):
    written(
        tmp_path,
        {
            "agentId": 21,
            "agentName": "vm-1",
            "poolId": 1,
            "poolName": "Default",
            "ephemeral": True,
            "gitHubUrl": "https://github.com/myorg",
        },
    )
    found = registered(tmp_path)
    assert (found.agent_id, found.agent_name, found.ephemeral) == (21, "vm-1", True)
    assert (found.pool_name, found.git_hub_url) == (
        "Default",
        "https://github.com/myorg",
    )


def test_a_just_in_time_registration_is_read_too(tmp_path):
    written(tmp_path, {"AgentId": "12", "AgentName": "jit", "Ephemeral": "True"})
    found = registered(tmp_path)
    assert (found.agent_id, found.ephemeral, found.git_hub_url) == (12, True, None)


@pytest.mark.parametrize("document", [[], {}, {"agentId": 1}, None, "x", 7])
def test_rubbish_is_no_registration(tmp_path, document):
    written(tmp_path, document)
    assert registered(tmp_path) is None


def test_a_strangers_file_is_no_registration(tmp_path):
    assert registered(tmp_path) is None
    real = tmp_path / "real"
    real.write_text('{"agentId": 1, "agentName": "x"}')
    path = tmp_path / ".runner"
    path.symlink_to(real)
    assert registered(tmp_path) is None
    path.unlink()
    os.mkfifo(path)
    assert registered(tmp_path) is None
    path.unlink()
    path.write_bytes(b" " * 70000 + real.read_bytes())
    assert registered(tmp_path) is None
    path.write_bytes(b"[" * 60000)
    assert registered(tmp_path) is None
    path.write_bytes(b"\xff\xfe")
    assert registered(tmp_path) is None


def test_forgetting_removes_every_trace_and_nothing_else(tmp_path):
    (tmp_path / ".env").touch()
    for name in (*REGISTRATION_FILES, *MIGRATED_FILES):
        (tmp_path / name).touch()
    assert len(forget_registration(tmp_path)) == 5
    assert forget_registration(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


@pytest.mark.parametrize("value", ["\u00b2", "-1", "9" * 5000, "1.5", True, None, []])
def test_an_agent_id_that_is_no_number_of_githubs_is_unknown(tmp_path, value):
    written(tmp_path, {"agentId": value, "agentName": "vm-1"})
    assert registered(tmp_path).agent_id is None


def test_a_number_that_python_refuses_to_read_is_rubbish(tmp_path):
    (tmp_path / ".runner").write_text(f'{{"agentId": {"9" * 5000}, "agentName": "x"}}')
    assert registered(tmp_path) is None


def test_a_folder_in_the_place_of_a_registration_file_is_set_aside(tmp_path):
    for name in (".runner", ".runner_migrated"):
        (tmp_path / name / "x").mkdir(parents=True)
    assert set(forget_registration(tmp_path)) == {".runner", ".runner_migrated"}
    left = [path.name for path in tmp_path.iterdir()]
    assert all(name.startswith(".set-aside-") for name in left)
    assert registered(tmp_path) is None


def test_a_registration_file_that_cannot_be_removed_is_named(tmp_path, monkeypatch):
    (tmp_path / ".credentials").touch()

    def refuse(path):
        if path.name == ".credentials":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        raise FileNotFoundError

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(NotRemovable) as caught:
        forget_registration(tmp_path)
    assert str(caught.value) == (
        f"cannot remove {tmp_path}/.credentials: Operation not permitted"
    )


def test_the_version_is_known_without_a_start(tmp_path):
    assert runner_version(tmp_path) is None
    (tmp_path / "bin.2.336.0").mkdir()
    deps = tmp_path / "bin.2.336.0" / "Runner.Listener.deps.json"
    deps.write_text('{"targets": {"Runner.Listener/2.335.1": {}}}')
    (tmp_path / "bin").symlink_to(tmp_path / "bin.2.336.0")
    assert runner_version(tmp_path) == "2.336.0"
    (tmp_path / "bin").unlink()
    (tmp_path / "bin.2.336.0").rename(tmp_path / "bin")
    assert runner_version(tmp_path) == "2.335.1"


def test_a_good_folder_has_no_problem(installed):
    assert check_folder(installed, None) == []


def test_all_that_is_wrong_with_a_folder_is_reported_at_once(installed):
    (installed / "config.sh").unlink()
    (installed / "bin/Runner.Listener").chmod(0o644)
    problems = check_folder(installed, None)
    assert [str(problem).split(" (")[0] for problem in problems] == [
        f"there is no {installed}/config.sh",
        f"{installed}/bin/Runner.Listener is not executable by our own user",
    ]
    assert all(problem.hint for problem in problems)
    (missing,) = check_folder(installed / "no", None)
    assert "does not exist" in missing.message


@as_root
def test_a_folder_is_judged_with_the_eyes_of_its_user(installed):
    nobody = account("nobody")
    (problem,) = check_folder(installed, nobody)
    assert "not writable by user nobody" in problem.message
    os.chown(installed, nobody.uid, -1)
    assert check_folder(installed, nobody) == []
    os.chown(installed, 0, nobody.gid)
    installed.chmod(0o770)
    assert check_folder(installed, nobody) == []
    installed.chmod(0o707)
    (problem,) = check_folder(installed, nobody)
    assert "may not enter" in problem.message


def test_a_version_of_any_length_is_no_version(tmp_path):
    (tmp_path / "bin").mkdir()
    deps = tmp_path / "bin" / "Runner.Listener.deps.json"
    deps.write_text(f'"Runner.Listener/{"9" * 100_000}.1.1": {{}}')
    assert runner_version(tmp_path) is None


def test_a_registration_that_is_nested_without_end_is_none(tmp_path):
    (tmp_path / ".runner").write_text('{"agentName":' * 2000)
    assert registered(tmp_path) is None
