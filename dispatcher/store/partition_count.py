"""The number of partitions, kept in Redis: a process that was given another one would look for everything in the wrong place.

It is under a key without a tag, which processes with any number find. That key lies on one server; so the number is also in the
registries, for those that start while that server is away.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress

from dispatcher.errors import OtherSettings, RedisUnavailable
from dispatcher.rules.partitions import another_number
from dispatcher.store.connection import translated
from dispatcher.store.damaged import needed, needed_type
from dispatcher.store.keys import Keys, partitions_key
from dispatcher.store.members import registries
from dispatcher.store.servers import Servers

ANSWER_SECONDS = 2.0
"""How long a server may take to say which partitions it holds."""


async def require_partitions(
    servers: Servers, prefix: str, *, keep: bool = False, away: Collection[int] = ()
) -> None:
    """Compares the number of partitions, which are several, with the one that is kept; with `keep` stores it, if none is.

    Registries among `away`, the partitions that are known not to answer, are not asked.

    Raises OtherSettings if it is another one, or if there are several and Redis holds an installation with one; and
    RedisUnavailable.
    """
    count, in_registries = servers.partitioning.partitions, await _in_registries(servers, away)
    for one in in_registries.values():  # they come first: the other key may be on a server that is away
        _require(one, count)
    try:
        found = await _found(servers, prefix)
    except RedisUnavailable:
        if not any(in_registries.values()):
            raise
        found = count
    _require(found, count)
    if keep:
        await _keep(servers, prefix, is_kept=found == count, missing=in_registries)


async def require_places(servers: Servers, away: Collection[int] = ()) -> None:
    """Raises OtherSettings if one of several plain servers holds a partition that by the order of their list lies on another one.

    What the other one holds too is in its place: the list may name one server twice. Servers of partitions among `away`, and
    those that do not answer soon, are not asked.
    """
    of: dict[str, list[int]] = {}
    for one in range(servers.partitioning.partitions):
        of.setdefault(servers.node(one).name, []).append(one)
    asked = [name for name, some in of.items() if some[0] not in away]
    answers = await asyncio.gather(*(_held(servers, of[name][0]) for name in asked))
    held = dict(zip(asked, answers, strict=True))
    for name, some in held.items():
        if any(one not in held.get(servers.node(one).name, ()) for one in some):
            raise OtherSettings(
                f"server number {of[name][0] + 1} of DISPATCHER_REDIS_URL holds partitions that by this list lie on another: "
                "partition i is on server i mod n, so the list must stay as it was (docs/partitions.md)"
            )


async def _held(servers: Servers, partition: int) -> set[int]:
    """The partitions that the server of one of them holds; none if it does not answer soon."""
    own = range(servers.partitioning.partitions)
    with suppress(RedisUnavailable, TimeoutError), translated(servers.url(partition)):
        async with asyncio.timeout(ANSWER_SECONDS):
            found = await servers.wire(partition).call("MGET", *(servers.keys[one].format for one in own))
            return {one for one, number in zip(own, found, strict=True) if number is not None}
    return set()


def _require(found: int, count: int) -> None:
    if found not in (0, count):
        raise OtherSettings(another_number(found, count))


async def _found(servers: Servers, prefix: str) -> int:
    """The number of partitions of the installation in Redis; 0 if there is none."""
    key = partitions_key(prefix)
    with translated(servers.url(0)):
        with needed_type(key):
            found = needed(await servers.call_for(key, "GET", key), key)
        if found:
            return int(found)
        single = Keys(prefix).format
        if await servers.call_for(single, "EXISTS", single):
            return 1
    await _require_no_other(servers, single)
    return 0


async def _require_no_other(servers: Servers, key: str) -> None:
    """Raises OtherSettings if a plain server behind the first one has this key, which an installation with one partition has.

    Those that do not answer soon are passed over.
    """
    if servers.is_cluster:
        return
    first = {servers.node(n).name: n for n in reversed(range(servers.partitioning.partitions))}
    for n in sorted(first.values())[1:]:
        with suppress(RedisUnavailable, TimeoutError), translated(servers.url(n)):
            async with asyncio.timeout(ANSWER_SECONDS):
                if await servers.wire(n).call("EXISTS", key):
                    raise OtherSettings(
                        f"server number {n + 1} of DISPATCHER_REDIS_URL holds an installation with one partition. Is it the right "
                        "server, database and DISPATCHER_KEY_PREFIX? No other installation can begin there (docs/partitions.md)"
                    )


async def _in_registries(servers: Servers, away: Collection[int]) -> dict[int, int]:
    """The number that each registry holds, 0 if none; without those that do not answer."""
    found = {}
    for one in registries(servers.partitioning.partitions):
        if one in away:
            continue
        key = servers.keys[one].count
        with suppress(RedisUnavailable), translated(servers.url(one)), needed_type(key):
            found[one] = int(needed(await servers.wire(one).call("GET", key), key) or 0)
    return found


async def _keep(servers: Servers, prefix: str, *, is_kept: bool, missing: dict[int, int]) -> None:
    """Stores the number where it is missing. A registry that takes no writes now gets it from the next worker that starts."""
    count = servers.partitioning.partitions
    if not is_kept:
        with translated(servers.url(0)):
            is_first = await servers.call_for(
                partitions_key(prefix), "SET", partitions_key(prefix), count, "NX"
            )
        if not is_first:  # another process was, a moment ago
            _require(await _found(servers, prefix), count)
    for one, held in missing.items():
        if not held:
            with suppress(RedisUnavailable), translated(servers.url(one)):
                await servers.wire(one).call("SET", servers.keys[one].count, count)
