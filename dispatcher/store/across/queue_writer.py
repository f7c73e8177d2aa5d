"""Enqueues status changes in an installation with several partitions: each goes to its workspace's home partition.

A workspace that is spread over several has its intake there hand each on to its own. A partition that does not answer concerns
its workspaces alone; the rates of API keys whose partition does not answer are counted in this process.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from dispatcher.errors import RedisUnavailable
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.keys import Keys
from dispatcher.store.queue_writer import Look, QueueWriter
from dispatcher.store.wire import PartitionWire


class QueueWriterAcross(QueueWriter):
    """As QueueWriter, of all partitions."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions
        self._home = partitions.partitioning.home
        self._writers: dict[int, QueueWriter] = {}
        self._here: Counter[str] = Counter()
        self._second = 0

    def lane(self, workspace: str) -> str:
        """The server that holds a workspace's queue; empty if none is known."""
        try:
            return self._partitions.servers.node(self._home(workspace)).name
        except RedisUnavailable:
            return ""

    async def look(self, calls: Mapping[str, int], workspaces: Sequence[str]) -> Look:
        """As QueueWriter.look; raises RedisUnavailable only if no workspace's partition answers."""
        second = int(time.time())
        places = _grouped(workspaces, self._home)
        queues: dict[str, int] = {}
        unknown: set[str] = set()
        away: dict[str, RedisUnavailable] = {}
        looks, spent = await asyncio.gather(
            asyncio.gather(*(self._look(n, some) for n, some in places.items())), self._spend(calls, second)
        )
        for some, found in zip(places.values(), looks, strict=True):
            if isinstance(found, RedisUnavailable):
                away |= dict.fromkeys(some, found)
            else:
                queues |= dict.fromkeys(some, found.queued)
                unknown.update(found.unknown)
        if away and not queues:
            raise next(iter(away.values()))
        return Look(second, spent, 0, unknown, queues, away)

    async def refund(self, look: Look, calls: Mapping[str, int]) -> None:
        """As QueueWriter.refund; nothing for keys whose partition does not answer."""
        for n, ids in _grouped(list(calls), self._home).items():
            some = {id_: calls[id_] for id_ in ids}
            try:
                await self._partitions.ask(n, lambda n, some=some: self._at(n).refund(look, some))  # type: ignore[misc]
            except RedisUnavailable:
                self._here.subtract(some)

    async def add(self, changes: Sequence[bytes], workspaces: Sequence[str] = ()) -> list[Exception | None]:
        """As QueueWriter.add; `workspaces` are those of the changes."""
        places: dict[int, list[int]] = {}
        for number, workspace in enumerate(workspaces):
            places.setdefault(self._home(workspace), []).append(number)
        errors: list[Exception | None] = [None] * len(changes)

        async def add(n: int, numbers: Sequence[int]) -> None:
            try:
                found = await self._partitions.ask(
                    n, lambda n: self._at(n).add([changes[number] for number in numbers])
                )
            except RedisUnavailable as error:
                found = [error] * len(numbers)
            for number, one in zip(numbers, found, strict=True):
                errors[number] = one

        await asyncio.gather(*(add(n, numbers) for n, numbers in places.items()))
        return errors

    async def _look(self, n: int, workspaces: Sequence[str]) -> Look | RedisUnavailable:
        try:
            return await self._partitions.ask(n, lambda n: self._at(n).look({}, workspaces))
        except RedisUnavailable as error:
            return error

    async def _spend(self, calls: Mapping[str, int], second: int) -> dict[str, int]:
        """How often each key was used in this second."""
        places = _grouped(list(calls), self._home)
        found = await asyncio.gather(
            *(self._spend_at(n, {id_: calls[id_] for id_ in ids}, second) for n, ids in places.items())
        )
        return {id_: count for some in found for id_, count in some.items()}

    async def _spend_at(self, n: int, calls: Mapping[str, int], second: int) -> dict[str, int]:
        """As _spend, of keys of one partition; counted in this process if it does not answer."""
        try:
            return await self._partitions.ask(n, lambda n: self._at(n).spend(calls, second))
        except RedisUnavailable:
            if self._second != second:
                self._here.clear()
                self._second = second
            self._here.update(calls)
            return {id_: self._here[id_] for id_ in calls}

    def _at(self, n: int) -> QueueWriter:
        if n not in self._writers:
            wire: PartitionWire = self._partitions.servers.wire(n)
            keys: Keys = self._partitions.keys[n]
            self._writers[n] = QueueWriter(wire, keys, self._partitions.url(n))
        return self._writers[n]


def _grouped(values: Sequence[str], home: Callable[[str], int]) -> dict[int, list[str]]:
    """The values by their partition."""
    found: dict[int, list[str]] = {}
    for value in values:
        found.setdefault(home(value), []).append(value)
    return found
