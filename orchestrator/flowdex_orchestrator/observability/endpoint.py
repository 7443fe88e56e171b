"""The port at which Prometheus finds a process's metrics: `GET /metrics`, in threads of its own.

    MetricsServer({"/metrics": Page(text, CONTENT_TYPE)}, "127.0.0.1", 9101)  -->  GET /metrics --> text()

It answers while the event loop is busy. That it cannot be opened is no reason for a process not to serve.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6
from socketserver import TCPServer
from typing import Any, NamedTuple

__all__ = ["CONTENT_TYPE", "MetricsServer", "Page", "serve_metrics"]

log = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of Prometheus' text format."""

_SILENT_SECONDS = 10.0  # a client that says nothing for so long is left


class Page(NamedTuple):
    """What is answered at a path.

    Attributes:
        text: Makes it; called in a thread. What it raises is logged and answered with status 500.
        content_type: Its type.
    """

    text: Callable[[], bytes]
    content_type: str


class MetricsServer:
    """Answers `GET` of some paths, from now until `close`.

    Args:
        pages: By path.
        host: Address to listen on.
        port: 0 for any free one.

    Attributes:
        port: The port.

    Raises:
        OSError: The port cannot be had.
    """

    def __init__(self, pages: Mapping[str, Page], host: str, port: int) -> None:
        self._server = _server(pages, host, port)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


def serve_metrics(pages: Mapping[str, Page], host: str, port: int) -> MetricsServer | None:
    """Open the port, and say where; None, and a warning in the log, where it cannot be had."""
    try:
        server = MetricsServer(pages, host, port)
    except OSError as error:
        log.warning("no metrics: port %d of %s cannot be opened: %s", port, host, error.strerror or error)
        return None
    log.info("metrics at http://%s:%d/metrics", f"[{host}]" if ":" in host else host, server.port)
    return server


def _server(pages: Mapping[str, Page], host: str, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        timeout = _SILENT_SECONDS
        server_version, sys_version = "flowdex", ""

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            if page is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            try:
                text = page.text()
            except Exception:
                log.exception("%s could not be answered", self.path)
                self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
                return
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", page.content_type)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *message: Any) -> None:
            """Scrapes are not worth a line."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = AF_INET6 if ":" in host else ThreadingHTTPServer.address_family

        def server_bind(self) -> None:
            """Bind, without the base class's question to a name server what this machine is called."""
            TCPServer.server_bind(self)
            self.server_name, self.server_port = host, self.server_address[1]

    return Server((host, port), Handler)
