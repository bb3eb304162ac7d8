"""Every call of the client, and a controller that answers as a test wants."""

from __future__ import annotations

import json
import re

from miglet.controller.answers import Call

BASE = "http://controller.example/mig"


SECRET = "the-controllers-own-token"


TRACE = "0af7651916cd43dd8448eb211c80319c"


EVENT = {"id": "e-1", "type": "VMStarted", "trace_id": TRACE, "sequence": 1}


TOKEN = {
    "registration_token": "AAAREGISTRATIONTOKEN",
    "expires_at": "2026-01-15T10:30:00Z",
    "runner_url": "https://github.com/octo",
    "runner_group": "default",
    "labels": ["self-hosted", "linux"],
}


REMOVAL = {"removal_token": "AAAREMOVALTOKEN", "expires_at": "2026-01-15T10:30:00Z"}


NO_COMMANDS = {"commands": [], "vm_id": "vm-1"}


#: How each call is made, and an answer that it takes.
CALLS = {
    Call.REGISTRATION_TOKEN: (lambda c: c.registration_token({}, TRACE), TOKEN),
    Call.REMOVAL_TOKEN: (lambda c: c.removal_token({}, TRACE), REMOVAL),
    Call.EVENT: (lambda c: c.post_event(EVENT), {"acknowledged": True}),
    Call.HEARTBEAT: (lambda c: c.heartbeat({}, TRACE), {}),
    Call.COMMANDS: (lambda c: c.commands(0.2, TRACE), NO_COMMANDS),
}


def answers(
    controller, call, status, body="", vm="vm-1", headers=None, content_type="text/x"
):
    if not isinstance(body, (str, bytes)):
        body = json.dumps(body)
    url = re.compile(re.escape(f"{BASE}/api/v1/vms/{vm}/{call.path}") + r"(\?.*)?$")
    controller.add(
        call.method,
        url,
        body=body,
        status=status,
        headers=headers or {},
        content_type=content_type,
    )


def made(call, client):
    return CALLS[call][0](client)
