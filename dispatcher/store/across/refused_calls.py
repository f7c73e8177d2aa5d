"""The API calls that were refused, in an installation with several partitions: they are counted in partition 0."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from dispatcher.errors import RedisUnavailable
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.refused_calls import REASONS, Refusals

T = TypeVar("T")


class RefusalsAcross(Refusals):
    """As Refusals; without those of a partition that does not answer. Those of the previous Redis, if there is one, are added."""

    def __init__(self, partitions: Partitions) -> None:
        super().__init__(partitions.servers.wire(0).call, partitions.keys[0], partitions.url(0))
        self._partitions = partitions
        previous = partitions.partitioning.previous
        self._among = [0] if previous is None else [0, previous]
        self._at = partitions.on_wire(Refusals)

    async def totals(self) -> dict[str, int]:
        """As Refusals.totals; empty if a partition that counts does not answer: the rest would look like counters that fell."""
        answers = await self._answers(lambda n: self._at(n).totals())
        if len(answers) < len(self._among):
            return {}
        found = Counter(dict.fromkeys(REASONS, 0))
        for some in answers.values():
            found.update(some)
        return dict(found)

    async def last(self, now_ms: int, hours: int) -> Mapping[tuple[str, str], int]:
        """As Refusals.last."""
        found = Counter[tuple[str, str]]()
        for some in (await self._answers(lambda n: self._at(n).last(now_ms, hours))).values():
            found.update(some)
        return found

    async def _answers(self, ask: Callable[[int], Awaitable[T]]) -> dict[int, T]:
        try:
            return await self._partitions.everywhere(ask, self._among)
        except RedisUnavailable:  # noted
            return {}
