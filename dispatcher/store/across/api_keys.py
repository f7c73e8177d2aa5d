"""API keys of an installation with several partitions.

A key lies with its workspace: its id is chosen so that the id alone gives the workspace's home too (`ApiKeys.add`). Keys that
were made when the installation had one partition were not chosen so: the record of each is where its id says, and its
workspace's home knows the id (store/growth.py).
"""

from contextlib import suppress

from dispatcher.errors import NotFound
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.api_keys import ApiKey, ApiKeys, Spent, no_such_key


class ApiKeysAcross(ApiKeys):
    """As ApiKeys, each key in the home partition of its workspace; those of producers in that of `*`."""

    def __init__(self, partitions: Partitions) -> None:
        self._home = partitions.partitioning.home
        self._previous = partitions.partitioning.previous
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
        home = self._home(workspace)
        by_place: dict[int, list[str]] = {}
        for id_ in await self._at(home)._ids(workspace):
            by_place.setdefault(self._home(id_), []).append(id_)
        found = [one for n, ids in by_place.items() for one in await self._at(n)._read_all(ids)]
        return sorted(found, key=lambda key: (key.created_ms, key.id))

    async def revoke(self, workspace: str, id_: str) -> None:
        """As ApiKeys.revoke."""
        if self._previous is not None:  # which knows it again if growth is gone back from
            with suppress(NotFound):
                await self._at(self._previous).revoke(workspace, id_)
        if id_ not in await self._at(self._home(workspace))._ids(workspace):
            raise no_such_key(id_)
        await self._at(self._home(id_))._forget(id_)
        with suppress(NotFound):  # somebody else revoked it at the same time
            await self._at(self._home(workspace)).revoke(workspace, id_)

    async def identify(self, text: str) -> tuple[ApiKey | None, str]:
        """As ApiKeys.identify."""
        return await self._at(self._home(text.partition(".")[0])).identify(text)

    async def spend(self, key: ApiKey) -> Spent:
        """As ApiKeys.spend."""
        return await self._at(self._home(key.id)).spend(key)
