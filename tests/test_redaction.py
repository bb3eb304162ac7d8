"""Redaction in every form a secret may take, and privileges that stay dropped."""

from __future__ import annotations

import base64
import json
import re
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miglet import redaction
from miglet.redaction import MASK, redact, redact_tree, remember_secret
from tests.cases import MANY_EXAMPLES

SECRET = "kX9/+z~Ü\"q 7\n'Zw"

PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"
    "DEK-Info: AES-128-CBC,00FF\n\nMIIEowIBAAKCAQEA75\nbm90IGEga2V5\n"
    "-----END RSA PRIVATE KEY-----"
)
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N"


@pytest.fixture(autouse=True)
def _nothing_known():
    redaction.forget_secrets()
    yield
    redaction.forget_secrets()


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        quote(SECRET, safe=""),
        quote(SECRET),
        quote_plus(SECRET),
        "http://x/?t=" + quote_plus(SECRET),
    ],
)
def test_a_known_secret_is_masked_in_this_form(form):
    remember_secret(SECRET)
    shown = redact(f"before {form} after")
    assert shown.startswith("before ") and shown.endswith(" after")
    assert "kX9" not in shown and "Zw" not in shown and MASK in shown


@pytest.mark.parametrize("offset", range(6))
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_known_secret_is_masked_wherever_it_lies_in_base64(offset, encode):
    remember_secret(SECRET)
    text = encode(b"u" * offset + SECRET.encode() + b":after").decode()
    shown = redact(text)
    assert MASK in shown
    padded = shown.replace(MASK, "")
    assert len(padded) < len(text) - len(SECRET)


def test_lower_case_escapes_are_escapes_too():
    remember_secret("abc/def+ghi")
    assert redact("abc%2fdef%2bghi") == MASK


def test_the_longer_one_of_two_secrets_is_masked_whole():
    remember_secret("abcdef")
    remember_secret("abcdefghij")
    assert redact("abcdefghij abcdef") == f"{MASK} {MASK}"


def test_short_texts_and_masks_are_not_remembered():
    for text in ("12345", "", "   ab   ", "******"):
        remember_secret(text)
    assert redact("12345 ab ******") == "12345 ab ******"


def test_the_end_of_line_of_a_token_file_does_not_matter():
    remember_secret("abcdefgh\n")
    assert redact("<abcdefgh>") == f"<{MASK}>"


def test_old_secrets_make_room_for_new_ones():
    for number in range(redaction.MOST_SECRETS + 1):
        remember_secret(f"secret-number-{number:04d}")
    assert redact("secret-number-0000") == "secret-number-0000"
    assert redact("secret-number-0001") == MASK


@pytest.mark.parametrize(
    "text, hidden, kept",
    [
        ("Authorization: Bearer xyz.abc", "xyz", "Authorization"),
        ("{'Authorization': 'Basic dTpw'}", "dTpw", "Authorization"),
        ("sent Bearer xyz to them", "xyz", "to them"),
        ("got ghp_0123456789abcdefghij", "0123", "got"),
        ("got ghs_123_eyJhbGciOiJIUzI1.eyJz", "eyJ", "got"),
        ("got github_pat_11AAAA_bbbbcccc", "11AAAA", "got"),
        (f"got {JWT} there", "eyJ", "there"),
        (PEM + " end", "MII", "end"),
        (PEM.replace("\n", "\\n") + " end", "MII", "end"),
        (PEM[:90], "MII", ""),
        ("https://user:pa:ss@w@host/x", "pa:ss", "host/x"),
        ("ACTIONS_RUNNER_INPUT_TOKEN=AB12CD run", "AB12", "run"),
        ("config.sh --token AB12CD --labels x", "AB12", "--labels x"),
        ("['config.sh', '--token', 'AB12CD', '--labels']", "AB12", "--labels"),
        ('{"registration_token": "AB12", "id": 3}', "AB12", '"id": 3'),
        ('{\\"client_secret\\": \\"AB\\\\n12\\", \\"id\\": 3}', "12", '\\"id\\": 3'),
        ("{'password': 'AB12', 'id': 3}", "AB12", "'id': 3"),
        ('{"private_key":"AB12"}', "AB12", "private_key"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text, hidden, kept):
    shown = redact(text)
    assert hidden not in shown
    assert MASK in shown and kept in shown


@pytest.mark.parametrize(
    "text",
    [
        "the bearer token file is empty",
        "https://host:8080/api/v1/vms/vm-1/events",
        '{"token_path": "/etc/miglet/token", "token_source": "controller"}',
        "-----BEGIN is no key",
        "idle -> job_running on JobStarted(run 777001)",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


def test_redacted_json_is_still_json():
    fields = {
        "message": f'{PEM} Authorization: Bearer x "token": "abc" https://u:p@h',
        "next": [JWT, "token='a\"b'", "ghp_0123456789"],
    }
    shown = json.loads(redact(json.dumps(fields)))
    assert shown["next"] == [MASK, f"token='{MASK}\"b'", MASK]


def test_a_tree_is_masked_by_content_and_by_key():
    remember_secret("hush-hush")
    tree = {"a": ["hush-hush", 1, None, True, 1.5], "refresh_token": "x", "tokens": 3}
    shown = {"a": [MASK, 1, None, True, 1.5], "refresh_token": MASK, "tokens": 3}
    assert redact_tree(tree) == shown
    assert redact_tree(("hush-hush",)) == [MASK]
    assert redact_tree({"hush-hush": OSError("hush-hush")}) == {MASK: MASK}
    assert redact_tree({"token": "", "secret": None}) == {"token": "", "secret": None}


WORDS = """
    -----BEGIN|A-----|-----END|-----|-|eyJ|eyJhbGciOiJIUzI1|.|ghp_abcdefgh|ghp_|secret
    github_pat_|abcdefgh|://|:|@|/|token|token=|"token":"|'token':'|"|'|\\|\\n|Bearer
    bearer|Authorization:|--token|=|,|;|&|*|***|x|7|sesame-42|sesame|tokens|c2VzYW1lLTQy
"""
PIECES = st.sampled_from(
    [*re.split(r"\s*[|\n]\s*", WORDS), "-----BEGIN A-----", " ", "\n"]
)


@MANY_EXAMPLES
@given(st.lists(PIECES, max_size=30).map("".join))
def test_redacting_again_changes_nothing(text):
    remember_secret("sesame-42")
    once = redact(text)
    assert redact(once) == once
    assert "sesame-42" not in once


@given(st.text())
def test_any_text_is_redacted_without_complaint(text):
    remember_secret(text)
    assert redact(redact(text)) == redact(text)


HOSTILE = [
    "eyJ",
    "eyJa",
    "ghp_",
    "github_pat_",
    "-----BEGIN A-----",
    "-----BEGIN A-----x-",
    "://",
    "://a:",
    "://a:b@",
    "token",
    'token"',
    'token":"',
    "token='\\a",
    "token\\",
    "authorization",
    "authorization:\\",
    "bearer ",
    "--token ",
    "\\",
    "-",
    " ",
]


def seconds_for(text: str) -> float:
    """The CPU time of this process that redacting `text` takes."""
    before = time.process_time()
    redact(text)
    return time.process_time() - before


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_takes_time_linear_in_its_length(piece):
    remember_secret("an-ordinary-secret")
    small = piece * (10_000 // len(piece))
    # Sixteen-fold when linear's eightfold is doubled; quadratic would be 64-fold.
    # 50 ms absorb the noise of a busy machine.
    quick = min(seconds_for(small) for _ in range(3))
    assert seconds_for(small * 8) < 16 * quick + 0.05
