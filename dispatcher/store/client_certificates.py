"""When the client certificates of subscriptions end: in one zset, so that nobody has to read all workspaces for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from dispatcher.rules.client_certificate import WARN_DAYS
from dispatcher.rules.subscription import DEFAULT
from dispatcher.rules.workspace import Workspace
from dispatcher.store.connection import translated
from dispatcher.store.damaged import naming
from dispatcher.store.keys import Keys

MOST_SHOWN = 100
"""Most certificates that are named at once."""

WARN_MS = WARN_DAYS * 86_400_000


@dataclass(frozen=True, slots=True)
class EndingCertificate:
    """A client certificate that ends soon, or has ended."""

    workspace: str
    subscription: str
    ends_ms: int


class ClientCertificates:
    """Reads when client certificates end. `Workspaces.write` keeps it."""

    def __init__(self, client: "redis.asyncio.Redis", keys: Keys, url: str = "") -> None:
        self._client: Any = client
        self._keys = keys
        self._url = url

    async def ending(self, now_ms: int) -> list[EndingCertificate]:
        """Those that end within WARN_DAYS or have ended, the first first; at most MOST_SHOWN. Raises RedisUnavailable.

        If there are more, those that ended first are left out.
        """
        key, until = self._keys.client_certificates, now_ms + WARN_MS
        with translated(self._url), naming(key):
            soon = await self._client.zrangebyscore(key, now_ms, until, 0, MOST_SHOWN, withscores=True)
            left = MOST_SHOWN - len(soon)
            ended = await self._client.zrevrangebyscore(key, f"({now_ms}", "-inf", 0, left, withscores=True)
        found = [*reversed(ended), *soon]
        names = [member.decode(errors="replace").partition(" ") for member, _ in found]
        return [
            EndingCertificate(of, name, int(ends))
            for (of, _, name), (_, ends) in zip(names, found, strict=True)
        ]


def ends_of(workspace: Workspace | None) -> Mapping[str, int | None]:
    """The members of the zset for each subscription of a workspace; None: it has no certificate, or cannot be unsealed."""
    if workspace is None:
        return {}
    receivers = {DEFAULT: workspace, **workspace.subscriptions}
    return {
        f"{workspace.id} {name}": of.client_certificate.ends_ms if of.client_certificate else None
        for name, of in receivers.items()
    }
