"""Asks partitions: those of one workspace, or all at once, bounded in number and in time."""

import asyncio
import functools
import heapq
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import redis.asyncio
from redis.exceptions import ConnectionError, RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from dispatcher.errors import PreviousUnavailable, RedisFull, RedisUnavailable
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.across.absent import Absent, of_reading
from dispatcher.store.across.presence import Presence
from dispatcher.store.across.tried import Tried
from dispatcher.store.connection import translated
from dispatcher.store.damaged import number, of_type, reply
from dispatcher.store.keys import Keys
from dispatcher.store.servers import Servers
from dispatcher.store.wire import Argument, Call

AT_ONCE_PER_NODE = 8
"""Partitions of one server that are asked at the same time."""
AWAY_SECONDS = 10.0
"""For how long a command takes a server that did not answer for away, without asking it again."""
SERVICE_AWAY_SECONDS = 1.0
"""The first for a service: a fail-over may be over soon."""
ROUTE_SECONDS = 2.0
"""For how long it is remembered over how many partitions a workspace is spread."""
MOST_ROUTES = 1000
"""Workspaces of which that is remembered at the same time."""
AWAY = ConnectionError, RedisTimeout, OSError
"""Errors of redis-py that concern a whole server, not one partition."""

T = TypeVar("T")


