"""Sends commands to several servers at once, for code that decides what to send and does no I/O itself.

Such code is a generator: it yields a round trip's requests and is sent their replies. A blocking and an asyncio client run the
same one.
"""

import asyncio
import re
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import redis
import redis.asyncio
from redis.exceptions import RedisError

from dispatcher.errors import RedisUnavailable
from dispatcher.store.cancellable import cancellable
from dispatcher.store.topology import safe_url

T = TypeVar("T")

Word = str | bytes | int


class Request(NamedTuple):
    """Commands for one server, sent together on one connection."""

    node: str
    """The server's URL."""
    commands: Sequence[tuple[Word, ...]]


Trips = Generator[Sequence[Request], Sequence[Sequence[Any]], T]
"""Yields requests; is sent the replies of each, in order, an exception where a command failed."""


class Nodes:
    """Servers by URL, each with a blocking client that is made when it is first used. Thread-safe."""

    def __init__(
        self, connect: "Callable[[str], redis.Redis]", known: "dict[str, redis.Redis] | None" = None
    ) -> None:
        self._connect = connect
        self._clients = dict(known or {})

    def run(self, trips: Trips[T]) -> T:
        """Runs a generator to its end. Raises what it raises."""
        try:
            requests = next(trips)
            while True:
                requests = trips.send(self._send(requests))
        except StopIteration as end:
            result: T = end.value
            return result

    def close(self) -> None:
        """Closes all connections."""
        for client in list(self._clients.values()):
            client.close()

    def _send(self, requests: Sequence[Request]) -> list[list[Any]]:
        if len(requests) == 1:
            return [self._send_one(requests[0])]
        own, *others = requests
        with ThreadPoolExecutor(len(others)) as threads:  # so that one that is away costs the others nothing
            try:
                sent = [threads.submit(self._send_one, request) for request in others]
            except RuntimeError:  # there are no new threads, for example while the interpreter ends
                return [self._send_one(request) for request in requests]
            return [self._send_one(own), *(one.result() for one in sent)]

    def _send_one(self, request: Request) -> list[Any]:
        client = self._clients.get(request.node) or self._clients.setdefault(
            request.node, self._connect(request.node)
        )
        pipe: Any = client.pipeline(transaction=False)
        held = pipe.connection_pool = _Held(getattr(pipe, "connection_pool", None))
        for command in request.commands:
            pipe.execute_command(*command)
        is_whole = False
        try:
            replies: list[Any] = pipe.execute(raise_on_error=False)
            _check(request, replies)
            is_whole = True
        except (RedisError, OSError, RedisUnavailable) as error:
            return [error] * len(request.commands)
        finally:
            held.end(is_whole)
        return replies


class AsyncNodes:
    """As Nodes, for asyncio."""

    def __init__(
        self,
        connect: "Callable[[str], redis.asyncio.Redis]",
        known: "dict[str, redis.asyncio.Redis] | None" = None,
    ) -> None:
        self._connect = connect
        self._known = known or {}
        self._clients = dict(self._known)

    async def run(self, trips: Trips[T]) -> T:
        """As `Nodes.run`."""
        try:
            requests = next(trips)
            while True:
                requests = trips.send(await self._send(requests))
        except StopIteration as end:
            result: T = end.value
            return result

    async def aclose(self) -> None:
        """Closes all connections. Another event loop gets new clients, in place of those that were made here."""
        clients, self._clients = self._clients, dict(self._known)
        for client in clients.values():
            await client.aclose()

    async def _send(self, requests: Sequence[Request]) -> Sequence[list[Any]]:
        if len(requests) == 1:
            return [await self._send_one(requests[0])]
        return await asyncio.gather(*map(self._send_one, requests))

    async def _send_one(self, request: Request) -> list[Any]:
        if request.node not in self._clients:
            self._clients[request.node] = self._connect(request.node)
        pipe: Any = self._clients[request.node].pipeline(transaction=False)
        held = pipe.connection_pool = _AsyncHeld(getattr(pipe, "connection_pool", None))
        for command in request.commands:
            pipe.execute_command(*command)
        is_whole = False
        try:
            replies: list[Any] = await cancellable(pipe.execute(raise_on_error=False))
            _check(request, replies)
            is_whole = True
        except (RedisError, OSError, RedisUnavailable) as error:
            return [error] * len(request.commands)
        finally:
            await held.end(is_whole)
        return replies


class _Held:
    """A client's pool, for one pipeline: keeps the connection until its replies were looked at.

    A signal handler may raise between a pipeline's send and its read. redis-py then gives the connection back with replies
    under way, and the next call would take them for its own.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._connection: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def get_connection(self, *args: Any, **options: Any) -> Any:
        """A connection, as the pool gives it."""
        self._connection = self._pool.get_connection(*args, **options)
        return self._connection

    def release(self, connection: Any) -> Any:
        """Nothing yet: see `end`."""

    def end(self, is_whole: bool) -> Any:
        """Gives the connection back to the pool, closed if not all of its replies were read."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if not is_whole:
                connection.disconnect()
            self._pool.release(connection)


class _AsyncHeld(_Held):
    """As _Held, for asyncio."""

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        """A connection, as the pool gives it."""
        self._connection = await self._pool.get_connection(*args, **options)
        return self._connection

    async def release(self, connection: Any) -> None:
        """Nothing yet: see `end`."""

    async def end(self, is_whole: bool) -> None:
        """Gives the connection back to the pool, closed if not all of its replies were read."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.shield(self._give_back(connection, is_whole))  # also if the task is cancelled again

    async def _give_back(self, connection: Any, is_whole: bool) -> None:
        if not is_whole:
            await connection.disconnect(nowait=True)
        await self._pool.release(connection)


_ENTRY_ID = re.compile(rb"\d+-\d+")


def _check(request: Request, replies: Sequence[Any]) -> None:
    """Raises RedisUnavailable if the reply to an XADD is no entry's id: it is that to something else."""
    for command, reply in zip(request.commands, replies, strict=True):
        if command[0] == "XADD" and not (isinstance(reply, Exception) or _is_entry_id(reply)):
            raise RedisUnavailable(
                f"Redis at {safe_url(request.node)} answered XADD with something else than an entry's id, so it is not known "
                "what is on the queue; the connection was closed. Enqueue it again"
            )


def _is_entry_id(reply: object) -> bool:
    raw = reply.encode() if isinstance(reply, str) else reply
    return isinstance(raw, bytes) and _ENTRY_ID.fullmatch(raw) is not None
