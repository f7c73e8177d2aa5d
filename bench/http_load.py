"""A backend that enqueues over HTTP, one status change a request, from connections that stay open: a process of its own.

`HttpLoad` starts it. It reads what to send as JSON from standard input, and writes how many answers of each status came.
"""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import uvloop

from bench.load import Customer, Load

CONNECTIONS = 64
HEAD = (
    "POST /v1/status-changes HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\n"
    "Authorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: "
)


@dataclass(frozen=True)
class HttpLoad:
    """Posts to the API at a port, with a producer's key."""

    port: int
    key: str

    def send(
        self, group: str, customers: Sequence[Customer], count: int, per_second: float = 0
    ) -> dict[str, int]:
        """Posts `count` status changes, as fast as the answers come or at a steady rate; returns answers by status."""
        task = asdict(self) | {"group": group, "count": count, "per_second": per_second}
        task["customers"] = [(one.workspace, one.url) for one in customers]
        command = [sys.executable, "-m", __spec__.name]
        done = subprocess.run(command, input=json.dumps(task), stdout=subprocess.PIPE, text=True, check=True)
        statuses: dict[str, int] = json.loads(done.stdout)
        return statuses


class _Client:
    """All connections, and what is still to be sent."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._load = Load(None)
        self._customers = [Customer(*one) for one in task["customers"]]
        self._group, self._head = task["group"], HEAD.format(key=task["key"]).encode()
        self._port, self._count, self._per_second = task["port"], task["count"], task["per_second"]
        self._sent = 0
        self._idle: asyncio.Queue[_Connection] = asyncio.Queue()
        self._done = asyncio.Event()
        self.statuses: Counter[str] = Counter()

    async def run(self) -> None:
        """Sends everything, and waits for all answers."""
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
            self._idle.put_nowait(connection)
        while not (self._per_second or self._idle.empty() or self._sent == self._count):
            self._send(self._idle.get_nowait())  # and again whenever an answer comes
        began = loop.time()
        while self._sent < self._count and self._per_second:
            await asyncio.sleep(began + self._sent / self._per_second - loop.time())
            self._send(await self._idle.get())
        await self._done.wait()

    def answered(self, connection: "_Connection", status: str) -> None:
        """Counts an answer, and uses its connection again."""
        self.statuses[status] += 1
        if not self._per_second and self._sent < self._count:
            self._send(connection)
        else:
            self._idle.put_nowait(connection)
        if self.statuses.total() == self._count:
            self._done.set()

    def _send(self, connection: "_Connection") -> None:
        body = self._load.change(self._group, self._customers[self._sent % len(self._customers)])
        self._sent += 1
        connection.send(b"%s%d\r\n\r\n%s" % (self._head, len(body), body))


class _Connection(asyncio.Protocol):
    def __init__(self, client: _Client) -> None:
        self._client = client
        self._buffer = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, request: bytes) -> None:
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        _, _, length = self._buffer[:end].lower().partition(b"content-length: ")
        if len(self._buffer) >= end + 4 + int(length.partition(b"\r")[0]):
            status, self._buffer = self._buffer[9:12].decode(), b""
            self._client.answered(self, status)

    def connection_lost(self, error: Exception | None) -> None:
        raise SystemExit(f"error: the API closed a connection: {error}")


async def _main() -> None:
    client = _Client(json.load(sys.stdin))
    await client.run()
    json.dump(client.statuses, sys.stdout)


if __name__ == "__main__":
    uvloop.run(_main())
