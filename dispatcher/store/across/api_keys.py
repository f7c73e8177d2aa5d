"""API keys of an installation with several partitions.

A key lies with its workspace: its id is chosen so that the id alone gives the workspace's home too (`ApiKeys.add`). Keys that
were made when the installation had one partition were not chosen so: the record of each is where its id says, and its
workspace's home knows the id (store/growth.py).
"""

from contextlib import suppress

from dispatcher.errors import NotFound, RedisUnavailable
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.across.tried import Tried
from dispatcher.store.api_keys import ApiKey, ApiKeys, Spent, no_such_key


class ApiKeysAcross(ApiKeys):
    """As ApiKeys, each key in the home partition of its workspace; those of producers in that of `*`."""

    def __init__(self, partitions: Partitions) -> None:
        self._home = partitions.partitioning.home
        self._previous = partitions.partitioning.previous
        self._named = partitions.named
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
        """As ApiKeys.revoke; nothing accepts it any more if the previous Redis alone is away, which PartlyDone says."""
        home = self._home(workspace)
        is_there = id_ in await self._at(home)._ids(workspace)
        if is_there:
            await self._at(self._home(id_))._forget(id_)
            with suppress(NotFound):  # somebody else revoked it at the same time
                await self._at(home).revoke(workspace, id_)
        was_copied, problems = await self._revoke_copy(workspace, id_)
        if not (is_there or was_copied or problems):
            raise no_such_key(id_)
        Tried({home: None} if is_there else {}, problems).whole(None)

    async def _revoke_copy(self, workspace: str, id_: str) -> tuple[bool, dict[int, RedisUnavailable]]:
        """Revokes a key at the previous Redis, which counts again if growth is gone back from.

        Returns whether it was there, or why that is not known, by partition.
        """
        if self._previous is None:
            return False, {}
        try:
            await self._at(self._previous).revoke(workspace, id_)
        except NotFound:
            return False, {}
        except RedisUnavailable as error:
            return False, {self._previous: self._named(self._previous, error)}
        return True, {}

    async def identify(self, text: str) -> tuple[ApiKey | None, str]:
        """As ApiKeys.identify."""
        return await self._at(self._home(text.partition(".")[0])).identify(text)

    async def spend(self, key: ApiKey) -> Spent:
        """As ApiKeys.spend."""
        return await self._at(self._home(key.id)).spend(key)
