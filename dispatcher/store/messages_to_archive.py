"""Messages that the archive is to look at: the scripts note each of them, with when, and whoever leads the partition takes it from there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dispatcher.store import damaged
from dispatcher.store.by_score import members
from dispatcher.store.command_parts import in_parts
from dispatcher.store.connection import translated
from dispatcher.store.keys import Keys
from dispatcher.store.wire import Argument, PartitionWire

Place = tuple[str, str]
"""A workspace and a message."""


@dataclass(frozen=True, slots=True)
class Due:
    """A message whose time has come."""

    workspace: str
    uuid: str
    at_ms: int
    """Since when, by Redis's clock: when it got its final status, if it has one."""
    record: bytes
    """Empty: it has none any more."""
    platform: str
    """Of its workspace; empty if there is none any more."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """What Redis is to do about a message, as lua/retire_messages.lua takes it."""

    workspace: str
    uuid: str
    record: bytes
    what: str | int
    lists: Sequence[tuple[str, str]] = ()
    """Kind and name of each list that leads to it."""

    def arguments(self) -> Iterable[Argument]:
        """Those of the script."""
        yield from (self.workspace, self.uuid, self.record, self.what, len(self.lists))
        for kind, which in self.lists:
            yield from (kind, which)


class MessagesToArchive:
    """Reads one partition; `Ledger.retire_messages` takes them out. Every method raises RedisUnavailable."""

    def __init__(self, wire: PartitionWire, keys: Keys, url: str = "") -> None:
        self._wire = wire
        self._keys = keys
        self._url = url

    async def batch(self, until_ms: int, count: int) -> list[Due]:
        """Those whose time came first, up to `until_ms` (Redis's clock), at most so many."""
        with translated(self._url):
            found = await self._wire.call(
                "ZRANGEBYSCORE", self._keys.status_due, "-inf", until_ms, "WITHSCORES", "LIMIT", 0, count
            )
        noted = {_place(member): damaged.time_ms(at) for member, at in members(found)}
        platforms = await self._platforms(sorted({workspace for workspace, _ in noted}))
        records: list[bytes | None] = []
        for some in in_parts([*noted]):
            with translated(self._url):
                records += await self._wire.call("MGET", *(self._keys.status(*place) for place in some))
        return [
            Due(*place, noted[place], record or b"", platforms[place[0]])
            for place, record in zip(noted, records, strict=True)
        ]

    async def of_customers(self, names: Sequence[Place]) -> list[str]:
        """The messages that got ids of their customer last: workspace, and `channel:id`; empty where none is known."""
        keys = [f"{self._keys.root}status-customer:{workspace}:{which}" for workspace, which in names]
        found: list[bytes | None] = []
        for some in in_parts(keys):
            with translated(self._url):
                found += await self._wire.call("MGET", *some)
        return [(one or b"").decode(errors="replace") for one in found]

    async def left_ms(self, places: Sequence[Place]) -> list[int]:
        """For how long Redis still keeps the records of messages; 0 for one that is gone."""
        with translated(self._url):
            found = await self._wire.call_all([("PTTL", self._keys.status(*place)) for place in places])
        return [max(reply, 0) if isinstance(reply, int) else 0 for reply in found]

    async def _platforms(self, workspaces: Sequence[str]) -> dict[str, str]:
        with translated(self._url):
            found = await self._wire.call_all(
                [("HGET", self._keys.workspace(one), "dialect") for one in workspaces]
            )
        return {
            one: reply.decode(errors="replace") if isinstance(reply, bytes) else ""
            for one, reply in zip(workspaces, found, strict=True)
        }


def _place(member: bytes) -> Place:
    workspace, _, uuid = member.decode(errors="replace").partition(" ")
    return workspace, uuid
