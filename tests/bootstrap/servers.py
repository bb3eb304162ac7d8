"""Servers that answer, are silent, or speak TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def served(serve: Serve) -> Iterator[int]:
    """A server on loopback that does `serve` with each connection; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.02)
        stopped = threading.Event()

        def accept() -> None:
            while not stopped.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    connection.settimeout(2.0)
                    with connection:
                        serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopped.set()
            thread.join()


def over_tls(certificate, key, serve: Serve) -> Serve:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def encrypted(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            serve(secure)

    return encrypted


def silent(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.recv(4096)


def at(*addresses: tuple[str, int]):
    """A resolver that knows these addresses for every name."""
    known = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each) for each in addresses]
    return lambda *_, **__: known
