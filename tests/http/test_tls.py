"""Encrypted connections: whom we trust, who we are, and files that change."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import ssl
import subprocess
import sys
from types import SimpleNamespace

import pytest

from miglet.controller.client import Client
from miglet.errors import ControllerUnreachable, CredentialUnusable
from miglet.http.tls import TlsFiles
from miglet.http.transport import TlsFailed
from tests.authority import DAY, NOW, Authority
from tests.http.test_transport import EMPTY, Peer

pytestmark = pytest.mark.integration


def encrypted(context):
    """A script of `Peer`: TLS by `context`, then an empty 200 for each request."""

    def script(peer, connection):
        with contextlib.suppress(OSError):
            secured = context.wrap_socket(connection, server_side=True)
            with secured:
                certificate = secured.getpeercert() or {}
                subject = dict(pair for (pair,) in certificate.get("subject", ()))
                while peer.request(secured):
                    peer.shown.append(subject.get("commonName"))
                    secured.sendall(EMPTY)

    return script


def server_context(certificate, key, client_authority=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if client_authority:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_authority)
    return context


@pytest.fixture
def ours(tmp_path):
    return Authority(tmp_path, "ours")


@pytest.fixture
def serve():
    with contextlib.ExitStack() as stack:

        def start(context):
            peer = Peer(encrypted(context))
            peer.shown = []
            stack.callback(peer.close)
            return peer

        yield start


@pytest.fixture
def client_of():
    with contextlib.ExitStack() as stack:

        def make(peer, authority, certificate=None, key=None, at="https://127.0.0.1"):
            auth = SimpleNamespace(
                type="mtls" if certificate else "none",
                certificate_path=certificate,
                key_path=key,
                ca_path=authority,
            )
            endpoint = peer.endpoint.replace("http://127.0.0.1", at)
            settings = SimpleNamespace(
                endpoint=endpoint, auth=auth, timeout=5.0, proxy=None
            )
            client = Client(settings, "vm-1")
            stack.callback(client.close)
            return client

        yield make


def refused(client, expected):
    with pytest.raises(TlsFailed, match=expected) as caught:
        client.heartbeat({})
    assert caught.value.transient
    assert caught.value.category == "infrastructure"
    assert caught.value.hint


# ---- whom we trust -------------------------------------------------------------


def test_a_server_of_our_own_authority_is_trusted(ours, serve, client_of):
    peer = serve(server_context(*ours.issue("server")))
    client = client_of(peer, ours.path)
    client.heartbeat({})
    client.heartbeat({})
    assert (peer.connections, len(peer.requests)) == (1, 2)


def test_authorities_may_be_in_a_folder(ours, serve, client_of, tmp_path):
    folder = tmp_path / "authorities"
    folder.mkdir()
    shutil.copy(ours.path, folder / "ours.pem")
    subprocess.run(["openssl", "rehash", str(folder)], check=True)
    peer = serve(server_context(*ours.issue("server")))
    client_of(peer, folder).heartbeat({})


def test_a_server_that_the_system_does_not_know_is_refused(ours, serve, client_of):
    peer = serve(server_context(*ours.issue("server")))
    refused(client_of(peer, None), "not accepted: .*local issuer certificate")
    assert not peer.requests


def test_only_the_named_authority_is_trusted(ours, serve, client_of, tmp_path):
    peer = serve(server_context(*ours.issue("server")))
    refused(client_of(peer, Authority(tmp_path, "other").path), "not accepted")
    assert not peer.requests


def test_requests_own_bundle_is_not_trusted_beside_ours(ours, serve, client_of):
    peer = serve(server_context(*ours.issue("server")))
    client = client_of(peer, ours.path)
    client.heartbeat({})
    context = client._transport._adapter.context
    assert len(context.get_ca_certs()) == 1


def test_the_environments_bundle_is_ignored(ours, serve, client_of, monkeypatch):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(ours.path))
    peer = serve(server_context(*ours.issue("server")))
    refused(client_of(peer, None), "not accepted")


def test_an_expired_certificate_is_refused(ours, serve, client_of):
    peer = serve(server_context(*ours.issue("server", until=NOW - DAY)))
    refused(client_of(peer, ours.path), "certificate has expired")


def test_another_hosts_certificate_is_refused(ours, serve, client_of):
    peer = serve(server_context(*ours.issue("server", names=["127.0.0.2"])))
    refused(
        client_of(peer, ours.path),
        "TLS handshake failed: .*127.0.0.1.* match '127.0.0.2'",
    )
    assert not peer.requests


@pytest.mark.parametrize("kept", [True, False])
def test_so_it_is_where_the_host_has_a_name(ours, serve, client_of, kept):
    named = ours.issue("named", names=["localhost" if kept else "remotehost"])
    peer = serve(server_context(*named))
    client = client_of(peer, ours.path, at="https://localhost")
    if kept:
        client.heartbeat({})
    else:
        refused(client, "[Hh]ostname mismatch.*not valid for 'localhost'")
    assert len(peer.requests) == kept


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_before_1_2_is_refused(ours, serve, client_of):
    context = server_context(*ours.issue("server"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    refused(client_of(serve(context), ours.path), "TLS handshake failed: ")


def test_a_plain_server_is_not_spoken_to(client_of, ours):
    def plain(peer, connection):
        connection.recv(1)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    peer = Peer(plain)
    client = client_of(peer, ours.path)
    refused(client, "TLS handshake failed: does this port speak TLS")
    peer.close()


def test_an_authority_that_is_none_is_reported(ours, serve, client_of, tmp_path):
    peer = serve(server_context(*ours.issue("server")))
    (tmp_path / "text.pem").write_text("no certificate")
    for name in ("text.pem", "missing.pem"):
        with pytest.raises(CredentialUnusable, match=name):
            client_of(peer, tmp_path / name).heartbeat({})


# ---- who we are ----------------------------------------------------------------


@pytest.fixture
def strict(ours, serve):
    """A server that demands a certificate of our authority."""
    return serve(server_context(*ours.issue("server"), ours.path))


def test_our_certificate_is_shown(ours, strict, client_of):
    client_of(strict, ours.path, *ours.issue("vm-1")).heartbeat({})
    assert strict.shown == ["vm-1"]


def test_without_a_certificate_the_server_refuses(ours, strict, client_of):
    with pytest.raises(ControllerUnreachable) as caught:
        client_of(strict, ours.path).heartbeat({})
    assert caught.value.transient
    assert not strict.requests


def test_a_certificate_of_another_authority_is_refused(
    ours, strict, client_of, tmp_path
):
    other = Authority(tmp_path, "other").issue("intruder")
    with pytest.raises(ControllerUnreachable):
        client_of(strict, ours.path, *other).heartbeat({})
    assert not strict.requests


def rotated(pair, fresh):
    for path, new in zip(pair, fresh, strict=True):
        os.replace(new, path)


def test_a_rotated_pair_is_shown_by_the_next_request(ours, strict, client_of):
    pair = ours.issue("vm-1")
    client = client_of(strict, ours.path, *pair)
    client.heartbeat({})
    rotated(pair, ours.issue("vm-1-renewed"))
    client.heartbeat({})
    client.heartbeat({})
    assert strict.shown == ["vm-1", "vm-1-renewed", "vm-1-renewed"]
    assert strict.connections == 2


def test_half_a_rotation_leaves_the_old_connection(ours, strict, client_of, caplog):
    pair = ours.issue("vm-1")
    client = client_of(strict, ours.path, *pair)
    client.heartbeat({})
    certificate, key = ours.issue("vm-1-renewed")
    os.replace(certificate, pair[0])
    with caplog.at_level(logging.WARNING):
        client.heartbeat({})
    assert (strict.shown, strict.connections) == (["vm-1", "vm-1"], 1)
    assert "former certificate is still used" in caplog.text
    os.replace(key, pair[1])
    client.heartbeat({})
    assert strict.shown[-1] == "vm-1-renewed"


def test_half_a_rotation_can_even_connect_anew(ours, strict, client_of):
    pair = ours.issue("vm-1")
    client = client_of(strict, ours.path, *pair)
    client.heartbeat({})
    pair[1].unlink()
    client.close()
    client.heartbeat({})
    assert (strict.shown, strict.connections) == (["vm-1", "vm-1"], 2)


def test_a_rotated_authority_is_trusted(ours, serve, client_of, tmp_path):
    trusted = tmp_path / "trusted.pem"
    shutil.copy(Authority(tmp_path, "old").path, trusted)
    peer = serve(server_context(*ours.issue("server")))
    client = client_of(peer, trusted)
    refused(client, "not accepted")
    shutil.copy(ours.path, trusted)
    client.heartbeat({})


UNUSABLE = {
    "no certificate": (lambda pair, _: pair[0].unlink(), "No such file"),
    "no key": (lambda pair, _: pair[1].unlink(), "No such file"),
    "empty": (lambda pair, _: pair[0].write_text(""), "vm-1.pem"),
    "not PEM": (lambda pair, _: pair[1].write_bytes(b"\x00\xff"), "vm-1.key"),
    "mismatched": (lambda pair, other: os.replace(other[1], pair[1]), "MISMATCH"),
}


@pytest.mark.parametrize(("damage", "expected"), UNUSABLE.values(), ids=UNUSABLE)
def test_files_that_never_were_usable_are_reported(ours, damage, expected):
    pair = ours.issue("vm-1")
    damage(pair, ours.issue("vm-2"))
    with pytest.raises(CredentialUnusable, match=expected) as caught:
        TlsFiles(*pair, ours.path).context()
    assert str(pair[0]) in str(caught.value)
    assert caught.value.transient


def test_nobody_is_asked_for_a_keys_password(ours):
    pair = ours.issue("vm-1", password=b"sesame")
    load = (
        "import sys; from miglet.http.tls import TlsFiles;"
        "TlsFiles(*sys.argv[1:]).context()"
    )
    terminal, end = os.openpty()
    with open(terminal, "rb"), open(end, "rb") as keyboard:
        ended = subprocess.run(
            [sys.executable, "-c", load, *map(str, pair)],
            stdin=keyboard,
            capture_output=True,
            text=True,
            timeout=10,
            start_new_session=True,  # away from the terminal of whoever runs this
        )
    assert "need no password" in ended.stderr


def test_the_context_is_the_same_until_a_file_changes(ours):
    pair = ours.issue("vm-1")
    files = TlsFiles(*pair, ours.path)
    first = files.context()
    assert files.context() is first
    rotated(pair, ours.issue("vm-1-renewed"))
    assert files.context() is not first
    assert files.context() is files.context()


# ---- through a proxy -----------------------------------------------------------


def test_a_tunnel_is_verified_like_a_connection(ours, serve, client_of):
    peer = serve(server_context(*ours.issue("server"), ours.path))
    inside = peer.scripts[0]

    def tunnel(proxy, connection):
        assert proxy.request(connection)
        connection.sendall(b"HTTP/1.1 200 Tunnel\r\n\r\n")
        inside(peer, connection)

    proxy = Peer(tunnel)
    client = client_of(peer, ours.path, *ours.issue("vm-1"))
    client._settings.proxy = proxy.endpoint
    client = Client(client._settings, "vm-1")
    client.heartbeat({})
    client.close()
    proxy.close()
    assert proxy.requests[0].startswith("CONNECT 127.0.0.1:")
    assert (peer.shown, peer.connections) == (["vm-1"], 0)
