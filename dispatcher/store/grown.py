"""What is noted of an installation's growth, and whether its settings fit that."""

from dispatcher.errors import GrowthHasEnded, InvalidInput, OtherFormat, OtherSettings
from dispatcher.store import format
from dispatcher.store.connection import translated
from dispatcher.store.damaged import needed, needed_type
from dispatcher.store.keys import FORMAT_TEXT, grown_key
from dispatcher.store.servers import Servers

ENDED = " ended"
"""Behind the time in `grown`, once the previous Redis is not needed any more."""
BEGUN = "0"
"""In `grown` while it is copied: what the partitions have are copies."""
SET_IF = "return (redis.call('GET', KEYS[1]) or '') == ARGV[1] and redis.call('SET', KEYS[1], ARGV[2]) or 0"


async def require_grown(servers: Servers, prefix: str) -> None:
    """Checks that a previous Redis is set if one is in use, and only then.

    Raises OtherFormat if one is set that was not copied from or has ended, or one is in use and none is set; and RedisUnavailable.
    """
    found = await noted(servers, prefix)
    since_ms, has_ended = read(found)
    is_set = servers.partitioning.has_previous
    if found == BEGUN and not is_set:
        raise OtherSettings(
            "`dispatcher grow` broke off here, and what it has copied so far would be replaced: run it again, with "
            f"DISPATCHER_PREVIOUS_REDIS_URL, or delete {grown_key(prefix)} if this installation is not to grow from another one"
        )
    if is_set and has_ended:
        raise GrowthHasEnded("growth has ended: leave DISPATCHER_PREVIOUS_REDIS_URL out")
    if is_set and not since_ms:
        raise OtherFormat(
            "DISPATCHER_PREVIOUS_REDIS_URL is set, and nothing was copied from there yet: run `dispatcher grow` first "
            "(docs/partitions.md, From one Redis)"
        )
    if since_ms and not has_ended and not is_set:
        raise OtherSettings(
            "this installation has a previous Redis, which knows messages that are not over: set DISPATCHER_PREVIOUS_REDIS_URL "
            "(`dispatcher grow --end`, once `dispatcher check` says that all there is over, ends that)"
        )


async def require_previous(servers: Servers) -> None:
    """Checks that a previous Redis, if one is set, is the one that this installation has grown from.

    Raises OtherSettings, or PreviousUnavailable if it is empty (`format.require_previous`); and RedisUnavailable.
    """
    number = servers.partitioning.previous
    if number is not None:
        format.require_previous(await stored_format(servers, number), number)


async def stored_format(servers: Servers, number: int) -> str:
    """The format of the previous Redis, whole."""
    key = servers.keys[number].format
    with translated(servers.url(number)), needed_type(key):
        return needed(await servers.wire(number).call("GET", key), key, FORMAT_TEXT)


async def grown(servers: Servers, prefix: str) -> tuple[int, bool]:
    """When the installation grew, ms since 1970, or 0; and whether it needs the previous Redis no more."""
    return read(await noted(servers, prefix))


async def noted(servers: Servers, prefix: str) -> str:
    """What is noted of a growth; empty if there was none."""
    key = grown_key(prefix)
    with translated(servers.url(0)), needed_type(key):
        return needed(await servers.call_for(key, "GET", key), key, rf"(\d{{1,18}}({ENDED})?)?")


def read(found: str) -> tuple[int, bool]:
    """What is noted, as `grown` gives it."""
    return int(found.removesuffix(ENDED) or 0), found.endswith(ENDED)


async def note(servers: Servers, prefix: str, before: str, value: str) -> None:
    """Notes something else. Raises InvalidInput if what is noted is not as `before`."""
    key = grown_key(prefix)
    with translated(servers.url(0)):
        if not await servers.call_for(key, "EVAL", SET_IF, 1, key, before, value):
            raise InvalidInput(f"{key} was changed meanwhile: run `dispatcher grow` again")
