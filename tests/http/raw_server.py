"""A TCP server whose behaviour is a function of one connection; it keeps what it received.

Bytes are sent as they are given, so a test can answer what no HTTP library would.
"""

import asyncio
import os
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from socket import SHUT_WR, SO_LINGER, SOL_SOCKET, socket


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it was on the wire."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def target(self) -> str:
        """What stands between the method and the version."""
        return self.line.split(" ")[1]

    def values(self, name: str) -> list[str]:
        """The values of all headers of that name."""
        return [value for key, value in self.headers if key.lower() == name]


class Connection:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.received: list[Received] = []

    async def request(self) -> Received:
        """The next request, read whole. Raises IncompleteReadError once the client has closed."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (field.partition(":") for field in rest)]
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        received = Received(line, headers, await self._reader.readexactly(length))
        self.received.append(received)
        return received

    async def send(self, content: bytes) -> None:
        """Sends bytes; waits while the client does not read. Raises ConnectionError once it has closed."""
        self._writer.write(content)
        await self._writer.drain()

    async def gone(self) -> None:
        """Waits until the client has closed."""
        with suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    def end(self) -> None:
        """Ends the connection at this moment, not at the loop's next turn."""
        number = self._writer.get_extra_info("socket").fileno()
        if number >= 0:  # else the client has closed it
            with socket(fileno=os.dup(number)) as same, suppress(OSError):
                same.shutdown(SHUT_WR)

    def close(self) -> None:
        """Closes the connection."""
        self._writer.close()

    def reset(self) -> None:
        """Ends the connection with a TCP reset."""
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
        self._writer.transport.abort()


Behaviour = Callable[[Connection], Awaitable[None]]


class RawServer:
    """What came in so far."""

    def __init__(self, behaviour: Behaviour, scheme: str) -> None:
        self._behaviour = behaviour
        self._scheme = scheme
        self._tasks: set[asyncio.Task[None]] = set()
        self._stops = False
        self.connections: list[Connection] = []
        self.port = 0

    @property
    def url(self) -> str:
        """The server's own address, for requests to `/hook`."""
        return self.url_at("127.0.0.1")

    def url_at(self, host: str, target: str = "/hook") -> str:
        """The same server under another name."""
        return f"{self._scheme}://{host}:{self.port}{target}"

    @property
    def accepted(self) -> int:
        """How many connections were made."""
        return len(self.connections)

    @property
    def received(self) -> list[Received]:
        """All requests, by connection."""
        return [request for connection in self.connections for request in connection.received]

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes up one connection, unless the server stops: its handshake may end after that."""
        if self._stops:
            writer.close()
            return
        connection = Connection(reader, writer)
        self.connections.append(connection)
        self._tasks.add(asyncio.create_task(self._behave(connection, writer)))

    async def _behave(self, connection: Connection, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._behaviour(connection)
        finally:
            writer.close()

    async def stop(self) -> None:
        """Ends all connections; raises what a behaviour raised."""
        self._stops = True
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self.connections:
            connection.close()  # also where the task was cancelled before it began
        for result in results:
            if isinstance(result, Exception):
                raise result


@asynccontextmanager
async def serving(
    behaviour: Behaviour, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[RawServer]:
    """A server on a free port of `host`, until the block ends."""
    server = RawServer(behaviour, "https" if tls else "http")
    listener = await asyncio.start_server(server.serve, host, 0, ssl=tls, backlog=1000)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await server.stop()
        await listener.wait_closed()


def answer(status: int = 200, body: bytes = b"ok", *headers: str) -> bytes:
    """A well-formed answer."""
    length = [] if status == 204 else [f"Content-Length: {len(body)}"]
    head = "\r\n".join([f"HTTP/1.1 {status} Some Reason", *length, *headers])
    return head.encode() + b"\r\n\r\n" + (b"" if status == 204 else body)


def answers(*contents: bytes) -> Behaviour:
    """Answers the n-th request of each connection with the n-th content, and keeps it open."""

    async def behaviour(connection: Connection) -> None:
        for content in contents:
            await connection.request()
            await connection.send(content)
        await connection.gone()

    return behaviour


async def hangs(connection: Connection) -> None:
    """Reads and never answers."""
    await connection.gone()


async def closes(connection: Connection) -> None:
    """Reads one request and closes without an answer."""
    await connection.request()
