"""The customers' side: a process that receives POSTs as cheaply as Python can, and counts them.

It binds 0.0.0.0, so that every address of 127.0.0.0/8 with its port is an endpoint. An eventId made by
`bench.load` holds its group and the time of enqueuing, so the latency is known on arrival.
"""

import asyncio
import multiprocessing
import os
import resource
import ssl
import time
from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvloop

from bench.names import loopback

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
DRIP_SECONDS = 0.2


@dataclass
class Behaviour:
    """How one port answers: `ok`, after `delay_ms`; `busy` (503); `hang` (never); `drip` (a byte each 0.2 s)."""

    kind: str = "ok"
    delay_ms: float = 0


@dataclass(frozen=True)
class Terms:
    """How a receiver serves its connections."""

    chain: Path | None = None
    """PEM file of the key, the leaf and the intermediate; None: no TLS."""
    idle_seconds: float = 0
    """How long an idle connection is kept; 0: always."""
    keep_alive: bool = False
    """Whether answers say so in a `Keep-Alive` header."""

    @property
    def ok(self) -> bytes:
        """The answer 200."""
        if not self.keep_alive:
            return OK
        said = f"Connection: keep-alive\r\nKeep-Alive: timeout={self.idle_seconds:.0f}\r\n"
        return OK.replace(b"Content-Length", said.encode() + b"Content-Length")


@dataclass
class Opened:
    """Connections of a receiver since it began, all its ports together. With TLS, each had its handshake."""

    total: int = 0
    resumed: int = 0
    """Of these, handshakes that resumed a session."""
    now: int = 0
    """How many are open."""


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
    def __init__(
        self, behaviour: Behaviour, seen: dict[bytes, _Seen], terms: Terms, opened: Opened, ok: bytes
    ) -> None:
        self._behaviour = behaviour
        self._seen = seen
        self._idle_seconds = terms.idle_seconds
        self._opened = opened
        self._ok = ok
        self._buffer = b""
        self._transport: Any = None
        self._loop = asyncio.get_running_loop()
        self._used_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._opened.total += 1
        self._opened.now += 1
        encrypted = transport.get_extra_info("ssl_object")
        if encrypted and encrypted.session_reused:
            self._opened.resumed += 1
        if self._idle_seconds:
            self._used_at = self._loop.time()
            self._timer = self._loop.call_later(self._idle_seconds, self._close_if_idle)

    def connection_lost(self, error: Exception | None) -> None:
        self._opened.now -= 1
        if self._timer:
            self._timer.cancel()

    def _close_if_idle(self) -> None:
        """Closes the connection, or waits for the rest of the time since it was last used."""
        rest = self._used_at + self._idle_seconds - self._loop.time()
        if rest <= 0.001:  # uvloop counts in milliseconds
            self._transport.close()
        else:
            self._timer = self._loop.call_later(rest, self._close_if_idle)

    def data_received(self, data: bytes) -> None:
        self._used_at = self._loop.time()
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
                self._loop.call_later(self._behaviour.delay_ms / 1000, self._write, self._ok)
            case "ok":
                self._transport.write(self._ok)
            case "busy":
                self._transport.write(BUSY)
            case "drip":
                self._drip(self._ok)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)

    def _drip(self, rest: bytes) -> None:
        if rest and not self._transport.is_closing():
            self._transport.write(rest[:1])
            self._loop.call_later(DRIP_SECONDS, self._drip, rest[1:])


def _header(head: bytes, name: bytes) -> bytes:
    start = head.index(name) + len(name)
    end = head.find(b"\r", start)
    return head[start:] if end < 0 else head[start:end]


def _event_id(body: bytes) -> bytes:
    """The eventId from the body, for senders without the header."""
    start = body.index(b'"eventId":"') + 11
    return body[start : body.index(b'"', start)]


def _serve(pipe: Connection, kinds: list[str], terms: Terms) -> None:
    uvloop.run(_main(pipe, kinds, terms))


async def _main(pipe: Connection, kinds: list[str], terms: Terms) -> None:
    loop = asyncio.get_running_loop()
    tls, opened, ok = _server_side(terms.chain), Opened(), terms.ok
    seen: dict[bytes, _Seen] = defaultdict(_Seen)
    behaviours = [Behaviour(kind) for kind in kinds]
    ports = []
    for behaviour in behaviours:
        server = await loop.create_server(
            lambda b=behaviour: _Connection(b, seen, terms, opened, ok), "0.0.0.0", 0, backlog=4096, ssl=tls
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
            case "opened":
                pipe.send(opened)
            case ("behave", number, kind, delay_ms):
                behaviours[number].kind, behaviours[number].delay_ms = kind, delay_ms
            case "stop":
                loop.remove_reader(pipe.fileno())
                stopped.set()

    loop.add_reader(pipe.fileno(), command)
    await stopped.wait()


def _server_side(chain: Path | None) -> ssl.SSLContext | None:
    """The server's side of TLS as Python sets it up: 1.2 and 1.3, with session tickets."""
    if chain is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain)
    return context


class Receiver:
    """The receiver's process, with one port for each of `kinds`; use it in `with`."""

    def __init__(self, *kinds: str, terms: Terms | None = None) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (hard, hard)
        )  # for thousands of endpoints; contenders inherit it
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, list(kinds), terms or Terms()), daemon=True
        )
        self._process.start()
        theirs.close()  # or the child's death would go unnoticed
        self._ports: list[int] = self._pipe.recv()

    def url(self, number: int, port: int = 0, scheme: str = "http") -> str:
        """The URL of endpoint `number` at a port, given by its index in `kinds`."""
        return f"{scheme}://{loopback(number)}:{self._ports[port]}/hooks"

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

    def opened(self) -> Opened:
        """The connections so far."""
        self._pipe.send("opened")
        found: Opened = self._pipe.recv()
        return found

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
