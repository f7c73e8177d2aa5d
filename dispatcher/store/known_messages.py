"""What one partition knows of status changes that came to another one: the eventId, the message, or what still waits on its queue."""

from collections.abc import Callable, Sequence
from typing import Any

from dispatcher.errors import InvalidInput
from dispatcher.fast_decode import Change, status_change
from dispatcher.store.connection import translated
from dispatcher.store.fingerprints import Table, id_of_message, look_ups, read_tables
from dispatcher.store.keys import Keys
from dispatcher.store.wire import Argument, PartitionWire

LOOKED_AT_ONCE = 1000
"""Queue entries that one call looks at."""


class KnownMessages:
    """Asks one partition, whose keys are `keys`."""

    def __init__(self, wire: PartitionWire, keys: Keys, url: str = "") -> None:
        self._wire = wire
        self._keys = keys
        self._url = url

    async def known(self, changes: Sequence[Change]) -> list[bool]:
        """Of each change, whether its eventId or its message is known there; one round trip. Raises RedisUnavailable.

        Another one where callbacks have been retired.
        """
        if not changes:
            return []
        asked = [("EXISTS", *self._keys_of(one)) for one in changes]
        # what is retired between the two has its fingerprint by then
        *found, stored, tables = await self._all(
            [*asked, ("GET", self._keys.format), ("HGETALL", self._keys.fingerprints)]
        )
        self._require_own(stored)
        known = [reply > 0 for reply in found]
        return await self._or_retired(changes, known, read_tables(tables)) if tables else known

    def _require_own(self, stored: bytes | None) -> None:
        """Raises RedisUnavailable if, by its format, what was asked is not where the messages would be."""

    async def _or_retired(
        self, changes: Sequence[Change], known: Sequence[bool], tables: Sequence[Table]
    ) -> list[bool]:
        """The same, with those whose eventId or message has a fingerprint."""
        of_each = [
            []
            if is_known
            else [
                *look_ups(self._keys, tables, one.workspace, one.event_id),
                *look_ups(self._keys, tables, one.workspace, id_of_message(one.message.uuid)),
            ]
            for one, is_known in zip(changes, known, strict=True)
        ]
        replies = iter(await self._all([command for commands in of_each for command in commands]))
        retired = [1 in [next(replies) for _ in commands] for commands in of_each]
        return [is_known or is_retired for is_known, is_retired in zip(known, retired, strict=True)]

    async def are_forwarded(self, names: Sequence[str]) -> list[bool]:
        """Of entries (as lua/forward.lua remembers them), whether they were forwarded there; one round trip. Raises RedisUnavailable."""
        found = await self._all([("ZSCORE", self._keys.forwarded, name) for name in names])
        return [reply is not None for reply in found]

    async def _all(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        if not commands:
            return []
        with translated(self._url):
            found = await self._wire.call_all(commands)
            for reply in found:
                if isinstance(reply, BaseException):
                    raise reply
        return found

    async def ping(self) -> None:
        """Returns if its server answers. Raises RedisUnavailable."""
        with translated(self._url):
            await self._wire.call("PING")

    async def width(self, workspace: str) -> int:
        """The width that the workspace's record there has; 0 if there is none. Raises RedisUnavailable."""
        with translated(self._url):
            kept, width = await self._wire.call("HMGET", self._keys.workspace(workspace), "revision", "width")
        return int(width or 1) if kept else 0

    async def look_for(
        self, workspace: str, counts: Callable[[str], bool], start: str, until_ms: int
    ) -> str | None:
        """Looks on the queue for status changes of a workspace's messages (uuids) that count, from the place `start` to `until_ms`.

        Looks at LOOKED_AT_ONCE entries. Returns where to look from next time; None: there are none. Raises RedisUnavailable.
        """
        named = f'"{workspace}"'.encode()  # what has escapes is decoded, too: a name may be written with them
        with translated(self._url):
            entries = await self._wire.call(
                "XRANGE", self._keys.events, start, until_ms, "COUNT", LOOKED_AT_ONCE
            )
        for entry_id, fields in entries:
            told = (_message(workspace, one) for one in fields[1::2] if named in one or b"\\u" in one)
            if any(uuid is not None and counts(uuid) for uuid in told):
                return str(entry_id.decode())
        return f"({entries[-1][0].decode()}" if len(entries) == LOOKED_AT_ONCE else None

    def _keys_of(self, change: Change) -> tuple[str, ...]:
        keys, workspace, uuid = self._keys, change.workspace, change.message.uuid
        return (
            keys.event(workspace, change.event_id),
            keys.message(workspace, uuid),
            keys.status(workspace, uuid),
        )


def _message(workspace: str, raw: bytes) -> str | None:
    """The message of a queue entry's status change, if it is of this workspace."""
    try:
        change = status_change(raw)
    except InvalidInput:  # it will be rejected
        return None
    return change.message.uuid if change.workspace == workspace else None
