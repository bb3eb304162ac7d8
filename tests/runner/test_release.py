"""A release of the runner is unpacked whole, is root's, and jobs cannot change it."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from miglet.runner import release
from miglet.runner.release import (
    FolderRecord,
    ReleaseUnusable,
    dependency_problems,
    install_release,
    same_user,
    weakness,
)
from miglet.supervisor.privileges import Account

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can own files as root")

JOB = Account("nobody", 65534, 65534, "/")

GOOD = {
    "./config.sh": (0o755, "#!/bin/sh\n"),
    "./env.sh": (0o755, ""),
    "./bin/Runner.Listener": (0o777, "ELF"),
    "./bin/Runner.Worker": (0o755, "ELF"),
    "./bin/Runner.Listener.deps.json": (0o666, '{"Runner.Listener/2.329.0": {}}'),
    "./externals/node20/bin/node": (0o755, "ELF"),
}


def archive(path: Path, files=GOOD, links=(), more=()) -> Path:
    """A release with these files (mode, text), symbolic links and other members."""
    with tarfile.open(path, "w:gz") as made:
        for name, (mode, text) in files.items():
            member = tarfile.TarInfo(name)
            member.mode, member.size, member.uid = mode, len(text), 1001
            made.addfile(member, io.BytesIO(text.encode()))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            made.addfile(member)
        for member in more:
            made.addfile(member)
    return path


@pytest.fixture
def folder():
    """A place whose parents are root's: below /var/lib, where nobody else writes."""
    import shutil
    import tempfile

    top = Path(tempfile.mkdtemp(dir="/var/lib" if os.geteuid() == 0 else None))
    top.chmod(0o755)
    yield top / "actions-runner"
    shutil.rmtree(top)


@pytest.fixture
def installed(tmp_path, folder) -> Path:
    install_release(archive(tmp_path / "r.tar.gz"), folder, JOB)
    return folder


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


def become(who: Account, *attacks: str) -> list[int]:
    """The exit status of each shell command as another user."""
    statuses = []
    for attack in attacks:
        pid = os.fork()
        if pid == 0:
            os.setgroups([])
            os.setgid(who.gid)
            os.setuid(who.uid)
            os.execv("/bin/sh", ["sh", "-c", f"({attack}) 2>/dev/null"])
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return statuses


@root
def test_a_job_can_keep_a_registration_there_and_change_no_program(installed):
    assert become(JOB, f"echo x >{installed}/.runner && rm {installed}/.runner") == [0]
    attacks = [
        f"echo evil >{installed}/config.sh",
        f"mv {installed}/config.sh {installed}/other",
        f"rm -f {installed}/config.sh",
        f"mv {installed}/bin {installed}/other",
        f"echo evil >{installed}/bin/Runner.Listener",
        f"echo evil >{installed}/bin/new",
        f"echo LD_PRELOAD=/tmp/x >>{installed}/.env",
        f"rm -f {installed}/.env",
        f"mv {installed} {installed}.other",
    ]
    assert 0 not in become(JOB, *attacks)
    assert weakness(installed) is None


@root
@pytest.mark.parametrize(
    "weaken",
    [
        lambda folder: os.chown(folder / "config.sh", JOB.uid, 0),
        lambda folder: (folder / "config.sh").chmod(0o777),
        lambda folder: (folder / "bin").chmod(0o775),
        lambda folder: os.chown(folder / "externals/node20/bin/node", JOB.uid, 0),
        lambda folder: (folder / "bin" / "new").symlink_to("/tmp/somewhere"),
        lambda folder: (folder / "bin" / "new").symlink_to("../_work/x"),
        lambda folder: folder.chmod(0o775),
        lambda folder: os.chown(folder, JOB.uid, JOB.gid),
        lambda folder: os.chown(folder.parent, JOB.uid, JOB.gid),
        lambda folder: folder.parent.chmod(0o777),
        lambda folder: (folder / ".env").unlink(),
        lambda folder: (folder / "env.sh").unlink(),
    ],
)
def test_each_way_to_change_a_program_is_found(installed, weaken):
    weaken(installed)
    assert weakness(installed)


@root
def test_links_within_the_release_are_no_weakness(tmp_path, folder):
    links = [("./externals/node20/bin/npm", "../lib/npm-cli.js")]
    install_release(archive(tmp_path / "r.tar.gz", links=links), folder, JOB)
    assert weakness(folder) is None


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


@root
def test_a_job_that_has_run_in_a_changeable_folder_costs_it_the_tokens(
    tmp_path, installed
):
    record = FolderRecord(tmp_path, installed)
    (installed / "config.sh").chmod(0o777)
    assert record.danger(JOB, removing=False) == ""
    record.note_job()
    assert "config.sh" in record.danger(JOB, removing=False)
    successor = FolderRecord(tmp_path, installed)
    assert "config.sh" in successor.danger(JOB, removing=False)
    assert successor.danger(None, removing=False) == ""


@root
def test_a_registration_that_a_job_has_changed_is_not_removed_with_a_token(
    tmp_path, installed
):
    record = FolderRecord(tmp_path, installed)
    (installed / ".runner").write_text('{"gitHubUrl": "https://github.com/octo"}')
    record.note_registration()
    record.note_job()
    assert record.danger(JOB, removing=True) == ""
    (installed / ".runner").write_text('{"gitHubUrl": "https://evil.example"}')
    assert "changed" in record.danger(JOB, removing=True)
    assert record.danger(JOB, removing=False) == ""


def test_a_job_that_runs_as_miglets_own_user_can_change_everything():
    assert same_user(None)
    assert same_user(Account("root", 0, 0, "/root"))
    assert same_user(JOB) is (os.geteuid() != 0)
