"""Copies what a grown installation needs at once, and what does not end by itself, from its previous Redis into the partitions."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.api_keys import OPERATORS, PRODUCERS
from dispatcher.store.command_parts import in_parts
from dispatcher.store.connection import translated

AT_ONCE = 500
"""Records read per round trip."""


class Copies:
    """Workspaces, API keys, ends of client certificates, and stopped endpoints. Nothing that is there already is changed."""

    def __init__(self, partitions: Partitions, previous: int) -> None:
        """`previous` is the number of the previous Redis among the partitions."""
        self._of = partitions
        self._old: Any = partitions.servers.client(previous)
        self._keys = partitions.keys[previous]
        self._url = partitions.url(previous)

    async def make(self, tell: Callable[[int, int], None]) -> Counter[str]:
        """Copies; returns how many of each kind. `tell` hears of how many workspaces, of how many, are done. Raises RedisUnavailable."""
        with translated(self._url):
            names = sorted(name.decode() for name in await self._old.smembers(self._keys.workspaces))
        copied = Counter[str]()
        for first in range(0, len(names), AT_ONCE):
            some = names[first : first + AT_ONCE]
            copied["workspaces"] += await self._copy_workspaces(some)
            copied["apiKeys"] += await self._copy_api_keys(some)
            tell(min(first + AT_ONCE, len(names)), len(names))
        copied["apiKeys"] += await self._copy_api_keys([PRODUCERS, OPERATORS])
        await self._copy_certificates()
        copied["stoppedEndpoints"] += await self._copy_stopped()
        return copied

    async def _copy_workspaces(self, names: Sequence[str]) -> int:
        records = await self._hashes([self._keys.workspace(name) for name in names])
        there = [(name, fields) for name, fields in zip(names, records, strict=True) if fields]
        copied = 0
        for home, some in self._by_home(there, lambda one: one[0]).items():
            keys = self._of.keys[home]
            copied += await self._put(home, [(keys.workspace(name), fields) for name, fields in some])
            with translated(self._of.url(home)):  # after the records, so that no name is without
                await self._client(home).sadd(keys.workspaces, *(name for name, _ in some))
        return copied

    async def _copy_api_keys(self, names: Sequence[str]) -> int:
        """Each key's record goes where its id is looked for, and its id to its workspace."""
        pipe = self._old.pipeline(transaction=False)
        for name in names:
            pipe.smembers(self._keys.api_keys(name))
        with translated(self._url):
            found = await pipe.execute()
        ids = [(name, id_.decode()) for name, some in zip(names, found, strict=True) for id_ in some]
        records = await self._hashes([self._keys.api_key(id_) for _, id_ in ids])
        copied = 0
        for home, some in self._by_home(zip(ids, records, strict=True), lambda one: one[0][1]).items():
            keys = self._of.keys[home]
            copied += await self._put(home, [(keys.api_key(id_), fields) for (_, id_), fields in some])
        for home, pairs in self._by_home(ids, lambda one: one[0]).items():
            pipe = self._client(home).pipeline(transaction=False)
            for name, id_ in pairs:
                pipe.sadd(self._of.keys[home].api_keys(name), id_)
            with translated(self._of.url(home)):
                await pipe.execute()
        return copied

    async def _copy_certificates(self) -> None:
        with translated(self._url):
            found = await self._old.zrange(self._keys.client_certificates, 0, -1, withscores=True)
        for home, some in self._by_home(found, lambda one: one[0].decode().partition(" ")[0]).items():
            with translated(self._of.url(home)):
                for part in in_parts(some, lambda _: 2):
                    await self._client(home).zadd(
                        self._of.keys[home].client_certificates, dict(part), nx=True
                    )

    async def _copy_stopped(self) -> int:
        """Endpoints that the operator stopped, which are listed for ever, without what is known of their health."""
        with translated(self._url):
            ids = [id_.decode() for id_ in await self._old.zrangebyscore(self._keys.endpoints, "inf", "inf")]
        records = await self._hashes([self._keys.endpoint(id_) for id_ in ids])
        stopped = [(id_, h) for id_, h in zip(ids, records, strict=True) if b"stopped" in h and b"name" in h]
        copied = 0
        for home, some in self._by_home(stopped, lambda one: _owner(one[1])).items():
            keys = self._of.keys[home]
            kept = [(id_, {field: h[field] for field in (b"name", b"stopped")}) for id_, h in some]
            copied += await self._put(home, [(keys.endpoint(id_), fields) for id_, fields in kept])
            with translated(self._of.url(home)):
                for part in in_parts(kept, lambda _: 2):  # not those that were there, stopped or not
                    await self._client(home).zadd(keys.endpoints, {id_: "inf" for id_, _ in part}, nx=True)
        return copied

    async def _hashes(self, keys: Sequence[str]) -> list[dict[bytes, bytes]]:
        found: list[dict[bytes, bytes]] = []
        for first in range(0, len(keys), AT_ONCE):
            pipe = self._old.pipeline(transaction=False)
            for key in keys[first : first + AT_ONCE]:
                pipe.hgetall(key)
            with translated(self._url):
                found += await pipe.execute()
        return found

    async def _put(self, home: int, records: Sequence[tuple[str, dict[bytes, bytes]]]) -> int:
        """Writes each record, whole, unless there is one; returns how many were written."""
        pipe = self._client(home).pipeline(transaction=True)
        given = [(key, fields) for key, fields in records if fields]  # else removed meanwhile
        for key, fields in given:
            pipe.hset(f"{key}.copy", mapping=fields)
            pipe.renamenx(f"{key}.copy", key)
            pipe.delete(f"{key}.copy")
        with translated(self._of.url(home)):
            return sum((await pipe.execute())[1::3]) if given else 0

    def _client(self, n: int) -> Any:
        return self._of.servers.client(n)

    def _by_home(self, values: Iterable[Any], of: Callable[[Any], str]) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = {}
        for value in values:
            found.setdefault(self._of.partitioning.home(of(value)), []).append(value)
        return found


def _owner(record: dict[bytes, bytes]) -> str:
    """The workspace of an endpoint's record."""
    return EndpointName.parse(record[b"name"].decode(errors="replace")).workspace
