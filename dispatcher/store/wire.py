"""Pipelines commands to Redis over one connection: no caller waits for another's reply.

redis-py connects (URL, TLS, password, database); then we use the connection directly. Its client takes 200 us
of CPU per call, this one 90: at low load that is most of what a callback costs (docs/performance.md).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from typing import Any, Protocol

import hiredis
import redis.asyncio
import structlog
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from dispatcher.store.connection import SOCKET_TIMEOUT_SECONDS
from dispatcher.store.sentinel import BecameReplica, FollowsPrimary, says_read_only

WATCH_SECONDS = 1.0
CANCEL_AGAIN_SECONDS = 0.05

log = structlog.get_logger()

Argument = str | bytes | int

Call = Callable[..., Awaitable[Any]]
"""Sends one command and returns Redis's raw reply. Raises redis-py's errors."""


class PartitionWire(Protocol):
    """Sends commands to whichever server holds one partition. Raises redis-py's errors, as Wire does."""

    async def call(self, *command: Argument) -> Any:
        """Sends one command; returns its reply."""

    async def call_all(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """Sends commands together; returns the reply or the exception of each."""


class Wire:
    """Connects on demand. A connection that breaks fails all calls under way; nothing is retried."""

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        self._pool = client.connection_pool
        self._link: _Link | None = None
        self._connecting: asyncio.Task[_Link] | None = None
        self._is_closed = False

    async def call(self, *command: Argument) -> Any:
        """Sends one command. Raises redis-py's ConnectionError or TimeoutError; it may nevertheless have run."""
        link = self._link if self._link and self._link.is_open else await self._connect()
        return await link.call(command)

    async def call_all(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """Sends commands together; returns the reply or the exception of each. Raises if it cannot connect."""
        link = self._link if self._link and self._link.is_open else await self._connect()
        return await link.call_all(commands)

    async def close(self) -> None:
        """Closes the connection, also one that is being made. Whoever waits for it, or calls later, gets a ConnectionError."""
        self._is_closed = True
        while connecting := self._connecting:
            connecting.cancel()  # again and again: redis-py may drop one (cancellable.py says why)
            await asyncio.wait({connecting}, timeout=CANCEL_AGAIN_SECONDS)
        if self._link:
            await self._link.close()

    async def _connect(self) -> "_Link":
        """The connection that all who need one wait for. It is made to its end also if they are cancelled: others come."""
        if self._is_closed:
            raise ConnectionError("the connection to Redis was closed by this process")
        if not self._connecting:
            self._connecting = asyncio.create_task(self._connected())
            self._connecting.add_done_callback(self._has_connected)
        connecting = self._connecting
        await asyncio.wait({connecting})
        if connecting.cancelled():
            raise ConnectionError("the connection to Redis was closed by this process")
        if error := connecting.exception():
            own = copy(error)  # callers add to it
            own.__cause__, own.__context__ = error.__cause__, error.__context__
            raise own
        return connecting.result()

    async def _connected(self) -> "_Link":
        if self._link:
            await self._link.close()
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()
        self._link = _Link(connection)
        return self._link

    def _has_connected(self, connecting: "asyncio.Task[_Link]") -> None:
        self._connecting = None
        if not connecting.cancelled():
            connecting.exception()  # whoever waited has it


class _Together:
    """Takes the replies to commands that were sent together, as the future of each would: one future for all is a third of the cost."""

    def __init__(self, all: "asyncio.Future[list[Any]]", number: int) -> None:
        self.all = all
        self._number = number
        self._replies: list[Any] = []
        self._is_whole()

    def done(self) -> bool:
        """Whether nobody waits any more."""
        return self.all.done()

    def set_result(self, reply: Any) -> None:
        """Takes the next reply, which may be an exception."""
        self._replies.append(reply)
        self._is_whole()

    set_exception = set_result

    def _is_whole(self) -> None:
        if len(self._replies) == self._number:
            self.all.set_result(self._replies)


class _Link(asyncio.Protocol):
    """One connection."""

    def __init__(self, connection: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._transport = transport_of(connection)
        self._transport.set_protocol(self)
        self._follows = isinstance(connection, FollowsPrimary)
        self._asking: asyncio.Task[None] | None = None
        self._reader = hiredis.Reader(replyError=_error)
        self._waiting: deque[tuple[asyncio.Future[Any] | _Together, float]] = deque()
        self._watch = self._loop.call_later(WATCH_SECONDS, self._look_for_late_ones)
        self._why: Exception = ConnectionError("Redis closed the connection")
        self.is_open = True

    def call(self, command: tuple[Argument, ...]) -> asyncio.Future[Any]:
        """Sends a command; uvloop writes all commands of one loop iteration together."""
        self._check()
        self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub says one
        reply = self._loop.create_future()
        self._waiting.append((reply, self._loop.time() + SOCKET_TIMEOUT_SECONDS))
        return reply

    def call_all(self, commands: Sequence[tuple[Argument, ...]]) -> asyncio.Future[list[Any]]:
        """Sends commands together; the future has the reply or the exception of each."""
        self._check()
        together = _Together(self._loop.create_future(), len(commands))
        self._transport.write(b"".join(map(hiredis.pack_command, commands)))  # type: ignore[arg-type]
        deadline = self._loop.time() + SOCKET_TIMEOUT_SECONDS
        self._waiting.extend([(together, deadline)] * len(commands))
        return together.all

    def _check(self) -> None:
        """Raises if the server closed the connection while its first caller waited for it."""
        if not self.is_open:
            raise copy(self._why)  # callers add to it

    async def close(self) -> None:
        self._transport.abort()
        self.connection_lost(None)
        await self._connection.disconnect(nowait=True)

    def _look_for_late_ones(self) -> None:
        if self._waiting and self._waiting[0][1] < self._loop.time():
            self._why = TimeoutError(f"no answer in {SOCKET_TIMEOUT_SECONDS:g} s")
            self._transport.abort()
            self.connection_lost(None)
        else:
            self._watch = self._loop.call_later(WATCH_SECONDS, self._look_for_late_ones)
            if self._follows and (self._asking is None or self._asking.done()):
                self._asking = self._loop.create_task(self._ask())

    async def _ask(self) -> None:
        """Asks the sentinels whether this is still the primary."""
        try:
            is_left = await self._connection.is_left()
        except Exception:
            log.exception("redis.internal_error", action="asking the sentinels again")
            return
        if is_left:
            self._leave()

    def _leave(self) -> None:
        """Has the next call connect to the new primary; what is still under way then fails."""
        self._why, self.is_open = BecameReplica("the primary has become a replica"), False

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            future, _ = self._waiting.popleft()
            if self._follows and isinstance(reply, Exception) and says_read_only(reply):
                self._leave()
            if future.done():  # its caller was cancelled
                continue
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._watch.cancel()
        if self._asking:
            self._asking.cancel()
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(self._why)


def transport_of(connection: Any) -> asyncio.Transport:
    """The transport of an open redis-py connection. It is private: hence the upper bound on redis in pyproject.toml."""
    transport: asyncio.Transport = connection._writer.transport
    return transport


_ERRORS: dict[str, type[ResponseError]] = {
    "NOSCRIPT": NoScriptError,
    "NOPERM": NoPermissionError,
    "OOM": OutOfMemoryError,
    "CLUSTERDOWN": ClusterDownError,
    "TRYAGAIN": TryAgainError,
}


def _error(text: str) -> ResponseError:
    word, _, rest = text.partition(" ")
    if word in ("MOVED", "ASK"):  # these take the slot and the node from the text
        return (MovedError if word == "MOVED" else AskError)(rest)
    return _ERRORS.get(word, ResponseError)(text)
