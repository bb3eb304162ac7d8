"""Who a process is, and whose environment it gets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from miglet.metadata.clouds import metadata_hosts
from miglet.runner.identity import ProcessIdentity, ProcIncomplete, boot_id
from miglet.runner.installation import Hooks, proxy_environment, runner_environment
from miglet.supervisor.privileges import account
from miglet.workers.registration import environment
from tests.launching import as_root
from tests.sample_settings import sample_settings

pytestmark = pytest.mark.integration


def test_the_identity_of_a_zombie_is_not_alive():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    zombie = ProcessIdentity.of(pid)
    assert zombie and not zombie.alive()
    os.waitpid(pid, 0)
    assert ProcessIdentity.of(pid) != zombie
    assert not zombie.signal(0)


def test_an_identity_goes_through_json():
    mine = ProcessIdentity.of(os.getpid())
    assert mine.boot_id == boot_id() and mine.alive()
    assert ProcessIdentity.of_json(json.loads(json.dumps(mine.as_json()))) == mine


def test_a_proc_without_a_boot_id_is_a_named_misconfiguration(tmp_path):
    with pytest.raises(ProcIncomplete, match="boot_id") as raised:
        boot_id(str(tmp_path / "boot_id"))
    assert raised.value.exit_status == 78 and "subset=pid" in raised.value.hint


def test_the_environment_is_complete_and_exact(tmp_path):
    base = {
        "PATH": "/opt/bin:/bin",
        "MIGLET_CONTROLLER_ENDPOINT": "x",
        "NOTIFY_SOCKET": "x",
        "http_proxy": "http://not.ours",
    }
    mine = account(None)
    hooks = Hooks(Path("/h/started.sh"), Path("/h/completed.sh"))
    made = runner_environment(mine, base, tmp_path, hooks, tmp_path / "perf")
    as_superuser = {"RUNNER_ALLOW_RUNASROOT": "1"} if mine.uid == 0 else {}
    assert made == {
        "PATH": "/opt/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": mine.home,
        "USER": mine.name,
        "LOGNAME": mine.name,
        "MIGLET_JOB_DIRECTORY": str(tmp_path),
        "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE": "1",
        "ACTIONS_RUNNER_HOOK_JOB_STARTED": "/h/started.sh",
        "ACTIONS_RUNNER_HOOK_JOB_COMPLETED": "/h/completed.sh",
        "RUNNER_PERFLOG": str(tmp_path / "perf"),
        **as_superuser,
    }


@as_root
def test_only_root_is_allowed_to_run_it_as_root(tmp_path):
    assert "RUNNER_ALLOW_RUNASROOT" not in runner_environment(
        account("nobody"), {}, tmp_path
    )
    assert "RUNNER_ALLOW_RUNASROOT" in runner_environment(None, {}, tmp_path)


def test_a_proxy_has_all_its_names_and_this_machine_is_not_behind_it():
    made = proxy_environment("http://proxy:3128", ["192.0.2.1"])
    assert made["https_proxy"] == made["HTTP_PROXY"] == "http://proxy:3128"
    assert made["no_proxy"] == made["NO_PROXY"] == "localhost,127.0.0.1,::1,192.0.2.1"


def test_the_way_to_the_controller_is_not_the_jobs_business(tmp_path):
    settings = sample_settings(
        {
            "controller.proxy": "http://me:hunter2@secret.example:3128",
            "runner.proxy": "http://proxy.example:3128",
        }
    )
    host = SimpleNamespace(settings=settings, report=lambda fact: None)
    made = environment(host, None, tmp_path, tmp_path)
    assert made["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert {*metadata_hosts()} < {*made["no_proxy"].split(",")}
    assert "hunter2" not in str(made) and "secret.example" not in str(made)
    host.settings = settings.replaced({"runner.proxy": None})
    assert not [
        name
        for name in environment(host, None, tmp_path, tmp_path)
        if "proxy" in name.lower()
    ]
