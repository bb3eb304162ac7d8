"""The runner's folder: is the runner in it, which one, and as whom is it registered.

The job's user may write here, so every file is untrusted: no links, no
devices, nothing large.
"""

from __future__ import annotations

import codecs
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from miglet.errors import MISCONFIGURED, RunnerError
from miglet.formats import strict_json
from miglet.messages.codec import Value, frozen_value
from miglet.safefile import read_small
from miglet.supervisor.privileges import Account
from miglet.supervisor.privileges import account as account_named

#: Written by config.sh, in this order (actions/runner ConfigurationManager.cs).
REGISTRATION_FILES = (".credentials_rsaparams", ".credentials", ".runner")

#: The Listener adds these when the server asks it to (ConfigurationStore.cs).
MIGRATED_FILES = (".runner_migrated", ".credentials_migrated")

SMALL_BYTES = 64 << 10
DEPS_BYTES = 4 << 20

#: The job may have written where it is read: its length is bounded.
VERSION = r"([0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9})"

AGENT_ID = re.compile(r"[0-9]{1,18}")

UNPACK = "unpack a release of actions/runner there, or correct runner.directory"


class Problem(NamedTuple):
    """Something that keeps the runner from working, and what to do about it."""

    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})"


class FolderUnusable(RunnerError):
    """The folder has no runner that could be started; another attempt cannot help."""

    category = "misconfig"
    exit_status = MISCONFIGURED

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems
        self.hint = problems[0].hint


class NotRemovable(RunnerError):
    """A file of an earlier registration cannot be removed."""

    category = "misconfig"
    exit_status = MISCONFIGURED
    hint = "look for an immutable file (lsattr) or a read-only file system"

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"cannot remove {path}: {error.strerror}")


@frozen_value
class RunnerFile(Value):
    """What `.runner` tells of the registration; all texts, as the server has them."""

    #: The runner's id in GitHub's API; None where the file has no such number.
    agent_id: int | None
    agent_name: str
    pool_name: str | None = None
    git_hub_url: str | None = None
    ephemeral: bool = False


def check_folder(directory: Path, account: Account | None) -> list[Problem]:
    """Everything that would keep `account` from configuring and running the runner."""
    if problems := directory_problems(directory, account):
        return problems
    programs = (directory / "config.sh", directory / "bin" / "Runner.Listener")
    found = [
        problem
        for program in programs
        for problem in program_problems(program, account)
    ]
    if not may(directory, account, os.W_OK):
        hint = "install the runner with `miglet install-runner`: root:GROUP, mode 1775"
        found.append(Problem(f"{directory} is not writable by {named(account)}", hint))
    return found


def executable_problems(
    directory: Path, program: Path, account: Account | None
) -> list[Problem]:
    """What would keep `account` from starting `program` in `directory`."""
    return directory_problems(directory, account) or program_problems(program, account)


def directory_problems(directory: Path, account: Account | None) -> list[Problem]:
    """Whether the folder is there, and can be entered."""
    if not directory.is_dir():
        return [Problem(f"the runner's folder {directory} does not exist", UNPACK)]
    for place in [*reversed(directory.parents), directory]:
        if not may(place, account, os.X_OK):
            hint = (
                f"chmod it, or move the runner to where {named(account)} can reach it"
            )
            return [Problem(f"{named(account)} may not enter {place}", hint)]
    return []


def program_problems(program: Path, account: Account | None) -> list[Problem]:
    """Whether the program is there, a file, and executable."""
    if not program.is_file():
        return [Problem(f"there is no {program}", UNPACK)]
    if not may(program, account, os.X_OK):
        hint = f"chmod 755 {program}"
        return [Problem(f"{program} is not executable by {named(account)}", hint)]
    return []


def named(account: Account | None) -> str:
    """Whom we speak of, in a message."""
    return f"user {account.name}" if account else "our own user"


def may(path: Path, account: Account | None, mode: int) -> bool:
    """Whether the mode of `path` lets `account` read, write or execute it (inode(7)).

    For another user than our own the kernel cannot be asked without becoming it.
    """
    if account is None or account.uid == os.geteuid() or os.geteuid() != 0:
        return os.access(path, mode)
    found = path.stat()
    if account.uid == found.st_uid:
        return bool(found.st_mode >> 6 & mode)
    if found.st_gid in os.getgrouplist(account.name, account.gid):
        return bool(found.st_mode >> 3 & mode)
    return bool(found.st_mode & mode)


def registered(directory: Path) -> RunnerFile | None:
    """The registration that `directory` holds; None: there is no valid one.

    The file begins with a byte order mark, and a just-in-time configuration spells the
    keys with capitals and numbers as text (actions/runner ConfigurationStore.cs).
    """
    try:
        content = read_small(directory / ".runner", SMALL_BYTES)
        document = strict_json(content.removeprefix(codecs.BOM_UTF8))
        return runner_file({key.lower(): value for key, value in document.items()})
    except (OSError, ValueError, AttributeError, KeyError):
        return None


