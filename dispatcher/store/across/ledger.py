"""What operators change in the ledger of an installation with several partitions."""

import functools
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any

from dispatcher.errors import RedisUnavailable
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.across.rejected import by_partition
from dispatcher.store.across.tried import Tried
from dispatcher.store.archive.archived_callback import ArchivedCallback
from dispatcher.store.endpoints import HOUR_MS
from dispatcher.store.ledger import Ledger
from dispatcher.store.replies import Retried, Stopped
from dispatcher.store.stored_callback import Waiting
from dispatcher.store.wire import Argument


class LedgerAcross(Ledger):
    """Finds the ledger of each partition concerned. What workers call is of one partition, and is not here.

    Every method raises RedisUnavailable, also if only one of the partitions concerned does not answer. A change is made in all
    others before that, and the error is PartlyDone.
    """

    def __init__(self, partitions: Partitions, make: Callable[[int], Ledger]) -> None:
        self.at = functools.cache(make)
        """The ledger of a partition."""
        self.keys = partitions.keys[0]
        self.options = self.at(0).options
        self._partitions = partitions

    async def replay(
        self,
        workspace: str,
        event_id: str,
        *,
        copy: str = "",
        in_ms: int = 0,
        ttl_ms: int = 172_800_000,
        ended_ms: int = 0,
    ) -> str:
        """As Ledger.replay."""
        word = "unknown"
        for n in await self._partitions.of(workspace):
            word = await self.at(n).replay(
                workspace, event_id, copy=copy, in_ms=in_ms, ttl_ms=ttl_ms, ended_ms=ended_ms
            )
            if word != "unknown":
                break
        return word

    async def restore(self, one: ArchivedCallback) -> None:
        """As Ledger.restore, in the partition of its message."""
        parts = await self._partitions.of(one.workspace)
        its = self._partitions.partitioning
        width = len([n for n in parts if n != its.previous])
        await self.at(its.of(one.workspace, one.message, width)).restore(one)

    async def cancel(self, endpoint: str, waiting: Sequence[Waiting]) -> int:
        """As Ledger.cancel."""
        parts = await self._partitions.with_endpoint(endpoint)
        return await self._sum(lambda n: self.at(n).cancel(endpoint, waiting), parts)

    async def forget(self, workspace: str, event_ids: Sequence[str]) -> int:
        """As Ledger.forget."""
        parts = await self._partitions.of(workspace)
        return await self._sum(lambda n: self.at(n).forget(workspace, event_ids), parts)

    async def erase(self, workspace: str, event_ids: Sequence[str]) -> tuple[int, int]:
        """As Ledger.erase."""
        parts = await self._partitions.of(workspace)
        tried = await self._partitions.each(lambda n: self.at(n).erase(workspace, event_ids), parts)
        return tried.whole(_sums(tried.found.values()))

    async def unlist(self, workspace: str, places: Sequence[tuple[str, str, str]]) -> int:
        """As Ledger.unlist."""
        parts = await self._partitions.of(workspace)
        return await self._sum(lambda n: self.at(n).unlist(workspace, places), parts)

    async def move(
        self, workspace: str, from_url: str, url: str, endpoint: str, waiting: Sequence[Waiting]
    ) -> int:
        """As Ledger.move."""
        parts = await self._partitions.of(workspace)
        return await self._sum(lambda n: self.at(n).move(workspace, from_url, url, endpoint, waiting), parts)

    async def requeue(self, ids: Sequence[str]) -> tuple[int, int]:
        """As Ledger.requeue; ids are `partition:id`. Raises InvalidInput for others."""
        by_part = by_partition(self._partitions, ids)
        tried = await self._partitions.each(lambda n: self.at(n).requeue(by_part[n]), by_part)
        return tried.whole(_sums(tried.found.values()))

    async def stop(self, endpoint: str, *, resume: bool = False) -> Stopped:
        """As Ledger.stop. One that some partition of its workspace does not know yet is stopped there too, for what comes."""
        parts = await self._partitions.with_endpoint(endpoint)
        tried = await self._partitions.each(lambda n: self.at(n).stop(endpoint, resume=resume), parts)
        known = {n: word for n, word in tried.found.items() if word is not Stopped.UNKNOWN}
        if not known:
            return Tried(known, tried.problems).whole(Stopped.UNKNOWN)
        if not resume:
            tried = tried.also(await self._stop_elsewhere(endpoint, [*known], tried.problems))
        return tried.whole(Stopped.CHANGED if Stopped.CHANGED in tried.found.values() else Stopped.SAME)

    async def _stop_elsewhere(
        self, endpoint: str, known: Sequence[int], away: Collection[int]
    ) -> Tried[Stopped]:
        """Stops an endpoint in the partitions of its workspace that do not know it yet, but for those that are away."""
        call, keys, home = self._partitions.call, self._partitions.keys, known[0]
        try:
            name = await call(known[0], "HGET", keys[known[0]].endpoint(endpoint), "name") or b""
            workspace = EndpointName.parse(name.decode(errors="replace")).workspace
            home = self._partitions.partitioning.home(workspace)
            if not await call(home, "EXISTS", keys[home].workspace(workspace)):
                return Tried({}, {})  # nothing comes any more
            others = [n for n in await self._partitions.of(workspace) if n not in {*known, *away}]
        except RedisUnavailable as error:
            return Tried({}, {home: error})

        async def stop(n: int) -> Stopped:
            await call(n, "HSETNX", keys[n].endpoint(endpoint), "name", name)
            await call(n, "PEXPIRE", keys[n].endpoint(endpoint), HOUR_MS)  # `stop` ends that
            return await self.at(n).stop(endpoint)

        return await self._partitions.each(stop, others)

    async def retry(self, endpoint: str, later: Sequence[tuple[str, float]] = ()) -> Retried | None:
        """As Ledger.retry."""
        parts = await self._partitions.with_endpoint(endpoint)
        tried = await self._partitions.each(lambda n: self.at(n).retry(endpoint, later), parts)
        return tried.whole(_retried([one for one in tried.found.values() if one]))

    async def expedite(self, endpoint: str) -> None:
        """As Ledger.expedite."""
        parts = await self._partitions.with_endpoint(endpoint)
        (await self._partitions.each(lambda n: self.at(n).expedite(endpoint), parts)).whole(None)

    async def _sum(self, act: Callable[[int], Awaitable[int]], parts: Sequence[int]) -> int:
        tried = await self._partitions.each(act, parts)
        return tried.whole(sum(tried.found.values()))

    async def _run(self, name: str, *args: Argument, of: Sequence[str] = ()) -> tuple[list[Any], float]:
        raise NotImplementedError(f"{name} is of one partition: ask its own ledger")


def _sums(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    found = [*pairs]
    return sum(one for one, _ in found), sum(other for _, other in found)


def _retried(some: Sequence[Retried]) -> Retried | None:
    if not some:
        return None
    return Retried(
        max(one.pause_ended_ms for one in some),
        max(one.probe_ends_ms for one in some),
        sum(one.made_due for one in some),
        all(one.stopped for one in some),
    )
