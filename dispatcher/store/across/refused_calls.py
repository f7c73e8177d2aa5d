"""The API calls that were refused, in an installation with several partitions: they are counted in partition 0."""

from collections.abc import Mapping

from dispatcher.errors import RedisUnavailable
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.refused_calls import REASONS, Refusals


class RefusalsAcross(Refusals):
    """As Refusals; none, if partition 0 does not answer."""

    def __init__(self, partitions: Partitions) -> None:
        super().__init__(partitions.servers.wire(0).call, partitions.keys[0], partitions.url(0))
        self._partitions = partitions

    async def totals(self) -> dict[str, int]:
        """As Refusals.totals."""
        try:
            return (await self._partitions.everywhere(lambda _: super(RefusalsAcross, self).totals(), [0]))[0]
        except RedisUnavailable:  # noted
            return dict.fromkeys(REASONS, 0)

    async def last(self, now_ms: int, hours: int) -> Mapping[tuple[str, str], int]:
        """As Refusals.last."""
        try:
            return (
                await self._partitions.everywhere(
                    lambda _: super(RefusalsAcross, self).last(now_ms, hours), [0]
                )
            )[0]
        except RedisUnavailable:
            return {}
