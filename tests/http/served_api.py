"""The HTTP API at a real port, in a thread, and clients that send bytes."""

import functools
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from config.settings import Settings
from dispatcher.api.app import create_app
from dispatcher.api.log_rate import LogRate
from dispatcher.api.responses import ApiParts
from tasks import api_wiring
from tasks.api_protocol import BoundedProtocol, Limits
from tasks.intake_protocol import IntakeProtocol

SECONDS = 20
"""How long anything may take before a test fails."""


class CountedApp:
    """An application, and how many requests reached it."""

    def __init__(self, app: Any) -> None:
        self.inner = app
        self.requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += scope["type"] == "http"
        await self.inner(scope, receive, send)


class Served:
    """A server that runs."""

    def __init__(self, app: Any, protocol: type[BoundedProtocol], limits: Limits) -> None:
        self.app = CountedApp(app)
        config = uvicorn.Config(
            self.app,
            port=0,
            http=functools.partial(protocol, limits=limits),  # type: ignore[arg-type]
            ws="none",
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=10,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "it starts"
            self._thread.join(0.01)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]

    def connect(self, first: bytes = b"") -> socket.socket:
        """A connection on which something was sent."""
        made = socket.create_connection(("127.0.0.1", self.port), SECONDS)
        made.sendall(first)
        return made

    def ask(self, *parts: bytes) -> "Answered":
        """The answer to a request that is sent in parts, each of which is read before the next is sent."""
        with self.connect() as connection:
            self.send(connection, *parts)
            return answer_on(connection)

    def send(self, connection: socket.socket, *parts: bytes) -> None:
        """Sends the parts of a request on the only connection; all but the last are read when this returns."""
        for number, part in enumerate(parts, 1):
            connection.sendall(part)
            if number < len(parts):
                self.wait_for(lambda: self._read() >= sum(map(len, parts[:number])))  # noqa: B023  runs at once

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Waits until a condition holds."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def is_with_intake(self, count: int) -> bool:
        """Whether the intake has at least as many requests that it has not answered."""
        return sum(one._is_taken for one in self._connections()) >= count

    def held(self) -> int:
        """Bytes that connections hold of plain posts and of what came behind them."""
        return sum(len(one._held) for one in self._connections())

    def is_ending(self) -> bool:
        """Whether some connection will close when it has answered."""
        return any(one._is_ending for one in self._connections())

    def connections(self) -> int:
        """How many there are."""
        return len(self._connections())

    def _connections(self) -> list[Any]:
        return list(self._server.server_state.connections)

    def _read(self) -> int:
        return max((one._wire_bytes for one in self._connections()), default=0)

    def begin_to_stop(self) -> None:
        """What a TERM does."""
        self._server.should_exit = True

    def stop(self) -> None:
        """Waits until it has ended."""
        self.begin_to_stop()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "it ends"


@contextmanager
def served(
    redis_url: str, protocol: type[BoundedProtocol] = IntakeProtocol, *, seconds: float = 10, **named: Any
) -> Iterator[Served]:
    """The whole API on a Redis, with some settings."""
    settings = Settings(_env_file=None, redis_url=redis_url, **named)  # type: ignore[call-arg]

    @asynccontextmanager
    async def parts() -> AsyncIterator[ApiParts]:
        async with api_wiring.api(settings) as made:
            yield made

    made = Served(create_app(parts), protocol, Limits(seconds, settings.api_max_connections, LogRate()))
    try:
        yield made
    finally:
        made.stop()


@dataclass(frozen=True)
class Answered:
    """One HTTP answer as it came."""

    status: int
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, sorted."""
    body: bytes

    def header(self, name: str) -> str:
        """A header's value; empty if it is not there."""
        return dict(self.headers).get(name, "")


def answer_on(connection: socket.socket, behind: bytearray | None = None) -> Answered:
    """Reads one final answer; `behind` holds what was read beyond the last one."""
    read = bytearray() if behind is None else behind
    while (end := read.find(b"\r\n\r\n")) < 0:
        _read_more(connection, read)
    line, *lines = read[:end].decode().split("\r\n")
    headers = [(name.lower(), value) for name, value in (one.split(": ", 1) for one in lines)]
    whole = end + 4 + int(dict(headers).get("content-length", 0))
    while len(read) < whole:
        _read_more(connection, read)
    if line.split(" ")[1] == "100":
        del read[: end + 4]
        return answer_on(connection, read)
    body = bytes(read[end + 4 : whole])
    del read[:whole]
    return Answered(int(line.split(" ")[1]), tuple(sorted(headers)), body)


def _read_more(connection: socket.socket, into: bytearray) -> None:
    some = connection.recv(65_536)
    assert some, f"closed after {bytes(into)!r}"
    into += some
