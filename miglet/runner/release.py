"""Installs a release of actions/runner, and says whether a job could change one.

A job runs as the runner's user. What is started in the runner's folder with a token in
its environment must therefore be root's; the folder itself is sticky, so that the
runner can keep its registration in it and rename nothing of root's.
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
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from miglet.errors import MISCONFIGURED, RunnerError
from miglet.runner.installation import (
    DEFAULT_PATH,
    MIGRATED_FILES,
    REGISTRATION_FILES,
    SMALL_BYTES,
    Problem,
    registration_files,
)
from miglet.safefile import read_small
from miglet.supervisor.privileges import Account

#: What a release must have, and what runs with a token or runs a job.
PROGRAMS = ("config.sh", "env.sh", "bin/Runner.Listener", "bin/Runner.Worker")

#: The Listener reads `.env` at each start, and what stands there goes before its
#: environment. Both exist from the start, so that the runner's user cannot make them.
ENVIRONMENT_FILES = {".env": "LANG=C.UTF-8\n", ".path": f"{DEFAULT_PATH}\n"}

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

#: What of a release is started with a token, or read by what is.
ROOT_OWNED = (*ENVIRONMENT_FILES, "config.sh", "env.sh", "bin", "externals")

REINSTALL = (
    "install the runner with `miglet install-runner ARCHIVE`, into a folder whose"
    " parents are root's"
)


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


def same_user(account: Account | None) -> bool:
    """Whether jobs run as the user that MIGlet runs as, or as root.

    Nothing is then kept from a job, and who owns the runner's files says nothing.
    """
    return account is None or account.uid in (0, os.geteuid()) or os.geteuid() != 0


def weakness(directory: Path) -> str | None:
    """How a job could change what is started there, the first way found; None: none."""
    return next(weaknesses(directory), None)


def weaknesses(directory: Path) -> Iterator[str]:
    """Each path by which another user than root could change what is started."""
    top = directory.resolve()
    for place in [*reversed(top.parents), top]:
        found = place.stat()
        if found.st_uid != 0:
            yield f"{place} is not root's"
        elif found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            yield f"{place} is writable by others, and not sticky"
    roots = [(top / name).resolve() for name in ROOT_OWNED]
    for name, root in zip(ROOT_OWNED, roots, strict=True):
        if top not in root.parents:
            yield f"{top / name} leads out of the folder"
            continue
        yield from foreign(top / name)
        yield from weaknesses_below(root, roots)


def weaknesses_below(path: Path, roots: list[Path]) -> Iterator[str]:
    """As `weaknesses`, for a file or for a folder and all that is in it."""
    yield from foreign(path)
    if not path.is_dir():
        return
    with os.scandir(path) as entries:
        for entry in entries:
            below = Path(entry.path)
            if not entry.is_symlink():
                yield from weaknesses_below(below, roots)
                continue
            yield from foreign(below)
            target = below.resolve()
            if not any(root in (target, *target.parents) for root in roots):
                yield f"{below} leads to what is not root's"


def foreign(path: Path) -> Iterator[str]:
    """What is wrong with the owner and the mode of `path`, not of a link's target."""
    try:
        found = path.lstat()
    except OSError as error:
        yield f"{path}: {error.strerror}"
        return
    if found.st_uid != 0:
        yield f"{path} is not root's"
    elif found.st_mode & 0o022 and not stat.S_ISLNK(found.st_mode):
        yield f"{path} is writable by others"


class FolderRecord:
    """What root remembers of the runner's folder: in ``paths.state``, where no job is.

    The registration's files are the runner's own; a job could change the address in
    them that `config.sh remove` sends its token to.
    """

    def __init__(self, state: Path, directory: Path) -> None:
        self._directory = directory
        self._job = state / "job-has-run"
        self._digest = state / "registration.sha256"
        self._seen = False

    def note_job(self) -> None:
        """A job runs, or has run, in the folder."""
        if not self._seen:
            self._seen = True
            with suppress(OSError):
                self._job.touch(mode=0o600)

    def note_registration(self) -> None:
        """The registration's files are those that were made for us."""
        with suppress(OSError):
            self._digest.write_text(self._present_digest())

    def danger(self, account: Account | None, removing: bool) -> str:
        """Why no token may be given to a program in the folder; empty: it may."""
        if same_user(account) or not (self._seen or self._job.exists()):
            return ""
        weak = weakness(self._directory)
        if weak:
            return f"a job has run there, and {weak}"
        if removing and not self._is_registration_ours():
            return "a job has changed the files of the registration"
        return ""

    def _is_registration_ours(self) -> bool:
        try:
            return self._digest.read_text() == self._present_digest()
        except OSError:
            return False

    def _present_digest(self) -> str:
        digest = hashlib.sha256()
        for name in (*REGISTRATION_FILES, *MIGRATED_FILES):
            content = b""
            with suppress(OSError, ValueError):
                content = read_small(self._directory / name, SMALL_BYTES)
            digest.update(b"%d:%b" % (len(content), content))
        return digest.hexdigest()
