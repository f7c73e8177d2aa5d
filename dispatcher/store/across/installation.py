"""Reads the state of an installation with several partitions: clock, data format, waiting counts, workers, figures."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from redis.exceptions import ResponseError

from dispatcher.errors import RedisUnavailable
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.across.presence import SILENCE_SECONDS
from dispatcher.store.connection import safe_url, translated
from dispatcher.store.installation import Backlog, Installation, Load, Memory, Unread
from dispatcher.store.keys import Keys
from dispatcher.store.members import registries
from dispatcher.store.wire import Call


class InstallationAcross(Installation):
    """As Installation, of all partitions."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions
        self._at = partitions.readers(Installation)

    async def now_ms(self) -> int:
        """The clock of the first server that answers, ms since 1970; those of others differ by what their hosts' clocks do."""
        return await self._partitions.first(lambda n: self._at(n).now_ms())

    async def format(self) -> str:
        """The lowest format number of the partitions that answer; empty if one has none."""
        found = await self._partitions.everywhere(lambda n: self._at(n).format())
        return min(found.values(), key=lambda one: int(one) if one.isdigit() else 0)

    async def formats(self) -> dict[int, str]:
        """The format number of each partition that answers; empty if none is stored."""
        return await self._partitions.everywhere(lambda n: self._at(n).format())

    async def is_empty(self) -> bool:
        """As Installation.is_empty, of all partitions."""
        return all((await self._partitions.everywhere(lambda n: self._at(n).is_empty())).values())

    async def raise_format(self, number: int) -> None:
        """As Installation.raise_format, in the partitions that answer."""
        await self._partitions.everywhere(lambda n: self._at(n).raise_format(number))

    async def require_writable(self, *, some: bool = False) -> None:
        """Raises RedisUnavailable or RedisFull if one of the servers refuses writes; of several, its `why` names the one.

        Writes nothing. With `some`, if all that answer refuse; the previous Redis does not count then: no status change is put
        there.
        """
        refusals: list[RedisUnavailable] = []

        async def require(n: int) -> None:
            try:
                await self._at(n).require_writable()
            except RedisUnavailable as error:
                if not error.why:  # it does not answer at all
                    raise
                if len(one_of_each) > 1:
                    error.why = f"{error.why} ({safe_url(self._partitions.url(n))})"
                refusals.append(error)

        one_of_each = [numbers[0] for numbers in self._partitions.by_node().values()]
        if some:
            one_of_each = [n for n in one_of_each if n != self._partitions.partitioning.previous]
        answered = await self._partitions.everywhere(require, one_of_each)
        if refusals and not (some and len(refusals) < len(answered)):
            raise refusals[0]

    async def waiting(self) -> tuple[int, int]:
        """As Installation.waiting."""
        found = (await self._partitions.everywhere(lambda n: self._at(n).waiting())).values()
        return sum(queued for queued, _ in found), sum(pending for _, pending in found)

    async def unread(self) -> Unread:
        """As Installation.unread, of each server but the previous Redis, where that queue is read."""
        servers = self._partitions.servers
        key = Keys(servers.keys[0].prefix.partition(":{")[0]).events

        async def look_at(n: int) -> Unread:
            return await _unread(key, servers.wire(n).call, self._partitions.url(n))

        if servers.is_cluster:
            return await _unread(key, lambda *command: servers.call_for(key, *command), servers.url(0))
        nodes = [some[0] for some in self._partitions.by_node().values()]
        among = [n for n in nodes if n != servers.partitioning.previous]
        found = (await self._partitions.everywhere(look_at, among)).values()
        times = [one.oldest_ms for one in found if one.oldest_ms is not None]
        problem = next((one.problem for one in found if one.problem), "")
        return Unread(sum(one.count for one in found), min(times, default=None), problem)

    async def workers(self) -> dict[str, dict[str, Any]]:
        """As Installation.workers: of each worker the newest heartbeat in the partitions where they are registered."""
        among = registries(self._partitions.partitioning.partitions)
        found = await self._partitions.everywhere(lambda n: self._at(n).workers(), among)
        newest: dict[str, dict[str, Any]] = {}
        for heartbeats in found.values():
            for name, heartbeat in heartbeats.items():
                if name not in newest or newest[name]["signedMs"] < heartbeat["signedMs"]:
                    newest[name] = heartbeat
        return dict(sorted(newest.items()))

    async def load(self, *, strict: bool = False) -> Load:
        """As Installation.load: counts are added, the age is the highest, each by the clock of its server."""
        found = (await self._partitions.everywhere(lambda n: self._at(n).load(strict=strict))).values()
        now_ms = max(one.now_ms for one in found)
        return Load(
            sum(one.queued for one in found),
            sum(one.waiting for one in found),
            now_ms - max(one.queue_age_ms for one in found),
            sum(one.expiring for one in found),
            now_ms,
        )

    async def expiring_of(self, endpoints: Collection[str]) -> int:
        """As Installation.expiring_of, of the partitions that answer."""
        return sum((await self._partitions.everywhere(lambda n: self._at(n).expiring_of(endpoints))).values())

    async def fingerprints_until(self) -> int:
        """As Installation.fingerprints_until, of the partitions that answer."""
        return max((await self._partitions.everywhere(lambda n: self._at(n).fingerprints_until())).values())

    async def end_archive(self) -> None:
        """As Installation.end_archive, in the partitions that answer."""
        await self._partitions.everywhere(lambda n: self._at(n).end_archive())

    async def to_archive(self) -> Backlog:
        """As Installation.to_archive: counts are added, the age is the highest, each by the clock of its server."""
        return _added(await self._partitions.everywhere(lambda n: self._at(n).to_archive()))

    async def messages_to_archive(self) -> Backlog:
        """As Installation.messages_to_archive, likewise."""
        return _added(await self._partitions.everywhere(lambda n: self._at(n).messages_to_archive()))

    async def memory(self) -> Memory:
        """The memory of the server that uses the highest share of its limit; if none has a limit, of the one that uses most."""
        one_of_each = [some[0] for some in self._partitions.by_node().values()]
        found = (await self._partitions.everywhere(lambda n: self._at(n).memory(), one_of_each)).values()
        return max(found, key=lambda one: (one.share, bool(one.limit), one.used))


def _added(found: Mapping[int, Backlog]) -> Backlog:
    """The backlog of several partitions, which may be on servers whose clocks differ."""
    now_ms = max(one.now_ms for one in found.values())
    age_ms = max(one.age_ms for one in found.values())
    return Backlog(sum(one.count for one in found.values()), now_ms - age_ms, now_ms)


async def _unread(key: str, send: Call, url: str) -> Unread:
    """What lies on a queue that nobody reads; whatever is wrong with that one key or its server hides nothing else."""
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            with translated(url):
                count = await send("XLEN", key)
                first = await send("XRANGE", key, "-", "+", "COUNT", 1) if count else ()
    except TimeoutError:
        return Unread(problem=f"its server does not answer within {SILENCE_SECONDS:g} s")
    except (RedisUnavailable, ResponseError) as error:
        return Unread(problem=str(error))
    return Unread(count, int(first[0][0].split(b"-")[0]) if first else None)
