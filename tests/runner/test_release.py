"""A release of the runner is unpacked whole, and is root's."""

from __future__ import annotations

import hashlib
import tarfile

import pytest

from miglet.runner import release
from miglet.runner.ownership import weakness
from miglet.runner.release import (
    ReleaseUnusable,
    dependency_problems,
    install_release,
)
from tests.runner.releases import GOOD, JOB, archive, root


@root
def test_the_release_is_roots_and_the_folder_is_sticky(installed):
    found = installed.stat()
    assert (found.st_uid, found.st_gid) == (0, JOB.gid)
    assert found.st_mode & 0o7777 == 0o1775
    for path in installed.rglob("*"):
        assert path.stat().st_uid == 0
        assert not path.stat().st_mode & 0o022, path
    assert (installed / "bin" / "Runner.Listener").stat().st_mode & 0o777 == 0o755
    assert (installed / ".env").read_text() == "LANG=C.UTF-8\n"
    assert weakness(installed) is None


def test_a_digest_is_held_against_the_archive(tmp_path, folder):
    path = archive(tmp_path / "r.tar.gz")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ReleaseUnusable, match=digest):
        install_release(path, folder, JOB, "0" * 64)
    assert not folder.exists()
    install_release(path, folder, JOB, digest.upper())
    assert folder.is_dir()


def device() -> tarfile.TarInfo:
    member = tarfile.TarInfo("bin/device")
    member.type = tarfile.CHRTYPE
    return member


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"files": {**GOOD, "../evil": (0o644, "x")}}, "leads out"),
        ({"files": {**GOOD, "/etc/evil": (0o644, "x")}}, "leads out"),
        ({"links": [("bin/evil", "/etc/passwd")]}, "leads out"),
        ({"links": [("bin/evil", "../../x")]}, "leads out"),
        ({"more": [device()]}, "no file, folder or link"),
        ({"files": {"readme": (0o644, "x")}}, "has no config.sh"),
    ],
)
def test_an_archive_that_is_no_release_leaves_nothing(tmp_path, folder, made, reason):
    with pytest.raises(ReleaseUnusable, match=reason):
        install_release(archive(tmp_path / "r.tar.gz", **made), folder, JOB)
    assert list(folder.parent.iterdir()) == []


def test_a_member_is_not_written_through_a_link(tmp_path, folder):
    outside = tmp_path / "outside"
    outside.mkdir()
    links = [("bin/out", "../externals")]
    files = {**GOOD, "bin/out/file": (0o644, "x")}
    path = archive(tmp_path / "r.tar.gz", files, links)
    with pytest.raises(ReleaseUnusable):
        install_release(path, folder, JOB)


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08broken"])
def test_what_is_no_archive_is_named(tmp_path, folder, content):
    path = tmp_path / "r.tar.gz"
    path.write_bytes(content)
    with pytest.raises(ReleaseUnusable, match=r"r\.tar\.gz"):
        install_release(path, folder, JOB)


def test_a_bomb_is_given_up(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(release, "MOST_BYTES", 100)
    path = archive(tmp_path / "r.tar.gz", {**GOOD, "big": (0o644, "x" * 101)})
    with pytest.raises(ReleaseUnusable, match="too large"):
        install_release(path, folder, JOB)


def test_another_release_takes_the_place_of_an_unused_one(tmp_path, installed):
    newer = {**GOOD, "./bin/new": (0o755, "")}
    (installed / "stale").write_text("x")
    install_release(archive(tmp_path / "n.tar.gz", newer), installed, JOB)
    assert (installed / "bin" / "new").exists()
    assert not (installed / "stale").exists()
    assert [each.name for each in installed.parent.iterdir()] == [installed.name]


@pytest.mark.parametrize(
    ("name", "reason"), [(".runner", "registered"), ("x", "empty")]
)
def test_a_folder_in_use_is_left_alone(tmp_path, folder, name, reason):
    folder.mkdir()
    (folder / name).write_text("x")
    with pytest.raises(ReleaseUnusable, match=reason):
        install_release(archive(tmp_path / "r.tar.gz"), folder, JOB)
    assert (folder / name).read_text() == "x"


def test_missing_libraries_are_named(installed, monkeypatch):
    (installed / "bin" / "libcoreclr.so").write_text("")
    lines = {
        "ldd": ["\tlibstdc++.so.6 => not found", "\tlibc.so.6 => /lib/libc.so.6"],
        "ldconfig": ["\tlibicuuc.so.72 -> libicuuc.so.72.1"],
    }
    monkeypatch.setattr(release, "printed", lambda command, *_: lines[command])
    (problem,) = dependency_problems(installed)
    assert "libstdc++.so.6 is missing" in str(problem)
    assert "installdependencies.sh" in str(problem)
    lines["ldconfig"] = []
    assert "libicu" in str(dependency_problems(installed)[1])
