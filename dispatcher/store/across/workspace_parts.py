"""What workers ask and change about one receiver in all partitions of its workspace."""

from collections.abc import Callable

from redis.exceptions import RedisError

from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.gone import History
from dispatcher.rules.workspace import Workspace
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.connection import translated
from dispatcher.store.damaged import reply, time_ms
from dispatcher.store.keys import endpoint_id
from dispatcher.store.ledger import Ledger

SEEN_MS = 3_600_000
"""How long after `seen` callbacks may have been accepted: it is renewed once an hour (lua/lib/batch.lua)."""


class WorkspaceParts:
    """The partitions of each workspace, the previous Redis of an installation that has grown among them."""

    def __init__(self, partitions: Partitions, ledger_at: Callable[[int], Ledger]) -> None:
        self._partitions = partitions
        self._ledger_at = ledger_at

    def ledgers(self, workspace: Workspace) -> list[Ledger]:
        """The ledgers of a workspace's partitions."""
        return [self._ledger_at(n) for n in self._all_of(workspace)]

    async def histories(self, workspace: Workspace, endpoint: EndpointName, beside: int) -> list[History]:
        """What the workspace's partitions, but for `beside`, know of an endpoint's attempts.

        Raises RedisUnavailable if one of them does not answer. Nothing is asked of a workspace that has one.
        """
        others = [n for n in self._all_of(workspace) if n != beside]
        id_ = endpoint_id(endpoint)
        return [*(await self._partitions.everywhere(lambda n: self._history(n, id_), others)).values()]

    def _all_of(self, workspace: Workspace) -> list[int]:
        return self._partitions.partitioning.all_of(workspace.id, workspace.width)

    async def _history(self, partition: int, endpoint: str) -> History:
        key = self._partitions.keys[partition].endpoint(endpoint)
        with translated(self._partitions.url(partition)):
            try:
                found = await self._partitions.call(
                    partition, "HMGET", key, "failing", "gone", "seen", "p95", "last_failure"
                )
            except RedisError as error:
                found = reply(error, key, (None,) * 5)
        failing, gone, seen, tried, last_failure = found
        last_ms = max(time_ms(seen) + SEEN_MS, time_ms((last_failure or b"").partition(b" ")[0]))
        return History(time_ms(failing), time_ms(gone), last_ms if tried else 0)
