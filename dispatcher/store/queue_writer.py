"""Enqueues the status changes of many calls together: one round trip looks, one writes."""

import time
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from dispatcher.errors import RedisUnavailable
from dispatcher.store.api_keys import RATE_LIFE_SECONDS
from dispatcher.store.connection import translate, translated
from dispatcher.store.keys import Keys
from dispatcher.store.wire import Argument, PartitionWire


class Look(NamedTuple):
    """What Redis says about some calls, before anything is enqueued."""

    second: int
    """The second their calls were counted in, since 1970."""
    spent: Mapping[str, int]
    """By API key's id: its calls in that second so far, these included."""
    queued: int
    """Status changes on the queue."""
    unknown: Collection[str]
    """Those of the workspaces that do not exist."""
    queues: Mapping[str, int] = MappingProxyType({})
    """With several partitions: by workspace, the status changes on its partition's queue."""
    away: Mapping[str, RedisUnavailable] = MappingProxyType({})
    """The workspaces whose partition does not answer, and why."""

    def queued_for(self, workspace: str) -> int:
        """Status changes on the queue that a workspace's own go to."""
        return self.queues.get(workspace, self.queued)


class QueueWriter:
    """The queue, as the HTTP intake writes it."""

    def __init__(self, wire: PartitionWire, keys: Keys, url: str = "") -> None:
        self._wire = wire
        self._keys = keys
        self._url = url

    def lane(self, workspace: str) -> str:
        """What a workspace's status changes are enqueued together with: all that go to one server. One lane for all here."""
        return ""

    async def look(self, calls: Mapping[str, int], workspaces: Sequence[str]) -> Look:
        """Counts calls against the rates of their API keys (by id), and looks at the queue and at workspaces.

        Raises RedisUnavailable.
        """
        second = int(time.time())
        counters = {id_: self._keys.api_rate(id_, second) for id_ in calls}
        commands: list[tuple[Argument, ...]] = [
            ("XLEN", self._keys.events),
            ("SMISMEMBER", self._keys.workspaces, *workspaces),
            *_counting(counters, calls),
        ]
        queued, known, *counted = await self._all(commands)
        unknown = {name for name, is_known in zip(workspaces, known, strict=True) if not is_known}
        return Look(second, dict(zip(calls, counted, strict=False)), queued, unknown)

    async def spend(self, calls: Mapping[str, int], second: int) -> dict[str, int]:
        """Counts calls against the rates of their API keys alone; returns those of each so far. Raises RedisUnavailable."""
        counters = {id_: self._keys.api_rate(id_, second) for id_ in calls}
        return dict(zip(calls, await self._all(_counting(counters, calls)), strict=False))

    async def refund(self, look: Look, calls: Mapping[str, int]) -> None:
        """Takes back calls that `look` counted, because they are counted again elsewhere. Raises RedisUnavailable."""
        counters = {self._keys.api_rate(id_, look.second): count for id_, count in calls.items()}
        expire = [("EXPIRE", counter, RATE_LIFE_SECONDS) for counter in counters]  # it may have been gone
        await self._all([*(("DECRBY", counter, count) for counter, count in counters.items()), *expire])

    async def add(self, changes: Sequence[bytes], workspaces: Sequence[str] = ()) -> list[Exception | None]:
        """Enqueues status changes, as JSON; returns for each why it is not certainly on the queue, or None.

        `workspaces` are those of the changes: with several partitions they say where each goes. Raises RedisUnavailable if
        there is no connection.
        """
        commands = [("XADD", self._keys.events, "*", "event", change) for change in changes]
        with translated(self._url):
            replies = await self._wire.call_all(commands)
        return [translate(one, self._url) if isinstance(one, Exception) else None for one in replies]

    async def _all(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        with translated(self._url):
            replies = await self._wire.call_all(commands)
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies


def _counting(counters: Mapping[str, str], calls: Mapping[str, int]) -> list[tuple[Argument, ...]]:
    """The commands that count calls; the replies to the first ones are the counts."""
    return [
        *(("INCRBY", counters[id_], count) for id_, count in calls.items()),
        *(("EXPIRE", counter, RATE_LIFE_SECONDS) for counter in counters.values()),
    ]
