"""API keys of an installation with several partitions.

A key lies with its workspace: its id is chosen so that the id alone gives the workspace's home too (`ApiKeys.add`).
"""

from dispatcher.store.across.partitions import Partitions
from dispatcher.store.api_keys import ApiKey, ApiKeys, Spent


class ApiKeysAcross(ApiKeys):
    """As ApiKeys, each key in the home partition of its workspace; those of producers in that of `*`."""

    def __init__(self, partitions: Partitions) -> None:
        self._home = partitions.partitioning.home
        self._at = partitions.on_wire(
            lambda call, keys, url: ApiKeys(call, keys, url, partitions.partitioning)
        )

    async def add(
        self,
        workspace: str,
        platform: str,
        name: str,
        *,
        now_ms: int,
        rate_per_second: int,
        read_only: bool = False,
    ) -> tuple[ApiKey, str]:
        """As ApiKeys.add."""
        return await self._at(self._home(workspace)).add(
            workspace, platform, name, now_ms=now_ms, rate_per_second=rate_per_second, read_only=read_only
        )

    async def list(self, workspace: str) -> "list[ApiKey]":
        """As ApiKeys.list."""
        return await self._at(self._home(workspace)).list(workspace)

    async def revoke(self, workspace: str, id_: str) -> None:
        """As ApiKeys.revoke."""
        await self._at(self._home(workspace)).revoke(workspace, id_)

    async def identify(self, text: str) -> tuple[ApiKey | None, str]:
        """As ApiKeys.identify."""
        return await self._at(self._home(text.partition(".")[0])).identify(text)

    async def spend(self, key: ApiKey) -> Spent:
        """As ApiKeys.spend."""
        return await self._at(self._home(key.id)).spend(key)
