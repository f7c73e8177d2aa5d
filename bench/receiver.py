"""The customers' side: a process that receives POSTs as cheaply as Python can, and counts them.

It binds 0.0.0.0, so that every address of 127.0.0.0/8 with its port is an endpoint. An eventId made by
`bench.load` holds its group and the time of enqueuing, so the latency is known on arrival.
"""

import asyncio
import multiprocessing
import os
import resource
import time
from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import uvloop

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
DRIP_SECONDS = 0.2


@dataclass
class Behaviour:
    """How one port answers: `ok`, after `delay_ms`; `busy` (503); `hang` (never); `drip` (a byte each 0.2 s)."""

    kind: str = "ok"
    delay_ms: float = 0


@dataclass(frozen=True)
class Group:
    """What arrived for one group since the last `take`."""

    posts: int = 0
    distinct: int = 0
    latencies_us: "array[int]" = field(default_factory=lambda: array("q"))
    """From XADD to arrival, for each eventId's first POST."""
    first_at: float = 0.0
    last_at: float = 0.0
    """Seconds since 1970; `first_at` and `last_at` count only first POSTs."""


class _Seen:
    """Collects what arrives for a group."""

    def __init__(self) -> None:
        self.posts = 0
        self.ids: set[bytes] = set()
        self.latencies_us: array[int] = array("q")
        self.first_at = self.last_at = 0.0

    def add(self, event_id: bytes, enqueued_us: int) -> None:
        self.posts += 1
        if event_id in self.ids:
            return
        self.ids.add(event_id)
        now = time.time()
        self.latencies_us.append(round(now * 1e6) - enqueued_us)
        self.first_at, self.last_at = self.first_at or now, now

    def group(self) -> Group:
        return Group(self.posts, len(self.ids), self.latencies_us, self.first_at, self.last_at)


class _Connection(asyncio.Protocol):
    def __init__(self, behaviour: Behaviour, seen: dict[bytes, _Seen]) -> None:
        self._behaviour = behaviour
        self._seen = seen
        self._buffer = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            whole = end + 4 + int(_header(head, b"content-length: "))
            if len(self._buffer) < whole:
                return
            body, self._buffer = self._buffer[end + 4 : whole], self._buffer[whole:]
            event_id = _header(head, b"webhook-id: ") if b"webhook-id: " in head else _event_id(body)
            group, _, rest = event_id.partition(b"-")
            self._seen[group].add(event_id, int(rest.partition(b"-")[0]))
            self._answer()

    def _answer(self) -> None:
        match self._behaviour.kind:
            case "ok" if self._behaviour.delay_ms:
                loop = asyncio.get_running_loop()
                loop.call_later(self._behaviour.delay_ms / 1000, self._write, OK)
            case "ok":
                self._transport.write(OK)
            case "busy":
                self._transport.write(BUSY)
            case "drip":
                self._drip(OK)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)

    def _drip(self, rest: bytes) -> None:
        if rest and not self._transport.is_closing():
            self._transport.write(rest[:1])
            asyncio.get_running_loop().call_later(DRIP_SECONDS, self._drip, rest[1:])


def _header(head: bytes, name: bytes) -> bytes:
    start = head.index(name) + len(name)
    end = head.find(b"\r", start)
    return head[start:] if end < 0 else head[start:end]


def _event_id(body: bytes) -> bytes:
    """The eventId from the body, for senders without the header."""
    start = body.index(b'"eventId":"') + 11
    return body[start : body.index(b'"', start)]


def _serve(pipe: Connection, kinds: list[str]) -> None:
    uvloop.run(_main(pipe, kinds))


async def _main(pipe: Connection, kinds: list[str]) -> None:
    loop = asyncio.get_running_loop()
    seen: dict[bytes, _Seen] = defaultdict(_Seen)
    behaviours = [Behaviour(kind) for kind in kinds]
    ports = []
    for behaviour in behaviours:
        server = await loop.create_server(
            lambda b=behaviour: _Connection(b, seen), "0.0.0.0", 0, backlog=4096
        )
        ports.append(server.sockets[0].getsockname()[1])
    pipe.send(ports)
    stopped = asyncio.Event()

    def command() -> None:
        try:
            order = pipe.recv()
        except EOFError:  # the benchmark's process has ended
            order = "stop"
        os.set_blocking(pipe.fileno(), True)  # uvloop's reader sets it non-blocking; the answer may be long
        match order:
            case "take":
                pipe.send({name.decode(): one.group() for name, one in seen.items()})
                seen.clear()
            case "count":
                pipe.send({name.decode(): len(one.ids) for name, one in seen.items()})
            case ("behave", number, kind, delay_ms):
                behaviours[number].kind, behaviours[number].delay_ms = kind, delay_ms
            case "stop":
                loop.remove_reader(pipe.fileno())
                stopped.set()

    loop.add_reader(pipe.fileno(), command)
    await stopped.wait()


class Receiver:
    """The receiver's process, with one port for each of `kinds`; use it in `with`."""

    def __init__(self, *kinds: str) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (hard, hard)
        )  # for thousands of endpoints; contenders inherit it
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, list(kinds)), daemon=True)
        self._process.start()
        theirs.close()  # or the child's death would go unnoticed
        self._ports: list[int] = self._pipe.recv()

    def url(self, number: int, port: int = 0, scheme: str = "http") -> str:
        """The URL of endpoint `number` at a port, given by its index in `kinds`."""
        return f"{scheme}://127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:{self._ports[port]}/hooks"

    def port(self, port: int = 0) -> int:
        """The number of a port, given by its index in `kinds`."""
        return self._ports[port]

    def behave(self, kind: str, delay_ms: float = 0, port: int = 0) -> None:
        """Changes how a port answers from now on."""
        self._pipe.send(("behave", port, kind, delay_ms))

    def take(self) -> dict[str, Group]:
        """Returns what arrived, by group, and resets it."""
        self._pipe.send("take")
        found: dict[str, Group] = self._pipe.recv()
        return found

    def count(self, group: str) -> int:
        """How many distinct eventIds of a group arrived since the last `take`."""
        self._pipe.send("count")
        found: dict[str, int] = self._pipe.recv()
        return found.get(group, 0)

    def cpu_seconds(self) -> float:
        """CPU seconds of the process so far."""
        return cpu_seconds(self._process.pid or 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.send("stop")
        self._process.join(5)
        self._process.kill()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, in seconds, from /proc (Linux)."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
