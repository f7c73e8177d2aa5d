"""Limits searches in an installation with several partitions: the guard of a workspace lies in its home partition."""

from dispatcher.store.across.partitions import Partitions
from dispatcher.store.api_keys import ApiKeys
from dispatcher.store.searches import Searches


class SearchesAcross(Searches):
    """As Searches."""

    def __init__(self, partitions: Partitions, api_keys: ApiKeys) -> None:
        self.api_keys = api_keys
        self._home = partitions.partitioning.home
        self._at = partitions.on_wire(lambda call, keys, url: Searches(call, keys, api_keys, url))

    async def begin(self, workspace: str) -> str:
        """As Searches.begin."""
        return await self._at(self._home(workspace)).begin(workspace)

    async def end(self, workspace: str, token: str) -> None:
        """As Searches.end."""
        await self._at(self._home(workspace)).end(workspace, token)
