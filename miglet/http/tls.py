"""Encrypted connections with our own trust and our own certificate.

Files that changed are loaded for the next connection; while they do not fit each
other (a rotation half done), what was loaded before goes on being used. A server is
always verified, and nothing below TLS 1.2 is spoken.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from miglet.errors import CredentialUnusable
from miglet.safefile import Fingerprint, fingerprint

log = logging.getLogger(__name__)


#: Contexts that were made before the fork, by host and files, with the fingerprints
#: of the files at that time. A context of its own, with the authorities that a system
#: trusts, takes a process 1.5 MB; with a single private one it takes 0.7 MB.
PREPARED: dict[tuple[str, ...], tuple[ssl.SSLContext, list[Fingerprint]]] = {}


class TlsFiles:
    """The files that a connection's trust and identity come from."""

    def __init__(
        self,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        authority: str | Path | None = None,
        host: str = "",
    ) -> None:
        self.certificate = certificate
        self.key = key
        #: A bundle or a folder of certificates; None: what the system trusts.
        self.authority = authority
        #: Whom these files are used with.
        self.host = host
        self._context: ssl.SSLContext | None = None
        self._seen: list[Fingerprint] | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that there are, as text."""
        named = (self.certificate, self.key, self.authority)
        return tuple(str(path) for path in named if path)

    @property
    def _key(self) -> tuple[str, ...]:
        return (self.host, *self.paths)

    def context(self) -> ssl.SSLContext:
        """The same context as before unless a file changed.

        Raises CredentialUnusable when the files never were usable.
        """
        try:
            seen = [fingerprint(path) for path in self.paths]
            if self._context is None or seen != self._seen:
                self._context = self._prepared(seen) or self._load()
            self._seen = seen
        except OSError as error:  # also ssl.SSLError
            return self._former(self._unusable(error))
        return self._context

    def prepare(self) -> None:
        """Have the processes that are forked from now on share this context.

        Not with a private key: only the processes that use one are to know it.
        """
        if not self.certificate:
            context = self.context()
            PREPARED[self._key] = context, self._seen or []

    def _prepared(self, seen: list[Fingerprint]) -> ssl.SSLContext | None:
        """The context that was made before the fork, if it is of these very files."""
        context, then = PREPARED.get(self._key, (None, []))
        return context if seen == then else None

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(**trust(self.authority))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # urllib3 1.26 does not tell OpenSSL an address to check. Every urllib3
        # checks it itself when the context does not.
        context.check_hostname = not is_address(self.host)
        if self.certificate:
            # An empty password, so that nobody is asked for one on a terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        return context

    def _former(self, error: CredentialUnusable) -> ssl.SSLContext:
        if self._context is None:
            raise error
        log.warning("the former certificate is still used: %s", error)
        return self._context

    def _unusable(self, error: OSError) -> CredentialUnusable:
        files = ", ".join(self.paths)
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        rules = "they must be PEM and readable by MIGlet's user"
        if self.certificate:
            rules += "; certificate and key belong together and need no password"
        return CredentialUnusable(f"certificate files ({files}): {reason}; {rules}")


def trust(authority: str | Path | None) -> dict[str, Any]:
    """Arguments of ssl.create_default_context for whom to trust."""
    if authority is None:
        return {}
    return {"capath" if os.path.isdir(authority) else "cafile": authority}


def tls_for(settings: Any) -> TlsFiles | None:
    """What the ``controller`` settings say about TLS; None for a plain endpoint."""
    if not settings.endpoint.lower().startswith("https:"):
        return None
    auth, host = settings.auth, host_in(settings.endpoint)
    if auth.type != "mtls":
        return TlsFiles(authority=auth.ca_path, host=host)
    return TlsFiles(auth.certificate_path, auth.key_path, auth.ca_path, host)


def host_in(endpoint: str) -> str:
    """The host's name or address; empty if there is none to be seen."""
    try:
        return urlsplit(endpoint).hostname or ""
    except ValueError:
        return ""


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
