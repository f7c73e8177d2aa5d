"""Reads rejected queue entries, which are kept for inspection and requeueing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio
import structlog

from dispatcher.model import is_time, iso
from dispatcher.store.command_parts import in_parts
from dispatcher.store.connection import translated
from dispatcher.store.damaged import naming, number, of_type
from dispatcher.store.keys import Keys

FIELDS = {"entry", "at", "reason", "detail", "workspace", "eventId", "raw"}
"""The fields that our scripts write for each."""
READ_AT_ONCE = 200
"""Entries per round trip; each may have 64 kB."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RejectedEntry:
    """A queue entry that could not be used."""

    id: str
    entry: str
    at_ms: int
    reason: str
    detail: str
    workspace: str | None
    event_id: str | None
    raw: str = field(repr=False)

    def as_json(self, *, reveal: bool = False) -> dict[str, Any]:
        """The document that `rejected list --json` prints; with the raw entry only if `reveal`."""
        shown = {"raw": self.raw} if reveal else {}
        return shown | {
            "id": self.id,
            "entry": self.entry,
            "at": iso(self.at_ms),
            "reason": self.reason,
            "detail": self.detail,
            "workspace": self.workspace,
            "eventId": self.event_id,
        }


class Rejected:
    """Reads and removes rejected entries. Every method raises RedisUnavailable."""

    def __init__(self, client: "redis.asyncio.Redis", keys: Keys, url: str = "") -> None:
        self._client: Any = client
        self._keys = keys
        self._url = url

    async def newest(
        self,
        limit: int = 100,
        match: Callable[[RejectedEntry], bool] = lambda _: True,
        most: int | None = None,
    ) -> list[RejectedEntry]:
        """The newest rejected entries that match, newest first; among the newest `most` of each partition, if that is given."""
        chosen: list[RejectedEntry] = []
        until, looked_at = "+", 0
        while len(chosen) < limit and (most is None or looked_at < most):
            with translated(self._url):
                asked = self._client.xrevrange(self._keys.rejected, max=until, count=READ_AT_ONCE)
                found = await of_type(asked, self._keys.rejected, [])
            entries = [_rejected(id_.decode(), fields) for id_, fields in found]
            looked_at += len(found)
            chosen += [entry for entry in entries if entry and match(entry)]
            if len(found) < READ_AT_ONCE:
                break
            until = f"({found[-1][0].decode()}"
        return chosen[:limit]

    async def remove(self, ids: Sequence[str]) -> int:
        """Removes rejected entries, by their ids in `rejected`; returns how many were still there."""
        with translated(self._url):
            return sum([await self._client.xdel(self._keys.rejected, *some) for some in in_parts(ids)])

    async def counts(self, *, strict: bool = False) -> dict[str, int]:
        """How many entries were ever rejected, by reason.

        None if their key is of another type, which is logged, or `strict`, raises ResponseError, which names it.
        """
        asked, key = self._client.hgetall(self._keys.rejected_counts), self._keys.rejected_counts
        with translated(self._url), naming(key):
            counts = await (asked if strict else of_type(asked, key, {}))
        return {reason.decode(errors="replace"): number(count) for reason, count in sorted(counts.items())}


def _rejected(id_: str, fields: dict[bytes, bytes]) -> RejectedEntry | None:
    """Parses a rejected entry. One that our scripts did not write is logged and gives None: it must not hide others."""
    h = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in fields.items()}
    if not h.keys() >= FIELDS or not (h["at"].isdigit() and is_time(int(h["at"][:20]))):
        log.error("rejected.unreadable", entry=id_, action="XDEL it from `rejected`")
        return None
    return RejectedEntry(
        id_,
        h["entry"],
        int(h["at"]),
        h["reason"],
        h["detail"],
        h["workspace"] or None,
        h["eventId"] or None,
        h["raw"],
    )