def runner_file(fields: Mapping[str, Any]) -> RunnerFile:
    """The registration in `.runner`'s fields, keys in small letters; or KeyError."""
    return RunnerFile(
        number(fields["agentid"]),
        str(fields["agentname"]),
        text(fields.get("poolname")),
        text(fields.get("githuburl")),
        str(fields.get("ephemeral", False)).lower() == "true",
    )


def number(value: object) -> int | None:
    """`value` as a number of GitHub's, which has at most 18 digits; else None."""
    digits = str(value)
    return int(digits) if AGENT_ID.fullmatch(digits) else None


def text(value: object) -> str | None:
    """`value` as text, if there is one."""
    return None if value is None else str(value)


def registration_files(directory: Path) -> frozenset[str]:
    """Which of the files that make a registration are there."""
    return frozenset(
        name for name in REGISTRATION_FILES if (directory / name).is_file()
    )


def forget_registration(directory: Path) -> list[str]:
    """Remove all traces of a registration, as `config.sh remove --local` does.

    Needed after a failed one too: a `.runner` refuses the next. What is no file, which
    a job can have put there, is set aside. The names removed; raises NotRemovable.
    """
    removed = []
    for name in (*REGISTRATION_FILES, *MIGRATED_FILES):
        path = directory / name
        try:
            remove_or_set_aside(path)
            removed.append(name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise NotRemovable(path, error) from error
    return removed


def remove_or_set_aside(path: Path) -> None:
    """Remove a file; rename a folder, whose content may be anything."""
    try:
        os.unlink(path)
    except IsADirectoryError:
        os.rename(path, path.with_name(f".set-aside-{uuid.uuid4().hex}"))


def runner_version(directory: Path) -> str | None:
    """The installed runner's version, without starting it; None when nothing tells.

    `bin` becomes a link to `bin.VERSION` when the runner has updated itself; else
    the .NET dependency file names the program with its version.
    """
    return next(versions(directory), None)


def versions(directory: Path) -> Iterator[str]:
    """What the folder says of the version, the surest first."""
    with suppress(OSError):
        target = os.readlink(directory / "bin")
        yield from re.findall(rf"/?bin\.{VERSION}/?$", target)
    with suppress(OSError, ValueError):
        deps = read_small(directory / "bin" / "Runner.Listener.deps.json", DEPS_BYTES)
        for version in re.findall(rb'"Runner\.Listener/' + VERSION.encode(), deps):
            yield version.decode()


DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_LANG = "C.UTF-8"

#: Names under which programs look for a proxy; there is no agreement on the case.
PROXY_NAMES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
NO_PROXY = ("localhost", "127.0.0.1", "::1")


class Hooks(NamedTuple):
    """The scripts that the runner's Worker runs before and after a job."""

    started: Path
    completed: Path


def account_environment(
    account: Account | None, base: Mapping[str, str]
) -> dict[str, str]:
    """What any program of the runner's needs: where it is, and who it is.

    As root actions/runner refuses to work unless a variable says that it is meant.
    """
    who = account if account and os.geteuid() == 0 else account_named(None)
    environment = {
        "PATH": base.get("PATH") or DEFAULT_PATH,
        "LANG": base.get("LANG") or DEFAULT_LANG,
        "HOME": who.home,
        "USER": who.name,
        "LOGNAME": who.name,
    }
    if who.uid == 0:
        environment["RUNNER_ALLOW_RUNASROOT"] = "1"
    return environment


def proxy_environment(proxy: str, direct: Sequence[str]) -> dict[str, str]:
    """The proxy in all its spellings; this machine and `direct` are not behind it."""
    hosts = ",".join((*NO_PROXY, *direct))
    return {**dict.fromkeys(PROXY_NAMES, proxy), "no_proxy": hosts, "NO_PROXY": hosts}


def runner_environment(
    account: Account | None,
    base: Mapping[str, str],
    job_directory: Path,
    hooks: Hooks | None = None,
    perflog: Path | None = None,
) -> dict[str, str]:
    """The Listener's whole environment but for a proxy.

    `hooks` and `perflog`, a folder that the runner's user can write to, are further
    sources of a job's signs (actions/runner JobExtension.cs, HostContext.cs).
    """
    environment = account_environment(account, base)
    environment["MIGLET_JOB_DIRECTORY"] = str(job_directory)
    environment["ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE"] = "1"
    if hooks:
        environment["ACTIONS_RUNNER_HOOK_JOB_STARTED"] = str(hooks.started)
        environment["ACTIONS_RUNNER_HOOK_JOB_COMPLETED"] = str(hooks.completed)
    if perflog:
        environment["RUNNER_PERFLOG"] = str(perflog)
    return environment
