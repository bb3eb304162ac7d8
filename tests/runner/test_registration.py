"""config.sh: how it is started, what came of it, what it leaves, and its folder."""

from __future__ import annotations

import os
import select
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from miglet.redaction import forget_secrets
from miglet.runner.installation import FolderUnusable
from miglet.runner.launcher import CONFIGURATION_UNIT, Launcher
from miglet.runner.registration import Configuration, Registration
from miglet.runner.registration_errors import Next, Outcome
from miglet.runner.run import RunnerPresent
from miglet.supervisor.privileges import Account, account
from tests.launching import begin_of
from tests.support import eventually

pytestmark = [pytest.mark.integration, pytest.mark.units]

TOKEN = "AABBCCDDEEFF00112233-registration"
WRITE_ALL = (
    "for f in .credentials_rsaparams .credentials .runner; do echo {} > $f; done"
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


class Place:
    """A runner folder with a config.sh that any user can reach."""

    def __init__(self, top: Path) -> None:
        self.root = top / "runtime" / "configuration"
        self.launcher = Launcher(self.root, begin_of(CONFIGURATION_UNIT))
        self.directory = top / "runner"
        (self.directory / "bin").mkdir(parents=True)
        self.put("bin/Runner.Listener", "exit 0")

    def put(self, name: str, script: str) -> None:
        """Write an executable shell script."""
        path = self.directory / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def wanted(self, who: Account | None = None) -> Registration:
        """A registration as the watcher asks for it."""
        return Registration(
            self.directory,
            "https://github.com/myorg",
            "vm-1-ab12",
            ("self-hosted", "linux"),
            "default",
            {"PATH": os.environ["PATH"]},
            who,
        )

    def start(self, script: str, who: Account | None = None) -> Configuration:
        """Start this script as config.sh."""
        self.put("config.sh", script)
        return Configuration.start(self.launcher, self.wanted(who), TOKEN)


@pytest.fixture
def place() -> Iterator[Place]:
    top = Path(tempfile.mkdtemp(prefix="miglet-config-", dir="/tmp"))
    top.chmod(0o755)
    made = Place(top)
    yield made
    if left := Configuration.leftover(made.launcher):
        left.run.kill()
    shutil.rmtree(top)
    forget_secrets()


def outcome_of(configuration: Configuration) -> Outcome:
    return eventually(configuration.poll, what="the end of config.sh")


def test_a_registration_is_exit_0_and_three_files(place):
    outcome = outcome_of(place.start(WRITE_ALL))
    assert outcome.good and outcome.kind == "registered"
    assert Configuration.leftover(place.launcher) is None


def test_the_command_line_has_everything_but_the_token(place):
    script = (
        'printf "%s\\n" "$@" > argv; echo $ACTIONS_RUNNER_INPUT_TOKEN > token;'
        "pwd > cwd; umask > mask; env > environ; exit 1"
    )
    outcome_of(place.start(script))
    read = {p.name: p.read_text() for p in place.directory.iterdir() if p.is_file()}
    assert read["argv"].split("\n")[:-1] == [
        "--unattended",
        "--ephemeral",
        "--disableupdate",
        "--replace",
        "--url",
        "https://github.com/myorg",
        "--name",
        "vm-1-ab12",
        "--labels",
        "self-hosted,linux",
        "--runnergroup",
        "default",
    ]
    assert read["token"].strip() == TOKEN
    assert read["cwd"].strip() == str(place.directory)
    assert read["mask"].strip() == "0077"
    assert "MIGLET" not in read["environ"]


@pytest.mark.parametrize("group", ["-x", "default\nACTIONS_RUNNER_INPUT_URL=x", "\x1b"])
def test_a_value_that_config_sh_would_misread_is_refused(place, group):
    wanted = place.wanted()
    odd = Registration(**{**vars(wanted), "runner_group": group})
    with pytest.raises(FolderUnusable, match="begins with a dash"):
        Configuration.start(place.launcher, odd, TOKEN)


def test_the_token_is_in_no_file_and_in_no_message(place):
    running = place.start('echo "bad token $ACTIONS_RUNNER_INPUT_TOKEN"; read x < go')
    eventually(running.run.printed, what="its words")
    for path in place.root.rglob("*"):
        kept = path.is_file() and path.name != "output" and path.read_bytes()
        assert not kept or TOKEN.encode() not in kept
    assert TOKEN not in repr(vars(running))
    assert TOKEN not in outcome_of(running).message


def test_nothing_waits_for_it(place):
    os.mkfifo(place.directory / "go")
    running = place.start(f"read x < go; {WRITE_ALL}")
    assert running.poll() is None
    descriptor = running.wait_descriptor()
    (place.directory / "go").write_text("\n")
    assert select.select([descriptor], [], [], 10)[0]
    assert running.poll().good
    os.close(descriptor)


def test_its_time_limit_takes_all_that_ignore_signals(place):
    running = place.start(
        "trap '' INT TERM HUP; (setsid sleep 60 &) ; echo Connecting; touch up\n"
        "while :; do sleep 1; done"
    )
    eventually((place.directory / "up").exists, what="the hang")
    eventually(lambda: "Connecting" in running.run.printed(), what="its output")
    family = running.run.tree()
    outcome = running.kill()
    assert (outcome.kind, outcome.next) == ("timed_out", Next.RETRY)
    assert outcome.message == "Connecting"
    assert not any(who.alive() for who in family)
    assert running.poll() == outcome
    assert outcome_of(place.start(WRITE_ALL)).good


def test_one_left_by_a_dead_watcher_is_found_before_another_starts(place):
    place.put("config.sh", "touch up; exec sleep 60")
    pid = os.fork()
    if pid == 0:
        Configuration.start(place.launcher, place.wanted(), TOKEN)
        signal.pause()
        os._exit(1)
    eventually((place.directory / "up").exists, what="config.sh")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    left = Configuration.leftover(place.launcher)
    assert left.poll() is None
    with pytest.raises(RunnerPresent):
        Configuration.start(place.launcher, place.wanted(), TOKEN)
    left.kill()
    assert Configuration.leftover(place.launcher) is None
    assert outcome_of(place.start(WRITE_ALL)).good


def test_a_leftover_that_has_ended_still_tells_its_outcome(place):
    running = place.start(WRITE_ALL)
    eventually(running.run.ended, what="the end")
    assert Configuration.leftover(place.launcher).poll().good


def test_removal_gets_its_token_like_registration(place):
    place.put("config.sh", 'echo "$@" > argv; env > environ; exit 0')
    mine = {"PATH": os.environ["PATH"]}
    running = Configuration.remove(place.launcher, place.directory, mine, None, TOKEN)
    assert running.removing
    assert outcome_of(running).kind == "removed"
    assert (place.directory / "argv").read_text() == "remove\n"
    environ = (place.directory / "environ").read_text()
    assert f"ACTIONS_RUNNER_INPUT_TOKEN={TOKEN}\n" in environ


def test_endless_output_is_capped(place):
    running = place.start("head -c 50000000 /dev/zero; echo; echo the reason; exit 1")
    outcome = outcome_of(running)
    assert (outcome.kind, outcome.message) == ("unknown", "the reason")


@as_root
def test_what_it_writes_belongs_to_the_runners_user_alone(place):
    nobody = account("nobody")
    os.chown(place.directory, nobody.uid, nobody.gid)
    assert outcome_of(place.start(WRITE_ALL, nobody)).good
    found = (place.directory / ".credentials").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (nobody.uid, 0o600)
