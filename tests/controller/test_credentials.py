"""The token's file: read when it changes, and reported when it is unusable."""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace

import pytest

from miglet.controller.credentials import BearerToken, NoToken, credential_for
from miglet.errors import CredentialUnusable
from miglet.redaction import redact


@pytest.fixture
def path(tmp_path):
    return tmp_path / "token"


def sent(token):
    return token.headers()["Authorization"]


def replace(path, text):
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(path)


def test_the_token_is_stripped_and_sent_as_bearer(path):
    path.write_text("\n  abc.DEF-123_~+/=\r\n")
    assert sent(BearerToken(path)) == "Bearer abc.DEF-123_~+/="


def test_the_token_is_known_to_the_redaction(path):
    path.write_text("a-very-secret-token")
    BearerToken(path).headers()
    assert "a-very-secret-token" not in redact("xx a-very-secret-token yy")


def test_a_token_that_was_replaced_is_used_at_once(path):
    path.write_text("first-token")
    token = BearerToken(path)
    token.headers()
    replace(path, "other-token")
    assert sent(token) == "Bearer other-token"


def test_a_token_overwritten_within_the_clocks_tick_is_found_by_a_reread(path):
    path.write_text("first-token")
    token = BearerToken(path)
    token.headers()
    before = path.stat()
    path.write_text("other-token")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sent(token) == "Bearer first-token"
    token.reread()
    assert sent(token) == "Bearer other-token"


def test_an_unchanged_file_is_not_read_again(path):
    path.write_text("first-token")
    token = BearerToken(path)
    token.headers()
    accessed = os.stat(path).st_mtime_ns - 10**15
    os.utime(path, ns=(accessed, os.stat(path).st_mtime_ns))
    token.headers()
    assert os.stat(path).st_atime_ns == accessed


def test_a_symlink_to_the_token_is_followed_when_it_turns(path, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"token-{name}")
    path.symlink_to("one")
    token = BearerToken(path)
    assert sent(token) == "Bearer token-one"
    path.unlink()
    path.symlink_to("two")
    assert sent(token) == "Bearer token-two"


UNUSABLE = {
    "missing": (lambda path: None, "No such file"),
    "empty": (lambda path: path.write_text(""), "is empty"),
    "blank": (lambda path: path.write_text(" \r\n\t"), "is empty"),
    "folder": (lambda path: path.mkdir(), "not a regular file|Is a directory"),
    "pipe": (os.mkfifo, "not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "loop": (lambda path: path.symlink_to(path), "symbolic links"),
    "too long": (lambda path: path.write_text("x" * 8193), "longer than 8192"),
    "two words": (lambda path: path.write_text("sesame open"), "printable"),
    "two lines": (lambda path: path.write_text("sesame\r\nX-Evil: 1"), "printable"),
    "not ascii": (lambda path: path.write_text("sésame"), "printable"),
    "binary": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "printable"),
}


@pytest.mark.parametrize(("make", "expected"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_file_is_reported_with_path_and_remedy(path, make, expected):
    make(path)
    with pytest.raises(CredentialUnusable, match=expected) as caught:
        BearerToken(path).headers()
    assert str(path) in str(caught.value)
    assert "controller.auth.token_path" in str(caught.value)
    assert "sesame" not in str(caught.value)
    assert caught.value.transient


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_reported(path):
    path.write_text("first-token")
    path.chmod(0)
    with pytest.raises(CredentialUnusable, match="Permission denied"):
        BearerToken(path).headers()


@pytest.mark.parametrize("content", [None, "", "half a token"])
def test_while_the_new_token_is_unusable_the_former_serves(path, content, caplog):
    path.write_text("first-token")
    token = BearerToken(path)
    token.headers()
    path.unlink()
    if content is not None:
        path.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert sent(token) == "Bearer first-token"
    assert str(path) in caplog.text
    replace(path, "other-token")
    assert sent(token) == "Bearer other-token"


def test_a_token_that_was_not_accepted_does_not_serve_any_longer(path):
    path.write_text("first-token")
    token = BearerToken(path)
    token.headers()
    path.unlink()
    with pytest.raises(CredentialUnusable):
        token.reread()
    with pytest.raises(CredentialUnusable):
        token.headers()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("bearer", BearerToken), ("none", NoToken), ("mtls", NoToken)],
)
def test_the_settings_say_which_credential(kind, expected):
    auth = SimpleNamespace(type=kind, token_path="/x")
    assert isinstance(credential_for(auth), expected)


def test_no_token_sends_nothing():
    NoToken().reread()
    assert NoToken().headers() == {}
