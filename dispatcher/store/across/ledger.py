"""What operators change in the ledger of an installation with several partitions."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.across.rejected import by_partition
from dispatcher.store.archive.archived_callback import ArchivedCallback
from dispatcher.store.endpoints import HOUR_MS
from dispatcher.store.ledger import Ledger
from dispatcher.store.replies import Retried, Stopped
from dispatcher.store.stored_callback import Waiting
from dispatcher.store.wire import Argument


class LedgerAcross(Ledger):
    """Finds the ledger of each partition concerned. What workers call is of one partition, and is not here.

    Every method raises RedisUnavailable, also if only one of the partitions concerned does not answer.
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
        return sum(
            [
                await self.at(n).cancel(endpoint, waiting)
                for n in await self._partitions.with_endpoint(endpoint)
            ]
        )

    async def forget(self, workspace: str, event_ids: Sequence[str]) -> int:
        """As Ledger.forget."""
        return sum(
            [await self.at(n).forget(workspace, event_ids) for n in await self._partitions.of(workspace)]
        )

    async def erase(self, workspace: str, event_ids: Sequence[str]) -> tuple[int, int]:
        """As Ledger.erase."""
        found = [await self.at(n).erase(workspace, event_ids) for n in await self._partitions.of(workspace)]
        return sum(erased for erased, _ in found), sum(left for _, left in found)

    async def unlist(self, workspace: str, places: Sequence[tuple[str, str, str]]) -> int:
        """As Ledger.unlist."""
        return sum([await self.at(n).unlist(workspace, places) for n in await self._partitions.of(workspace)])

    async def move(
        self, workspace: str, from_url: str, url: str, endpoint: str, waiting: Sequence[Waiting]
    ) -> int:
        """As Ledger.move."""
        return sum(
            [
                await self.at(n).move(workspace, from_url, url, endpoint, waiting)
                for n in await self._partitions.of(workspace)
            ]
        )

    async def requeue(self, ids: Sequence[str]) -> tuple[int, int]:
        """As Ledger.requeue; ids are `partition:id`. Raises InvalidInput for others."""
        found = [await self.at(n).requeue(some) for n, some in by_partition(self._partitions, ids).items()]
        return sum(there for there, _ in found), sum(left for _, left in found)

    async def stop(self, endpoint: str, *, resume: bool = False) -> Stopped:
        """As Ledger.stop. One that some partition of its workspace does not know yet is stopped there too, for what comes."""
        words = {
            n: await self.at(n).stop(endpoint, resume=resume)
            for n in await self._partitions.with_endpoint(endpoint)
        }
        known = [n for n, word in words.items() if word is not Stopped.UNKNOWN]
        if not known:
            return Stopped.UNKNOWN
        if not resume:
            words |= await self._stop_elsewhere(endpoint, known)
        return Stopped.CHANGED if Stopped.CHANGED in words.values() else Stopped.SAME

    async def _stop_elsewhere(self, endpoint: str, known: Sequence[int]) -> dict[int, Stopped]:
        """Stops an endpoint in the partitions of its workspace that do not know it yet."""
        call, keys = self._partitions.call, self._partitions.keys
        name = await call(known[0], "HGET", keys[known[0]].endpoint(endpoint), "name") or b""
        workspace = EndpointName.parse(name.decode(errors="replace")).workspace
        home = self._partitions.partitioning.home(workspace)
        found: dict[int, Stopped] = {}
        if await call(home, "EXISTS", keys[home].workspace(workspace)):  # else nothing comes any more
            for n in [n for n in await self._partitions.of(workspace) if n not in known]:
                await call(n, "HSETNX", keys[n].endpoint(endpoint), "name", name)
                await call(n, "PEXPIRE", keys[n].endpoint(endpoint), HOUR_MS)  # `stop` ends that
                found[n] = await self.at(n).stop(endpoint)
        return found

    async def retry(self, endpoint: str, later: Sequence[tuple[str, float]] = ()) -> Retried | None:
        """As Ledger.retry."""
        found = [
            await self.at(n).retry(endpoint, later) for n in await self._partitions.with_endpoint(endpoint)
        ]
        retried = [one for one in found if one]
        if not retried:
            return None
        return Retried(
            max(one.pause_ended_ms for one in retried),
            max(one.probe_ends_ms for one in retried),
            sum(one.made_due for one in retried),
            all(one.stopped for one in retried),
        )

    async def expedite(self, endpoint: str) -> None:
        """As Ledger.expedite."""
        for n in await self._partitions.with_endpoint(endpoint):
            await self.at(n).expedite(endpoint)

    async def _run(self, name: str, *args: Argument, of: Sequence[str] = ()) -> tuple[list[Any], float]:
        raise NotImplementedError(f"{name} is of one partition: ask its own ledger")
