"""The number of partitions, kept in Redis: a process that was given another one would look for everything in the wrong place.

It is under a key without a tag, which processes with any number find. On a cluster that key lies on one node; so it is also in the
registries, whose tags depend on the number: what is found there was written with the same one.
"""

from dispatcher.errors import OtherFormat, RedisUnavailable
from dispatcher.rules.partitions import another_number
from dispatcher.store.connection import translated
from dispatcher.store.keys import Keys, partitions_key
from dispatcher.store.members import registries
from dispatcher.store.servers import Servers


async def require_partitions(servers: Servers, prefix: str, *, keep: bool = False) -> None:
    """Compares the number of partitions, which are several, with the one that is kept; with `keep` stores it, if none is.

    Raises OtherFormat if it is another one, or if there are several and Redis holds an installation with one; and RedisUnavailable.
    """
    try:
        found = await _found(servers, prefix)
    except RedisUnavailable:
        if await _is_in_a_registry(servers):
            return
        raise
    count = len(servers.keys)
    if found not in (0, count):
        raise OtherFormat(another_number(found, count))
    if keep:
        await _keep(servers, prefix)


async def _found(servers: Servers, prefix: str) -> int:
    """The number of partitions of the installation in Redis; 0 if there is none."""
    with translated(servers.url(0)):
        found = await servers.call_for(partitions_key(prefix), "GET", partitions_key(prefix))
        if found:
            return int(found)
        single = Keys(prefix).format
        return int(await servers.call_for(single, "EXISTS", single))


async def _is_in_a_registry(servers: Servers) -> bool:
    for one in registries(len(servers.keys)):
        try:
            with translated(servers.url(one)):
                if await servers.wire(one).call("GET", servers.keys[one].count):
                    return True
        except RedisUnavailable:
            continue
    return False


async def _keep(servers: Servers, prefix: str) -> None:
    count = len(servers.keys)
    with translated(servers.url(0)):
        await servers.call_for(partitions_key(prefix), "SET", partitions_key(prefix), count, "NX")
    for one in registries(count):
        with translated(servers.url(one)):
            await servers.wire(one).call("SET", servers.keys[one].count, count)
