"""Reads the counters of an installation with several partitions: they are added."""

from collections import Counter

from dispatcher.store.across.gathered_stats import GatheredStats
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.stats import LENGTHS, Figures, Stats, total


class StatsAcross(Stats):
    """As Stats, of all partitions."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions
        self._at = partitions.readers(GatheredStats)

    async def minutes(self, now_ms: int, count: int = 1440) -> list[Counter[str]]:
        """As Stats.minutes."""
        last = now_ms // LENGTHS["minute"]
        first = last - count + 1
        added = [Counter[str]() for _ in range(count)]
        found = await self._partitions.everywhere(lambda n: self._at(n).gathered("minute", first, last))
        for minutes in found.values():
            for minute, counts in minutes:
                added[minute - first].update(counts)
        return added

    async def workspaces(self, now_ms: int, hours: int) -> dict[str, Figures]:
        """As Stats.workspaces."""
        found: dict[str, Figures] = {}
        for some in (
            await self._partitions.everywhere(lambda n: self._at(n).workspaces(now_ms, hours))
        ).values():
            for name, figures in some.items():
                found[name] = total((found[name], figures)) if name in found else figures
        return found

    async def workspace(self, workspace: str, now_ms: int, hours: int) -> Figures:
        """As Stats.workspace."""
        return total(
            await self._partitions.for_workspace(
                workspace, lambda n: self._at(n).workspace(workspace, now_ms, hours)
            )
        )

    async def endpoints(self, now_ms: int, days: int) -> dict[str, Counter[str]]:
        """As Stats.endpoints."""
        found: dict[str, Counter[str]] = {}
        for some in (
            await self._partitions.everywhere(lambda n: self._at(n).endpoints(now_ms, days))
        ).values():
            for endpoint, counts in some.items():
                found.setdefault(endpoint, Counter()).update(counts)
        return found
