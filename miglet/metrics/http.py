"""Serves the metrics pages over HTTP in a thread of the metrics-sampler.

Imported only by a sampler that listens.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

log = logging.getLogger(__name__)

#: How long a client may take for one read or write.
CLIENT_SECONDS = 5.0

#: Connections at a time; for one more, the oldest is closed, so that clients that do
#: not finish cannot shut others out.
MAX_CLIENTS = 32


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:9469``, ``[::1]:9469`` or ``localhost:9469``.

    Raises ValueError that says what is wrong.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        raise ValueError(f"{text!r} is not an address and a port, e.g. 127.0.0.1:9469")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{text!r}: the port is a number from 0 to 65535")
    return (host[1:-1] if bracketed else host), int(port)


class RequestHandler(WSGIRequestHandler):
    """One connection: bounded in time, and logged at debug level only."""

    timeout = CLIENT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("%s: " + format, self.address_string(), *args)


class MetricsServer(ThreadingMixIn, WSGIServer):
    """Serves `application` on (host, port) until `close`.

    Raises OSError when it cannot listen.
    """

    daemon_threads = True
    # The threads are daemons: there is nobody to wait for.
    block_on_close = False
    request_queue_size = 128

    def __init__(self, host: str, port: int, application: Callable[..., Any]) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self.address_family, *_, address = found[0]
        #: The open connections, the oldest first; guarded by the lock.
        self._clients: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        super().__init__((str(address[0]), int(address[1])), RequestHandler)
        self.set_app(application)
        threading.Thread(
            target=self.serve_forever, name="metrics-http", daemon=True
        ).start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; the port is the real one when 0 was asked for."""
        return str(self.server_address[0]), self.server_address[1]

    def close(self) -> None:
        """Stop serving and release the port."""
        self.shutdown()
        self.server_close()

    def server_bind(self) -> None:
        # HTTPServer's looks the host's name up in the DNS, which may take seconds.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.address
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._clients) >= MAX_CLIENTS:
                oldest = next(iter(self._clients))
                del self._clients[oldest]
                # Its thread sees end-of-file and closes the connection.
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
            self._clients[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._clients.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("%s: connection failed", client_address[0], exc_info=True)
