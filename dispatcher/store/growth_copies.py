"""Copies what a grown installation needs at once, and what does not end by itself, from its previous Redis into the partitions."""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.api_keys import OPERATORS, PRODUCERS
from dispatcher.store.command_parts import in_parts
from dispatcher.store.connection import translated
from dispatcher.store.damaged import number
from dispatcher.store.keys import Keys

AT_ONCE = 500
"""Records read per round trip."""


class Copies:
    """Workspaces, API keys, ends of client certificates, and stopped endpoints.

    For the time before the installation has grown: the previous Redis is changed until then, so what an earlier run copied is
    replaced, and what the previous Redis does not have any more is removed. Nothing waits in the partitions.
    """

    def __init__(
        self, partitions: Partitions, previous: int, keep: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """`previous` is the number of the previous Redis among the partitions; `keep` is called before each change of these.

        It raises if another run copies too.
        """
        self._keep = keep or _nothing
        self._of = partitions
        self._old: Any = partitions.servers.client(previous)
        self._keys = partitions.keys[previous]
        self._url = partitions.url(previous)
        self._new = range(partitions.partitioning.partitions)
        self._parts: dict[str, list[int]] = {}
        """The partitions of each workspace that was copied, its home first."""

    async def make(self, tell: Callable[[int, int], None]) -> Counter[str]:
        """Copies; returns how many of each kind. `tell` hears of how many workspaces, of how many, are done. Raises RedisUnavailable."""
        with translated(self._url):
            names = sorted(
                name.decode(errors="replace") for name in await self._old.smembers(self._keys.workspaces)
            )
        copied = Counter[str]()
        for first in range(0, len(names), AT_ONCE):
            some = names[first : first + AT_ONCE]
            copied["workspaces"] += await self._copy_workspaces(some)
            copied["apiKeys"] += await self._copy_api_keys(some)
            tell(min(first + AT_ONCE, len(names)), len(names))
        copied["apiKeys"] += await self._copy_api_keys([PRODUCERS, OPERATORS])
        await self._remove_workspaces()
        await self._copy_certificates()
        copied["stoppedEndpoints"] += await self._copy_stopped()
        return copied

    async def _copy_workspaces(self, names: Sequence[str]) -> int:
        records = await self._hashes([self._keys.workspace(name) for name in names])
        there = [(name, fields) for name, fields in zip(names, records, strict=True) if fields]
        by_part: dict[int, list[tuple[str, dict[bytes, bytes]]]] = {}
        for name, fields in there:
            width = number(fields.get(b"width")) or 1  # of one that had grown, and was gone back from
            self._parts[name] = [n for n in self._of.partitioning.all_of(name, width) if n in self._new]
            for n in self._parts[name]:
                by_part.setdefault(n, []).append((name, fields))
        for n, some in by_part.items():
            keys = self._of.keys[n]
            await self._put(n, [(keys.workspace(name), fields) for name, fields in some])
            with translated(self._of.url(n)):  # after the records, so that no name is without
                await self._client(n).sadd(keys.workspaces, *(name for name, _ in some))
        return len(there)

    async def _remove_workspaces(self) -> None:
        """Removes from the partitions what the previous Redis does not have, or not there, any more."""
        for n in self._new:
            keys, client = self._of.keys[n], self._client(n)
            with translated(self._of.url(n)):
                names = [name.decode(errors="replace") for name in await client.smembers(keys.workspaces)]
            gone = [name for name in names if n not in self._parts.get(name, ())]
            for first in range(0, len(gone), AT_ONCE):
                some = gone[first : first + AT_ONCE]
                removed = [name for name in some if name not in self._parts]
                await self._keep()
                await self._remove_api_keys({name: set() for name in removed})
                with translated(self._of.url(n)):
                    await client.delete(*map(keys.workspace, some))
                    await client.srem(
                        keys.workspaces, *some
                    )  # last, so that a run which breaks off finds it again

    async def _copy_api_keys(self, names: Sequence[str]) -> int:
        """Each key's record goes where its id is looked for, and its id to its workspace."""
        pipe = self._old.pipeline(transaction=False)
        for name in names:
            pipe.smembers(self._keys.api_keys(name))
        with translated(self._url):
            found = await pipe.execute()
        kept = {
            name: {id_.decode(errors="replace") for id_ in some}
            for name, some in zip(names, found, strict=True)
        }
        await self._remove_api_keys(kept)
        ids = [(name, id_) for name, some in kept.items() for id_ in some]
        records = await self._hashes([self._keys.api_key(id_) for _, id_ in ids])
        copied = 0
        for home, some in self._by_home(zip(ids, records, strict=True), lambda one: one[0][1]).items():
            keys = self._of.keys[home]
            copied += await self._put(home, [(keys.api_key(id_), fields) for (_, id_), fields in some])
        for home, pairs in self._by_home(ids, lambda one: one[0]).items():
            pipe = self._client(home).pipeline(transaction=False)
            for name, id_ in pairs:
                pipe.sadd(self._of.keys[home].api_keys(name), id_)
            await self._keep()
            with translated(self._of.url(home)):
                await pipe.execute()
        return copied

    async def _remove_api_keys(self, kept: Mapping[str, Collection[str]]) -> None:
        """Removes from the partitions the API keys of some workspaces, but for those of these ids."""
        for home, names in self._by_home(kept, lambda name: name).items():
            pipe = self._client(home).pipeline(transaction=False)
            for name in names:
                pipe.smembers(self._of.keys[home].api_keys(name))
            with translated(self._of.url(home)):
                found = await pipe.execute()
            gone = [
                (name, id_)
                for name, some in zip(names, found, strict=True)
                for id_ in (one.decode(errors="replace") for one in some)
                if id_ not in kept[name]
            ]
            for name, id_ in gone:  # the record first: a run which breaks off finds the id again
                await self._keep()
                n = self._of.partitioning.home(id_)
                with translated(self._of.url(n)):
                    await self._client(n).delete(self._of.keys[n].api_key(id_))
                with translated(self._of.url(home)):
                    await self._client(home).srem(self._of.keys[home].api_keys(name), id_)

    async def _copy_certificates(self) -> None:
        with translated(self._url):
            found = await self._old.zrange(self._keys.client_certificates, 0, -1, withscores=True)
        by_home = self._by_home(found, lambda one: one[0].decode(errors="replace").partition(" ")[0])
        for n in self._new:
            key, pipe = self._of.keys[n].client_certificates, self._client(n).pipeline(transaction=True)
            pipe.delete(key)
            for part in in_parts(by_home.get(n, []), lambda _: 2):
                pipe.zadd(key, dict(part))
            await self._keep()
            with translated(self._of.url(n)):
                await pipe.execute()

    async def _copy_stopped(self) -> int:
        """Endpoints that the operator stopped, which are listed for ever, without what is known of their health."""
        stopped = await self._stopped(self._old, self._keys, self._url)
        by_part: dict[int, dict[str, dict[bytes, bytes]]] = {n: {} for n in self._new}
        for id_, h in stopped.items():
            workspace = _owner(h)
            for n in self._parts.get(workspace, [self._of.partitioning.home(workspace)]):
                by_part[n][id_] = {field: h[field] for field in (b"name", b"stopped")}
        for n, kept in by_part.items():
            keys, client = self._of.keys[n], self._client(n)
            gone = [id_ for id_ in await self._stopped(client, keys, self._of.url(n)) if id_ not in kept]
            await self._put(n, [(keys.endpoint(id_), fields) for id_, fields in kept.items()])
            with translated(self._of.url(n)):
                for part in in_parts([*kept], lambda _: 2):
                    await client.zadd(keys.endpoints, dict.fromkeys(part, "inf"))
                for some in in_parts(gone):
                    await client.delete(*map(keys.endpoint, some))
                    await client.zrem(keys.endpoints, *some)
        return len(stopped)

    async def _stopped(self, client: Any, keys: Keys, url: str) -> dict[str, dict[bytes, bytes]]:
        """The endpoints (ids) of one Redis that the operator stopped, with their records."""
        with translated(url):
            ids = [
                id_.decode(errors="replace")
                for id_ in await client.zrangebyscore(keys.endpoints, "inf", "inf")
            ]
        records = await _hashes(client, url, [keys.endpoint(id_) for id_ in ids])
        return {id_: h for id_, h in zip(ids, records, strict=True) if b"stopped" in h and b"name" in h}

    async def _hashes(self, keys: Sequence[str]) -> list[dict[bytes, bytes]]:
        return await _hashes(self._old, self._url, keys)

    async def _put(self, n: int, records: Sequence[tuple[str, dict[bytes, bytes]]]) -> int:
        """Writes each record, whole, in place of what is there; returns how many were written."""
        pipe = self._client(n).pipeline(transaction=True)
        given = [(key, fields) for key, fields in records if fields]  # else removed meanwhile
        for key, fields in given:
            pipe.delete(key)
            pipe.hset(key, mapping=fields)
        await self._keep()
        with translated(self._of.url(n)):
            if given:
                await pipe.execute()
        return len(given)

    def _client(self, n: int) -> Any:
        return self._of.servers.client(n)

    def _by_home(self, values: Iterable[Any], of: Callable[[Any], str]) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = {}
        for value in values:
            found.setdefault(self._of.partitioning.home(of(value)), []).append(value)
        return found


async def _hashes(client: Any, url: str, keys: Sequence[str]) -> list[dict[bytes, bytes]]:
    found: list[dict[bytes, bytes]] = []
    for first in range(0, len(keys), AT_ONCE):
        pipe = client.pipeline(transaction=False)
        for key in keys[first : first + AT_ONCE]:
            pipe.hgetall(key)
        with translated(url):
            found += await pipe.execute()
    return found


async def _nothing() -> None:
    """Nobody else copies."""


def _owner(record: dict[bytes, bytes]) -> str:
    """The workspace of an endpoint's record."""
    return EndpointName.parse(record[b"name"].decode(errors="replace")).workspace
