"""Reads the counters of an installation with several partitions: they are added."""

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise

from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.across.gathered_stats import GatheredStats
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.stats import (
    DAY_MINUTES,
    LENGTHS,
    WEEK_DAYS,
    Figures,
    Stats,
    by_endpoint,
    by_workspace,
    of_all,
    total,
)


class StatsAcross(Stats):
    """As Stats, of all partitions."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions
        self._at = partitions.readers(GatheredStats)

    async def sums(self, now_ms: int, minutes: Sequence[int]) -> list[Counter[str]]:
        """As Stats.sums."""
        return await self._added("minute", now_ms, minutes)

    async def minutes(self, now_ms: int, count: int = DAY_MINUTES) -> list[Counter[str]]:
        """As Stats.minutes."""
        return await self.sums(now_ms, [1] * count)

    async def windows(self, now_ms: int, hours: Sequence[int]) -> list[dict[str, Figures]]:
        """As Stats.windows."""
        lengths = [more - less for less, more in pairwise([0, *hours])]
        spans = (await self._added("hour", now_ms, lengths[::-1]))[::-1]
        return [await by_workspace(spans[: place + 1]) for place in range(len(spans))]

    async def workspaces(self, now_ms: int, hours: int) -> dict[str, Figures]:
        """As Stats.workspaces."""
        return (await self.windows(now_ms, [hours]))[0]

    async def together(self, now_ms: int, hours: int) -> Figures:
        """As Stats.together."""
        return await of_all(await self._added("hour", now_ms, [hours]))

    async def workspace(self, workspace: str, now_ms: int, hours: int) -> Figures:
        """As Stats.workspace."""
        return total(
            await self._partitions.for_workspace(
                workspace, lambda n: self._at(n).workspace(workspace, now_ms, hours)
            )
        )

    async def endpoints(self, now_ms: int, days: int) -> dict[str, Counter[str]]:
        """As Stats.endpoints."""
        return by_endpoint(await self._added("day", now_ms, [days]))

    async def endpoint_days(
        self, names: Sequence[EndpointName], now_ms: int, days: int = WEEK_DAYS
    ) -> list[Counter[str]]:
        """As Stats.endpoint_days."""
        if not names:
            return [Counter[str]() for _ in range(days)]
        found = await self._partitions.for_workspace(
            names[0].workspace, lambda n: self._at(n).endpoint_days(names, now_ms, days)
        )
        return [sum(same_day, Counter()) for same_day in zip(*found, strict=True)]

    async def _added(self, unit: str, now_ms: int, lengths: Sequence[int]) -> list[Counter[str]]:
        """The sums of spans of so many minutes, hours or days, one after the other, the last of which ends now."""
        first = now_ms // LENGTHS[unit] - sum(lengths) + 1
        ends = [first + passed - 1 for passed in accumulate(lengths)]
        found = await self._partitions.everywhere(lambda n: self._at(n).added(unit, first, ends))
        added = [Counter[str]() for _ in lengths]
        for to, counts in chain.from_iterable(found.values()):
            added[to].update(counts)
        return added
