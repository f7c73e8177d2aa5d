"""Reads rejected entries of an installation with several partitions.

Their ids are stream ids, which two partitions may both have: here they are `partition:id`, such as `12:1732680000000-0`.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from dispatcher.errors import InvalidInput
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.rejected import Rejected, RejectedEntry

_ID = re.compile(r"([0-9]{1,4}):([0-9]+-[0-9]+)")


class RejectedAcross(Rejected):
    """As Rejected, of all partitions."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions
        self._at = partitions.readers(Rejected)

    async def newest(
        self,
        limit: int = 100,
        match: Callable[[RejectedEntry], bool] = lambda _: True,
        most: int | None = None,
    ) -> list[RejectedEntry]:
        """As Rejected.newest."""

        async def newest(n: int) -> list[RejectedEntry]:
            found = await self._at(n).newest(limit, lambda one: match(_of(n, one)), most)
            return [_of(n, one) for one in found]

        found = [one for some in (await self._partitions.everywhere(newest)).values() for one in some]
        return sorted(found, key=lambda one: -one.at_ms)[:limit]

    async def remove(self, ids: Sequence[str]) -> int:
        """As Rejected.remove; ids are `partition:id`. Raises InvalidInput for others."""
        by_part = by_partition(self._partitions, ids)
        tried = await self._partitions.each(lambda n: self._at(n).remove(by_part[n]), by_part)
        return tried.whole(sum(tried.found.values()))

    async def counts(self, *, strict: bool = False) -> dict[str, int]:
        """As Rejected.counts."""
        counts: Counter[str] = Counter()
        for some in (await self._partitions.everywhere(lambda n: self._at(n).counts(strict=strict))).values():
            counts.update(some)
        return dict(sorted(counts.items()))


def by_partition(partitions: Partitions, ids: Sequence[str]) -> dict[int, list[str]]:
    """The ids of entries, by their partition. Raises InvalidInput for one that names none."""
    found: dict[int, list[str]] = {}
    for id_ in ids:
        parts = _ID.fullmatch(id_)
        if not parts or int(parts[1]) not in partitions.all:
            raise InvalidInput(
                f"{id_!r} is no rejected entry's id: with {len(partitions.keys)} partitions it is `partition:id`, as "
                "`dispatcher rejected list` shows it"
            )
        found.setdefault(int(parts[1]), []).append(parts[2])
    return found


def _of(partition: int, one: RejectedEntry) -> RejectedEntry:
    return replace(one, id=f"{partition}:{one.id}", entry=f"{partition}:{one.entry}")
