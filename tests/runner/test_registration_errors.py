"""What config.sh said, classified as one outcome: the tables, row by row."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet.runner.installation import REGISTRATION_FILES
from miglet.runner.registration_errors import Next, interpret, interpret_removal

HTTP = "Http response code: {0} from 'POST https://api.github.com/x' (Request Id: 1)\n"
STATUS = "Response status code does not indicate success: {0}.\n"
SAID = {
    "already_configured": "Cannot configure the runner because it is already"
    " configured. To reconfigure the runner, run 'config.cmd remove' or './config.sh"
    " remove' first.",
    "runs_as_root": "Must not run with sudo",
    "missing_dependency": "Libicu's dependencies is missing for Dotnet Core 6.0\n"
    "Execute sudo ./bin/installdependencies.sh to install any missing Dotnet Core 6.0"
    " dependencies.",
    "group_unknown": 'Could not find any self-hosted runner group named "G".',
    "invalid_option": "Invalid configuration provided for token. Terminating unattended"
    " configuration.",
    "server_too_old": "The GitHub server does not support configuring a self-hosted"
    " runner with 'Ephemeral' flag.",
    "clock_skew": "The local machine's clock may be out of sync with the server time by"
    " more than five minutes. Please sync your clock with your domain or internet time"
    " and try again.",
    "name_taken": "A runner exists with the same name\nA runner exists with the same"
    " name vm-1.",
    "disk_full": "No space left on device : '/opt/actions-runner/.runner'",
    "not_writable": "Access to the path '/opt/actions-runner/.runner' is denied.",
    "token_refused": HTTP.format("NotFound")
    + '{"message":"Not Found"}\n'
    + STATUS.format("404 (Not Found)"),
    "unauthorized": 3 * HTTP.format("Forbidden") + STATUS.format("403 (Forbidden)"),
    "rate_limited": HTTP.format("TooManyRequests") + "{}",
    "server_error": 3 * HTTP.format("BadGateway") + STATUS.format("502 (Bad Gateway)"),
    "refused": HTTP.format("UnprocessableEntity") + "{}",
    "network": "Name or service not known (api.github.com:443)",
    "tls": "The SSL connection could not be established, see inner exception.",
    "interrupted": "# Authentication\n\nExiting...\n",
    "unknown": "Object reference not set to an instance of an object.",
}
NEXT = {
    Next.NEW_TOKEN: {"token_refused", "unauthorized"},
    Next.GIVE_UP: {
        "runs_as_root",
        "missing_dependency",
        "group_unknown",
        "invalid_option",
        "server_too_old",
        "not_writable",
        "refused",
    },
}


@pytest.mark.parametrize("kind", SAID)
def test_each_failure_is_distinguished_from_the_others(kind):
    outcome = interpret(1, f"\n{80 * '-'}\n\n# Authentication\n\n{SAID[kind]}\n", ())
    assert outcome.kind == kind
    expected = [then for then, kinds in NEXT.items() if kind in kinds] or [Next.RETRY]
    assert outcome.next is expected[0]
    assert outcome.hint and outcome.message == SAID[kind].strip().split("\n")[-1]
    assert outcome.category in ("permanent", "infrastructure", "misconfig", "transient")


@pytest.mark.parametrize(
    ("code", "kind"),
    [(126, "not_executable"), (127, "not_found"), (137, "killed"), (None, "lost")],
)
def test_a_bare_exit_code_tells_something_too(code, kind):
    assert interpret(code, "", ()).kind == kind
    assert interpret(code, "", ()).message == "it said nothing"


def test_the_last_answer_counts():
    said = HTTP.format("InternalServerError") + SAID["token_refused"]
    assert interpret(1, said, ()).kind == "token_refused"


def test_success_without_all_files_is_none():
    assert interpret(0, "Settings Saved.", (".runner",)).kind == "incomplete"
    assert interpret(1, "", REGISTRATION_FILES).kind == "unknown"


def test_a_removal_that_meets_a_busy_runner_waits():
    said = (
        HTTP.format("UnprocessableEntity") + "Failed: Removing runner from the server"
    )
    assert interpret_removal(1, said).kind == "runner_busy"
    assert interpret_removal(0, "Does not exist. Skipping").good
    assert interpret_removal(1, SAID["token_refused"]).kind == "token_refused"


@given(st.one_of(st.none(), st.integers(0, 255)), st.text(), st.booleans())
def test_only_exit_0_with_all_files_is_ever_good(code, output, complete):
    files = REGISTRATION_FILES if complete else REGISTRATION_FILES[1:]
    outcome = interpret(code, output, files)
    assert outcome.good == (code == 0 and complete)
    assert len(outcome.message) <= 500


@pytest.mark.parametrize("code", ["9" * 5000, "x" * 100_000, "٣" * 3])
def test_a_status_of_any_length_is_an_outcome(code):
    assert interpret(1, HTTP.format(code), ()).good is False


def test_what_it_said_is_printable():
    said = "Http\x1b[31m failed\x00\u202e"
    assert interpret(1, said, ()).message == r"Http\x1b[31m failed\x00\u202e"


def test_the_time_for_an_output_is_in_proportion_to_its_size():
    said = "Access to the path "
    times = []
    for count in (500, 4000):
        began = time.process_time()
        assert interpret(1, said * count, ()).kind == "unknown"
        times.append(time.process_time() - began)
    assert times[1] < max(0.1, 24 * times[0])
