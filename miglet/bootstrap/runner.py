"""Checks of the runner: folder, user, launch, what it may reach, what was left over."""

from __future__ import annotations

import os
from pathlib import Path

from miglet.bootstrap.framework import (
    CheckWarning,
    Misconfiguration,
    Unavailable,
    check,
)
from miglet.config.settings import Settings
from miglet.metadata.clouds import metadata_addresses
from miglet.runner import metadata_firewall
from miglet.runner.installation import (
    MIGRATED_FILES,
    UNPACK,
    check_folder,
    program_problems,
    registration_files,
    runner_version,
)
from miglet.runner.ownership import REINSTALL, same_user, weakness
from miglet.runner.unit import unit_wanted
from miglet.supervisor.privileges import Account, UnknownAccount, account
from miglet.supervisor.systemd import systemd_usable


def runner_account(settings: Settings) -> Account | None:
    """The runner's user; None where `runner_user` will say that there is none."""
    try:
        return account(settings.runner.user)
    except UnknownAccount:
        return None


@check
def runner_folder(settings: Settings, deadline: float) -> str:
    """The runner is there, complete, executable, and writable by its user."""
    directory = Path(settings.runner.directory)
    user = runner_account(settings)
    problems = check_folder(directory, user)
    if (directory / "bin").is_dir():
        problems += program_problems(directory / "bin" / "Runner.Worker", user)
    if problems:
        text = "; ".join(each.message for each in problems)
        raise Misconfiguration(text, problems[0].hint)
    version = runner_version(directory) or "of unknown version"
    return f"actions/runner {version} in {directory}"


@check
def runner_ownership(settings: Settings, deadline: float) -> str:
    """A job cannot change what is started with a token in its environment."""
    user = runner_account(settings)
    directory = Path(settings.runner.directory)
    if same_user(user):
        return "jobs run as MIGlet's own user, or as root, and can change the runner"
    if not directory.is_dir():
        return "no runner"
    if weak := weakness(directory):
        what = "no token is given to it once a job has run there"
        if settings.runner.after_job == "register":
            what += ": the machine ends after its first job"
        raise CheckWarning(f"jobs can change the runner ({weak}): {what}", REINSTALL)
    return "config.sh, bin and externals are root's alone"


@check
def runner_externals(settings: Settings, deadline: float) -> str:
    """The runner brings Node.js, without which no JavaScript action runs."""
    folder = Path(settings.runner.directory) / "externals"
    if not folder.parent.is_dir():
        return "no runner"
    found = sorted(path.name for path in folder.glob("node*"))
    if not found:
        raise CheckWarning(
            f"no Node.js in {folder}: JavaScript actions will fail", UNPACK
        )
    return ", ".join(found)


@check
def runner_user(settings: Settings, deadline: float) -> str:
    """The user that jobs run as exists, and is not root by accident."""
    name = settings.runner.user
    try:
        who = account(name)
    except UnknownAccount as error:
        hint = f"create the user {name}, or set runner.user"
        raise Misconfiguration(str(error), hint) from None
    if name and os.geteuid() not in (0, who.uid):
        hint = f"start MIGlet as root or as {name}, or set runner.user to null"
        raise Misconfiguration(f"only root can run jobs as {name}", hint)
    if who.uid == 0:
        hint = "set runner.user to an unprivileged user"
        raise CheckWarning("jobs run as root", hint)
    return f"jobs run as {who.name} (uid {who.uid})"


@check
def runner_isolation(settings: Settings, deadline: float) -> str:
    """The wanted way of launching the runner is there."""
    wanted = settings.runner.isolation
    usable = systemd_usable()
    if wanted == "systemd" and not usable:
        hint = "start MIGlet as root under systemd, or set runner.isolation to auto"
        raise Misconfiguration("no transient systemd service can be started", hint)
    what = "systemd service" if unit_wanted(wanted, usable) else "session"
    return f"the runner gets a {what} of its own"


@check
def runner_metadata(settings: Settings, deadline: float) -> str:
    """Jobs can be kept from the metadata server, where they are to be."""
    if settings.runner.block_metadata == "auto":
        return "no secret comes from metadata: jobs may ask the metadata server"
    if settings.runner.block_metadata is False:
        return "jobs may ask the metadata server, with all that it holds"
    user = runner_account(settings)
    if user is None:
        return "no user to keep from the metadata server"
    try:
        metadata_firewall.dry_run(settings, user, metadata_addresses())
    except metadata_firewall.Unblockable as error:
        raise Misconfiguration(str(error), error.hint) from None
    except metadata_firewall.MetadataOpen as error:
        raise Unavailable(str(error), error.hint) from None
    return f"{user.name} will be kept from the metadata server"


@check
def earlier_registration(settings: Settings, deadline: float) -> str:
    """No registration was baked into the image."""
    directory = Path(settings.runner.directory)
    left = set(registration_files(directory))
    left |= {name for name in MIGRATED_FILES if (directory / name).is_file()}
    if left:
        names = ", ".join(sorted(left))
        hint = "do not configure the runner when the image is built"
        raise CheckWarning(f"{names} of an earlier registration will be replaced", hint)
    return "none"
