"""Serves metrics and health over HTTP: a worker's at METRICS_PORT, the installation's from `dispatcher exporter`."""

import io
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from dispatcher.health import PATHS, Health

MAX_CONNECTIONS = 32
READ_SECONDS = 10.0
"""How long a client has for its whole request, and then to take the answer."""
WAIT_SECONDS = 1.0
"""How long a new connection waits for a thread if all are busy; then it is closed."""

log = structlog.get_logger()


class _Server(ThreadingMixIn, WSGIServer):
    """Serves each request in its own thread, so that one waiting for Redis delays no other.

    A new connection above MAX_CONNECTIONS closes the one that has been sending its request for longest: clients that
    send nothing keep nobody out.
    """

    daemon_threads = True
    read_seconds = READ_SECONDS

    def server_activate(self) -> None:
        """Begins to listen."""
        self._free = threading.Semaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self._reading: dict[Any, float] = {}
        """Connections whose request is not complete, oldest first, and until when it must be."""
        super().server_activate()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread for a connection."""
        if not self._free.acquire(blocking=False):
            self._close_overdue(at_least=1)
            if not self._free.acquire(timeout=WAIT_SECONDS):
                self.shutdown_request(request)
                return
        with self._lock:
            self._reading[request] = time.monotonic() + self.read_seconds
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads
            self._ended(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serves a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._ended(request)

    def service_actions(self) -> None:
        """Is called every half a second."""
        self._close_overdue()

    def has_read(self, request: Any) -> bool:
        """Notes that a request is complete; False if it came too late."""
        with self._lock:
            return self._reading.pop(request, None) is not None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs an error, unless it is the connection's: clients may end as they like."""
        error = sys.exception()
        if not isinstance(error, OSError):
            log.error("metrics.internal_error", exc_info=error)

    def _ended(self, request: Any) -> None:
        with self._lock:
            self._reading.pop(request, None)
        self._free.release()

    def _close_overdue(self, at_least: int = 0) -> None:
        """Closes connections whose request is overdue, and the oldest of the others, so that it is `at_least` so many."""
        now = time.monotonic()
        with self._lock:
            found = [
                request
                for number, (request, until) in enumerate(self._reading.items())
                if until < now or number < at_least
            ]
            for request in found:
                del self._reading[request]
                with suppress(OSError):  # it is closed already
                    request.shutdown(socket.SHUT_RDWR)  # its thread's read ends


class _ServerOfIPv6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = READ_SECONDS
    server: _Server

    def parse_request(self) -> bool:
        """Reads the request's head; False ends the connection."""
        return super().parse_request() and self.server.has_read(self.request)

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing: scrapes are routine."""

    def get_stderr(self) -> Any:
        """Where wsgiref prints errors of the connection; `app` logs all others."""
        return io.StringIO()


def serve(
    port: int,
    collector: Any,
    health: Health,
    host: str = "0.0.0.0",  # noqa: S104  scraped from elsewhere
    read_seconds: float = READ_SECONDS,
) -> tuple[Callable[[], None], int]:
    """Serves a collector's metrics and health at a port; returns a function that stops serving, and the port.

    Raises OSError if the port is in use.
    """
    kind = _ServerOfIPv6 if ":" in host else _Server
    server = make_server(host, port, _app(collector, health), kind, _Handler)
    server.read_seconds = read_seconds
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end, server.server_port


def _app(collector: Any, health: Health) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    """The WSGI application."""
    registry = CollectorRegistry()
    registry.register(collector)
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path in PATHS:
            return _answer(start_response, *health.answer(path))
        try:
            found: Iterable[bytes] = metrics(environ, start_response)
        except Exception:
            log.exception("metrics.internal_error")
            return _answer(start_response, 500, "internal error\n")
        return found

    return app


def _answer(start_response: Any, status: int, text: str) -> Iterable[bytes]:
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]
    start_response(f"{status} {HTTPStatus(status).phrase}", headers)
    return [text.encode()]
