"""Puts a callback that only the archive has back into Redis, as it was, so that it can be replayed."""

from dispatcher.store.archive.archived_callback import ArchivedCallback
from dispatcher.store.keys import Keys
from dispatcher.store.wire import Call


async def restore(call: Call, keys: Keys, retention_ms: int, one: ArchivedCallback) -> None:
    """Writes what is not there, the entry last: until then Redis does not know it, and a run that breaks off is repeated."""
    workspace, id_ = one.key
    for key, value in ((keys.body(*one.key), one.body), (keys.answer(*one.key), one.answer)):
        if value is not None:
            await call("SET", key, value, "PX", retention_ms, "NX")
    record = keys.endpoint(one.endpoint)
    if await call("HSETNX", record, "name", one.endpoint_name) and await call("HLEN", record) == 1:
        await call("PEXPIRE", record, retention_ms)  # until a callback is accepted, which makes it longer
    message = keys.message(workspace, one.message)
    if not await call("SET", message, id_, "PX", retention_ms, "NX"):
        known = (await call("GET", message) or b"").decode(errors="replace").split()
        if id_ not in known:
            await call("APPEND", message, f" {id_}")
            if await call("PTTL", message) < retention_ms:
                await call("PEXPIRE", message, retention_ms)
    await call("SET", keys.event(*one.key), one.entry(), "PX", retention_ms, "NX")
