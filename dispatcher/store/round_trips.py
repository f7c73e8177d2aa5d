"""Sends commands to several servers at once, for code that decides what to send and does no I/O itself.

Such code is a generator: it yields a round trip's requests and is sent their replies. A blocking and an asyncio client run the
same one.
"""

import asyncio
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import redis
import redis.asyncio
from redis.exceptions import RedisError

from dispatcher.store.cancellable import cancellable

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
        for command in request.commands:
            pipe.execute_command(*command)
        try:
            replies: list[Any] = pipe.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            return [error] * len(request.commands)
        return replies


class AsyncNodes:
    """As Nodes, for asyncio."""

    def __init__(
        self,
        connect: "Callable[[str], redis.asyncio.Redis]",
        known: "dict[str, redis.asyncio.Redis] | None" = None,
    ) -> None:
        self._connect = connect
        self._clients = dict(known or {})

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
        """Closes all connections."""
        for client in list(self._clients.values()):
            await client.aclose()

    async def _send(self, requests: Sequence[Request]) -> Sequence[list[Any]]:
        if len(requests) == 1:
            return [await self._send_one(requests[0])]
        return await asyncio.gather(*map(self._send_one, requests))

    async def _send_one(self, request: Request) -> list[Any]:
        if request.node not in self._clients:
            self._clients[request.node] = self._connect(request.node)
        pipe = self._clients[request.node].pipeline(transaction=False)
        for command in request.commands:
            pipe.execute_command(*command)
        try:
            return await cancellable(pipe.execute(raise_on_error=False))
        except (RedisError, OSError) as error:
            return [error] * len(request.commands)
