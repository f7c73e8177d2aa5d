"""The endpoints of one workspace or subscription: what waits for them, and in which states they are. One scan of all."""

from dataclasses import dataclass
from typing import Any

import redis.asyncio

from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.damaged import number, reply
from dispatcher.store.keys import Keys

READ_AT_ONCE = 500
"""Endpoints read per round trip."""


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
