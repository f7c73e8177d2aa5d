"""A sentinel that says what the test wants, on a real socket, with TLS if it is given a certificate."""

import socketserver
import ssl
import threading
from types import TracebackType
from typing import Any, Self


class FakeSentinel:
    """Runs within `with`; `port` and `flags` may be changed while it does."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.names = port
        """The port of the primary."""
        self.flags = "master"
        self.asked: list[list[bytes]] = []
        """The commands that came."""
        self._tls = tls
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.sentinel = self

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """As DISPATCHER_REDIS_URL has it."""
        return f"redis{'s' if self._tls else ''}+sentinel://127.0.0.1:{self.port}/main"

    def secured(self, connection: Any) -> Any:
        """The connection, with TLS if there is any."""
        return self._tls.wrap_socket(connection, server_side=True) if self._tls else connection

    def answer(self, command: list[bytes]) -> bytes:
        """The reply to a command."""
        self.asked.append(command)
        if command[0].upper() != b"SENTINEL":
            return b"+OK\r\n"
        if command[1].upper().startswith(b"GET-"):
            return _array(["127.0.0.1", str(self.names)])
        state = {
            "name": "main",
            "ip": "127.0.0.1",
            "port": self.names,
            "flags": self.flags,
            "num-other-sentinels": 0,
        }
        reply = _array([str(word) for pair in state.items() for word in pair])
        return b"*1\r\n" * (command[1].upper() == b"MASTERS") + reply

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _array(words: list[str]) -> bytes:
    return (f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)).encode()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 128
    daemon_threads = True
    sentinel: FakeSentinel

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or refuses our certificate, is none."""


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        """Answers commands until the client goes."""
        sentinel = self.server.sentinel
        with sentinel.secured(self.request) as connection, connection.makefile("rb") as lines:
            while line := lines.readline():
                command = [lines.read(int(lines.readline()[1:]) + 2)[:-2] for _ in range(int(line[1:]))]
                connection.sendall(sentinel.answer(command))