class Partitions:
    """The partitions of an installation, on their servers."""

    def __init__(self, servers: Servers, *, needs_all: bool = False, is_service: bool = False) -> None:
        """`is_service`: it is used for long, so that what it noted would be of another time."""
        self.servers = servers
        self._notes = not (needs_all or is_service)
        self._needs_all = needs_all
        """Whether an answer without one of the partitions is none, as in the API: it would be taken for whole."""
        self.keys: Sequence[Keys] = servers.keys
        self.partitioning = servers.partitioning
        self._absent = Absent(len(servers.keys))
        self._presence = Presence(servers, SERVICE_AWAY_SECONDS if needs_all else AWAY_SECONDS)
        self._gates: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(AT_ONCE_PER_NODE)
        )
        self._routes: dict[str, tuple[float, list[int]]] = {}
        self._holders: defaultdict[str, set[int]] = defaultdict(set)

    @property
    def absent(self) -> Absent:
        """Those that did not answer so far, in what the caller reads."""
        return of_reading(self._absent)

    @property
    def all(self) -> range:
        """The numbers of all partitions."""
        return self.partitioning.all

    def readers(self, make: "Callable[[redis.asyncio.Redis, Keys, str], T]") -> Callable[[int], T]:
        """What `make` makes of a partition's client, keys and URL; made when first asked for."""

        @functools.cache
        def at(partition: int) -> T:
            return make(self.servers.client(partition), self.keys[partition], self.url(partition))

        return at

    def on_wire(self, make: Callable[[Call, Keys, str], T]) -> Callable[[int], T]:
        """The same with what sends a partition's commands."""

        @functools.cache
        def at(partition: int) -> T:
            return make(self.calls(partition), self.keys[partition], self.url(partition))

        return at

    def calls(self, partition: int) -> Call:
        """What sends a partition's commands: as its wire, but a server that is known to be away is not waited for."""

        async def call(*command: Argument) -> Any:
            await self.require(partition)
            return await self.servers.wire(partition).call(*command)

        return call

    async def call(self, partition: int, *command: Argument) -> Any:
        """The reply to one command on a partition's keys. Raises RedisUnavailable."""
        with translated(self.url(partition)):
            return await self.calls(partition)(*command)

    async def require(self, partition: int) -> None:
        """Raises RedisUnavailable if a partition's server does not answer, at once if it is known to be away."""
        try:
            await self._presence.require(partition)
        except RedisUnavailable as error:
            raise self.named(partition, error) from error.__cause__

    def away(self) -> dict[str, RedisUnavailable]:
        """Why each server that is known to be away does not answer, by its URL."""
        found = {
            self.servers.node(some[0]).url: self._presence.problem(name)
            for name, some in self.by_node().items()
        }
        return {url: problem for url, problem in found.items() if problem}

    def url(self, partition: int) -> str:
        """Where a partition lies, for error texts."""
        return self.servers.url(partition)

    def by_node(self) -> dict[str, list[int]]:
        """The partitions of each server, by its name; those whose server is not known are left out."""
        found: dict[str, list[int]] = {}
        for partition in self.all:
            with suppress(RedisUnavailable):
                found.setdefault(self.servers.node(partition).name, []).append(partition)
        return found

    async def everywhere(
        self, ask: Callable[[int], Awaitable[T]], among: Collection[int] | None = None
    ) -> dict[int, T]:
        """The answer of each partition (of `among`, or all), by its number in ascending order.

        Those that do not answer are noted in `absent`. Raises RedisUnavailable if none answers, or one if all are needed.
        """
        found: dict[int, T] = {}
        asked = sorted(self.all if among is None else set(among))
        for partition, answer in zip(asked, await self._asked(ask, asked), strict=True):
            if isinstance(answer, RedisUnavailable):
                if self._needs_all:
                    raise answer
                self.absent.note(partition, answer)
                problem = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found[partition] = answer
        if asked and not found:
            raise problem
        return found

    async def _asked(
        self, ask: Callable[[int], Awaitable[T]], partitions: Sequence[int]
    ) -> list[T | BaseException]:
        return await asyncio.gather(*(self.ask(one, ask) for one in partitions), return_exceptions=True)

    async def ask(self, partition: int, ask: Callable[[int], Awaitable[T]]) -> T:
        """The answer of one partition. Raises RedisUnavailable, at once if its server is known to be away."""
        async with self._gates[self._presence.node(partition)]:
            node = ""
            try:
                node = await self._presence.require(partition)
                return await ask(partition)
            except RedisUnavailable as error:
                if isinstance(error.__cause__, AWAY):
                    self._presence.noted_away(node, error)
                raise self.named(partition, error) from error.__cause__

    def named(self, partition: int, error: RedisUnavailable) -> RedisUnavailable:
        """The error, which says so if it is the previous Redis's."""
        if partition != self.partitioning.previous or isinstance(error, (PreviousUnavailable, RedisFull)):
            return error
        return PreviousUnavailable.of(error)

    async def each(self, act: Callable[[int], Awaitable[T]], among: Collection[int]) -> Tried[T]:
        """Has some partitions do something, one after the other; one that does not answer keeps no other from it."""
        found: dict[int, T] = {}
        problems: dict[int, RedisUnavailable] = {}
        for partition in among:
            try:
                found[partition] = await self.ask(partition, act)
            except RedisUnavailable as error:
                problems[partition] = error
        return Tried(found, problems)

    async def first(self, ask: Callable[[int], Awaitable[T]]) -> T:
        """The answer of the first server that answers, in the order of partitions. Raises RedisUnavailable if none does."""
        problem: RedisUnavailable | None = None
        for partition in [some[0] for some in self.by_node().values()] or [0]:
            try:
                return await self.ask(partition, ask)
            except RedisUnavailable as error:
                problem = error
        raise problem or RedisUnavailable("no Redis server is known")

    async def of(self, workspace: str) -> list[int]:
        """The partitions that may hold what is of a workspace, its home first; all, if there is no such workspace.

        Raises RedisUnavailable.
        """
        known_until, known = self._routes.get(workspace, (0.0, []))
        if time.monotonic() < known_until:
            return known
        home = self.partitioning.home(workspace)
        dialect, width = await self.ask(home, lambda n: self._width(n, workspace))
        found = self.partitioning.all_of(workspace, number(width) or 1)
        if dialect is None:
            found += [one for one in self.all if one not in found]
        self._routes.pop(workspace, None)
        while len(self._routes) >= MOST_ROUTES:
            del self._routes[next(iter(self._routes))]  # the one that was looked up first
        self._routes[workspace] = time.monotonic() + ROUTE_SECONDS, found
        return found

    async def _width(self, partition: int, workspace: str) -> tuple[bytes | None, bytes | None]:
        """A workspace's dialect, None if there is no such workspace, and its width."""
        client: Any = self.servers.client(partition)
        key = self.keys[partition].workspace(workspace)
        with translated(self.url(partition)):
            try:
                dialect, width = await client.hmget(key, ["dialect", "width"])
            except RedisError as error:
                dialect, width = reply(error, key, (b"damaged", None))
        return dialect, width

    def note_endpoint(self, endpoint: str, partitions: Collection[int]) -> None:
        """Notes which partitions have, or may have, the record of an endpoint (id); a service, which runs on, notes nothing."""
        if self._notes:
            self._holders[endpoint].update(partitions)

    async def with_endpoint(self, endpoint: str) -> list[int]:
        """The partitions that may have the record of an endpoint: as noted when it was read, else all are asked.

        Those of its workspace that do not answer are among them. Raises RedisUnavailable if none has it, and one does not answer.
        """
        if endpoint in self._holders:
            return sorted(self._holders[endpoint])

        async def has(partition: int) -> bool:
            client: Any = self.servers.client(partition)
            with translated(self.url(partition)):
                return bool(await client.exists(self.keys[partition].endpoint(endpoint)))

        found = dict(zip(self.all, await self._asked(has, self.all), strict=True))
        errors = [one for one in found.values() if isinstance(one, BaseException)]
        holders = [n for n, is_there in found.items() if is_there is True]
        if errors and not holders:
            raise errors[0]
        if errors:
            silent = [n for n, answer in found.items() if isinstance(answer, BaseException)]
            holders = sorted({*holders, *await self._may_have(endpoint, holders[0], silent)})
        self.note_endpoint(endpoint, holders)
        return holders

    async def _may_have(self, endpoint: str, holder: int, silent: Sequence[int]) -> list[int]:
        """Those of some partitions that may have the record of an endpoint, by its workspace; one that has it is `holder`."""
        name = await self.call(holder, "HGET", self.keys[holder].endpoint(endpoint), "name") or b""
        workspace = EndpointName.parse(name.decode(errors="replace")).workspace
        try:
            parts = await self.of(workspace)
        except RedisUnavailable:  # then not even its width is known
            parts = [self.partitioning.home(workspace)]
        return [n for n in silent if n in parts]

    async def names(self, partition: int) -> set[str]:
        """The workspaces that a partition has."""
        client: Any = self.servers.client(partition)
        with translated(self.url(partition)):
            key = self.keys[partition].workspaces
            return {name.decode(errors="replace") for name in await of_type(client.smembers(key), key, ())}

    def forget_route(self, workspace: str) -> None:
        """Has `of` look anew: the workspace was changed."""
        self._routes.pop(workspace, None)

    async def for_workspace(self, workspace: str, ask: Callable[[int], Awaitable[T]]) -> list[T]:
        """The answers of the partitions that may hold what is of a workspace, its home's first.

        Raises RedisUnavailable if none answers.
        """
        asked = await self.of(workspace)
        found = await self._each(asked, ask)
        return [found[one] for one in asked if one in found]

    async def known(self, workspace: str, ask: Callable[[int], Awaitable[T | None]]) -> list[T]:
        """As for_workspace, without what is None or empty.

        Raises RedisUnavailable also if all is, and a partition did not answer: what is looked for may be there.
        """
        asked = await self.of(workspace)
        answers = await self._each(asked, ask)
        found = [answer for one in asked if (answer := answers.get(one))]
        away = [one for one in asked if one not in answers]
        if away and not found:
            raise RedisUnavailable(
                f"what is looked for may be in partition {away[0]}, which did not answer: {self.absent.problems[away[0]]}"
            )
        return found

    async def _each(self, asked: Sequence[int], ask: Callable[[int], Awaitable[T]]) -> dict[int, T]:
        if len(asked) == 1:
            return {asked[0]: await self.ask(asked[0], ask)}
        return await self.everywhere(ask, asked)

    async def merged(
        self, streams: Mapping[int, AsyncIterator[T]], order: Callable[[T], Any]
    ) -> AsyncIterator[T]:
        """What the streams of several partitions give, each in ascending `order`, as one stream in that order.

        A partition that stops answering is noted, and its stream ends. Raises RedisUnavailable if none answers.
        """
        if len(streams) == 1:
            [stream] = streams.values()
            async for one in stream:
                yield one
            return
        heads: list[tuple[Any, int, T]] = []
        firsts = await self.everywhere(lambda n: anext(streams[n], None), streams) if streams else {}
        for partition, value in firsts.items():
            if value is not None:
                heapq.heappush(heads, (order(value), partition, value))
        while heads:
            _, partition, value = heapq.heappop(heads)
            yield value
            try:
                following = await anext(streams[partition], None)
            except RedisUnavailable as error:
                self.absent.note(partition, error)
                continue
            if following is not None:
                heapq.heappush(heads, (order(following), partition, following))
