"""Installs a release of actions/runner: all of it or nothing, and as root's own.

The folder itself is the runner's group's and sticky, so that the runner can keep its
registration in it and rename nothing of root's; `ownership` says why.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import secrets
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import IO

from miglet.errors import MISCONFIGURED, RunnerError
from miglet.runner.installation import DEFAULT_PATH, Problem, registration_files
from miglet.runner.ownership import ENVIRONMENT_FILES
from miglet.supervisor.privileges import Account

#: What a release must have, and what runs with a token or runs a job.
PROGRAMS = ("config.sh", "env.sh", "bin/Runner.Listener", "bin/Runner.Worker")

#: The folder: root's, open to the runner's group, and sticky.
FOLDER_MODE = 0o1775

#: No release comes near; a decompression bomb ends here.
MOST_BYTES = 4 << 30
MOST_MEMBERS = 200_000

#: What config.sh has ldd(1) look at (actions/runner config.sh).
LIBRARIES = (
    "bin/libcoreclr.so",
    "bin/libSystem.Security.Cryptography.Native.OpenSsl.so",
    "bin/libSystem.IO.Compression.Native.so",
)

#: Seconds that ldd(1) or ldconfig(8) may take.
LOOK_SECONDS = 30.0


class ReleaseUnusable(RunnerError):
    """The archive is not a release of actions/runner that could be installed here."""

    category = "misconfig"
    exit_status = MISCONFIGURED

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.hint = hint


def install_release(
    archive: Path, directory: Path, account: Account, sha256: str | None = None
) -> None:
    """Unpack `archive` as `directory`, root's where we are root; ReleaseUnusable.

    The new folder is complete before it takes the place of an old one.
    """
    refuse_occupied(directory)
    draft = directory.with_name(f".{directory.name}.{secrets.token_hex(8)}")
    try:
        with open(archive, "rb") as stream:
            if sha256:
                verify(stream, archive, sha256)
            directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            draft.mkdir(mode=0o700)
            unpack(stream, draft)
        complete(draft, account)
        if directory.exists():
            former = draft.with_name(f"{draft.name}.former")
            directory.rename(former)
            draft.rename(directory)
            shutil.rmtree(former)
        else:
            draft.rename(directory)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ReleaseUnusable(f"{archive} into {directory}: {error}", "") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def refuse_occupied(directory: Path) -> None:
    """Raise ReleaseUnusable if something other than an unused runner is there."""
    if not directory.exists():
        return
    if registration_files(directory):
        hint = "stop MIGlet, and remove the runner's registration or its folder"
        raise ReleaseUnusable(f"{directory} has a registered runner", hint)
    if any(directory.iterdir()) and not (directory / "config.sh").is_file():
        hint = "correct runner.directory, or empty that folder"
        raise ReleaseUnusable(f"{directory} is not empty and no runner's", hint)


def verify(stream: IO[bytes], archive: Path, sha256: str) -> None:
    """Raise ReleaseUnusable unless that is the digest of `stream`; then rewind it."""
    digest = hashlib.sha256()
    for block in iter(lambda: stream.read(1 << 20), b""):
        digest.update(block)
    if digest.hexdigest() != sha256.strip().lower():
        reason = f"{archive}: its SHA-256 is {digest.hexdigest()}, not {sha256}"
        hint = "download it anew; GitHub's release notes have the digest"
        raise ReleaseUnusable(reason, hint)
    stream.seek(0)


def unpack(stream: IO[bytes], folder: Path) -> None:
    """Write the members of the archive below `folder`, writable by us alone."""
    size = count = 0
    links = []
    with tarfile.open(fileobj=stream, mode="r:*") as archive:
        for member in archive:
            count, size = count + 1, size + member.size
            if count > MOST_MEMBERS or size > MOST_BYTES:
                raise ReleaseUnusable("the archive is too large", "is it a release?")
            place = folder / inside(member.name)
            if member.isdir():
                place.mkdir(mode=0o755, parents=True, exist_ok=True)
            elif member.issym():
                inside(posixpath.join(posixpath.dirname(member.name), member.linkname))
                links.append((place, member.linkname))
            elif member.isfile() or member.islnk():
                write_member(archive, member, place)
            else:
                reason = f"{member.name!r} is no file, folder or link"
                raise ReleaseUnusable(reason, "is it a release?")
    # Last, so that no member is written through one of them.
    for place, target in links:
        place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        place.symlink_to(target)


def inside(name: str) -> str:
    """`name` as a relative path; ReleaseUnusable if it leads out of the folder."""
    path = posixpath.normpath(name)
    if path.startswith(("/", "../")) or path == "..":
        raise ReleaseUnusable(f"{name!r} leads out of the folder", "is it a release?")
    return path


def write_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, place: Path
) -> None:
    """Write one file; executable if it was, and not writable by others."""
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    content = archive.extractfile(member)
    if content is None:
        raise ReleaseUnusable(f"{member.name!r} has no content", "is it a release?")
    with content, open(place, "xb") as file:
        shutil.copyfileobj(content, file)
        os.fchmod(file.fileno(), 0o755 if member.mode & stat.S_IXUSR else 0o644)


def complete(folder: Path, account: Account) -> None:
    """Check that it is a runner, and set owners and modes."""
    missing = [name for name in PROGRAMS if not (folder / name).exists()]
    if missing:
        reason = f"the archive has no {', '.join(missing)}"
        raise ReleaseUnusable(reason, "take actions-runner-linux-*.tar.gz")
    for each in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        each.chmod(0o755)
    (folder / "externals").mkdir(mode=0o755, exist_ok=True)
    for name, text in ENVIRONMENT_FILES.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)
    if os.geteuid() == 0:
        os.chown(folder, 0, account.gid)
        folder.chmod(FOLDER_MODE)


def dependency_problems(directory: Path) -> list[Problem]:
    """The shared libraries that config.sh would miss."""
    hint = f"run {directory}/bin/installdependencies.sh"
    libraries = [directory / name for name in LIBRARIES]
    present = [str(each) for each in libraries if each.exists()]
    if not present:
        return []
    lines = printed("ldd", *present)
    missing = {line.split()[0] for line in lines if "not found" in line}
    problems = [Problem(f"{name} is missing", hint) for name in sorted(missing)]
    if not any("libicu" in line for line in printed("ldconfig", "-NXv")):
        problems.append(Problem("libicu is missing", hint))
    return problems


def printed(*command: str) -> list[str]:
    """The lines that a program prints; ReleaseUnusable if it cannot be run."""
    environment = {"PATH": DEFAULT_PATH, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=LOOK_SECONDS, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = f"{command[0]} cannot be run: {error}"
        raise ReleaseUnusable(reason, "config.sh needs it, too") from error
    return done.stdout.decode(errors="replace").splitlines()
