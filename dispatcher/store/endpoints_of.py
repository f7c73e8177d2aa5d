"""The endpoints of one workspace or subscription: what waits for them, and in which states they are. One scan of all."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from dispatcher.errors import InvalidInput
from dispatcher.rules.endpoint_name import EndpointName, subscription_of
from dispatcher.store.command_parts import in_parts
from dispatcher.store.damaged import naming, number, reply
from dispatcher.store.entry import read_entry
from dispatcher.store.keys import Keys

READ_AT_ONCE = 500
"""Endpoints read per round trip."""
LOOKED_AT_ONCE = 5000
"""Callbacks that have not ended, of all workspaces, looked at per round trip."""


@dataclass(frozen=True, slots=True)
class Owned:
    """An endpoint of a workspace."""

    id: str
    subscription: str
    """Empty: the default one's, or of a URL that came with status changes."""
    waiting: int
    """Callbacks that have not ended."""
    is_stopped: bool
    """By the operator."""
    has_failed: bool
    """Whether an attempt ever failed."""


async def endpoints_of(
    workspace: str, client: "redis.asyncio.Redis", keys: Keys, subscription: str | None = None
) -> list[Owned]:
    """The endpoints of a workspace, or of one subscription (empty: the default one)."""
    found: dict[str, Owned] = {}  # a scan may give one twice
    cursor: Any = None
    while cursor != 0:
        page: Any
        with naming(keys.endpoints):
            cursor, page = await client.zscan(keys.endpoints, cursor or 0, count=READ_AT_ONCE)
        ids = [id_.decode(errors="replace") for id_, _ in page]
        pipe = client.pipeline(transaction=False)
        for id_ in ids:
            pipe.hmget(keys.endpoint(id_), ["name", "waiting", "stopped", "failing"])
        for id_, fields in zip(ids, await pipe.execute(raise_on_error=False), strict=True):
            name, waiting, stopped, failing = reply(fields, keys.endpoint(id_), (None,) * 4)
            called = EndpointName.parse((name or b"").decode(errors="replace"))
            if called.workspace == workspace and subscription in (None, called.subscription):
                found[id_] = Owned(id_, called.subscription, number(waiting), bool(stopped), bool(failing))
    return list(found.values())


async def pending_of(
    workspace: str, client: "redis.asyncio.Redis", keys: Keys, subscription: str | None = None
) -> Counter[str]:
    """How many callbacks wait for each endpoint (id) of a workspace, or of one subscription, listed or not.

    By the callbacks themselves: it looks at all that have not ended, and reads those of the workspace.
    """
    scanned: Any = client.zscan_iter(keys.expiries, match=f"{workspace}:*", count=LOOKED_AT_ONCE)
    with naming(keys.expiries):
        ids = {member.decode(errors="replace").partition(":")[2]: None async for member, _ in scanned}
    own = [id_ for id_ in ids if subscription in (None, subscription_of(id_))]
    found: Counter[str] = Counter()
    for some in in_parts(own):
        entries: Any = await client.mget([keys.event(workspace, id_) for id_ in some])
        for raw in entries:
            with suppress(InvalidInput):  # written over by hand: it cannot be sent
                if raw and not (entry := read_entry(raw)).ended:
                    found[entry.endpoint] += 1
    return found
