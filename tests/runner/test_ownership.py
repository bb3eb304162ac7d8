"""A job cannot change what is started with a token, and each way to do so is found."""

from __future__ import annotations

import os

import pytest

from miglet.runner.ownership import same_user, weakness
from miglet.runner.release import install_release
from miglet.supervisor.privileges import Account
from tests.runner.releases import JOB, archive, root


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


def test_a_job_that_runs_as_miglets_own_user_can_change_everything():
    assert same_user(None)
    assert same_user(Account("root", 0, 0, "/root"))
    assert same_user(JOB) is (os.geteuid() != 0)
