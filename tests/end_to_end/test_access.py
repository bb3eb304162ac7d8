"""Who may talk to whom: tokens that change, certificates, controllers that say no."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.authority import Authority
from tests.end_to_end.conftest import HELD, IDLE, job, pointed_at
from tests.reference_process import running_controller
from tests.stub_controller import GO_ON, answer, stub_controller
from tests.support import eventually


def replaced(source, target) -> None:
    """Put a file in place as a rotation does: whole, by a rename."""
    fresh = target.with_name(f"{target.name}.fresh")
    shutil.copy(source, fresh)
    os.replace(fresh, target)


def test_a_machine_is_known_by_its_certificate_and_rotates_it(machine, tmp_path):
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue("vm")
    options = {
        "tls_cert": authority.combined("controller"),
        "client_ca": authority.path,
        "token_file": None,
    }
    with running_controller(tmp_path, **options) as controller:
        controller.session.verify = str(authority.path)
        controller.session.cert = str(authority.combined("operator"))
        auth = {
            "type": "mtls",
            "certificate_path": str(certificate),
            "key_path": str(key),
            "ca_path": str(authority.path),
        }
        vm = machine(IDLE, controller={"endpoint": controller.endpoint, "auth": auth})
        vm.controller = controller
        vm.agent.start()
        vm.event("RunnerRegistered")
        fresh = Authority(tmp_path, "authority-fresh").issue("nobody")
        old = certificate.read_bytes(), key.read_bytes()
        replaced(fresh[0], certificate)
        replaced(fresh[1], key)
        number = vm.controller.command(vm.vm, "RotateCredentials", {})
        eventually(lambda: vm.agent.status()["controller"]["last_error"])
        certificate.write_bytes(old[0])
        key.write_bytes(old[1])
        assert vm.answer(number)["outcome"] in ("failed", "done")
        assert vm.order("RotateCredentials")["outcome"] == "done"
        vm.double.push_job(job())
        assert vm.agent.wait() == 0
        assert vm.events("JobCompleted")


def test_a_token_that_is_refused_in_the_middle_is_read_again(machine, tmp_path):
    accepted = ["first"]
    token = tmp_path / "token"
    token.write_text("first")

    def script(call, body):
        sent = stub.requests[-1].headers.get("Authorization", "")
        return GO_ON if sent == f"Bearer {accepted[0]}" else answer({}, 401)

    with stub_controller(script=script) as stub:
        vm = pointed_at(machine(HELD), stub.endpoint)
        text = vm.agent.config.read_text()
        vm.agent.config.write_text(
            text.replace(str(vm.controller.token_path), str(token))
        )
        vm.agent.start()
        vm.agent.until("idle")
        vm.double.release_job()
        vm.agent.until("job_running")
        accepted[0] = "second"
        vm.double.finish_step()
        eventually(
            lambda: "401" in (vm.agent.status()["controller"]["last_error"] or "")
        )
        token.write_text("second")
        assert vm.agent.wait() == 0
        kinds = [event["type"] for event in stub.events()]
        assert kinds.count("JobCompleted") >= 1


@pytest.mark.parametrize("status", [403, 404])
def test_a_controller_that_gives_no_token_is_believed(machine, status):
    def script(call, body):
        refused = call == "registration-token"
        return answer({"detail": "not yours"}, status) if refused else GO_ON

    with stub_controller(script=script) as stub:
        vm = pointed_at(machine(IDLE), stub.endpoint)
        vm.agent.start()
        assert vm.agent.wait() == 77
        (error,) = stub.events("Error")
        assert error["data"]["category"] == "permanent"
        assert stub.events()[-1]["type"] == "VMStopped"
        assert len(stub.calls("registration-token")) == 1


def test_a_token_that_had_expired_on_arrival_is_not_used(machine):
    tokens = ["2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z"]

    def script(call, body):
        if call != "registration-token":
            return GO_ON
        return answer(
            {
                "registration_token": "ATOKENOFTHESTUB",
                "expires_at": tokens.pop(0),
                "runner_url": "https://github.com/octo",
                "runner_group": None,
                "labels": None,
            }
        )

    with stub_controller(script=script) as stub:
        vm = pointed_at(machine(IDLE), stub.endpoint)
        vm.agent.start()
        vm.agent.until("idle")
        assert tokens == []
        assert len(vm.double.truth("config_start")) == 1


@pytest.mark.slow
def test_a_controller_that_is_never_there_is_given_up(machine, free_port):
    vm = machine(IDLE, controller={"give_up_after": "1s"})
    pointed_at(vm, f"http://127.0.0.1:{free_port}")
    vm.agent.start()
    assert vm.agent.wait(30) == 69
    assert "no acknowledgement within 1 s" in vm.agent.log()


@pytest.mark.parametrize("status", [403, 422])
def test_a_start_that_is_refused_ends_the_machine(machine, status):
    def script(call, body):
        started = call == "events" and body["type"] == "VMStarted"
        return answer({"detail": "who are you?"}, status) if started else GO_ON

    with stub_controller(script=script) as stub:
        vm = pointed_at(machine(IDLE), stub.endpoint)
        vm.agent.start()
        assert vm.agent.wait() == 77
        assert "who are you?" in stub.events("Error")[0]["data"]["message"]
