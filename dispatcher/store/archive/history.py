"""Reads what became of status changes: from Redis, and from the archive what Redis has forgotten."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from dispatcher.rules.outcomes import State
from dispatcher.store.archive.archive import After, Archive
from dispatcher.store.archive.archived_callback import ArchivedCallback
from dispatcher.store.callbacks import Callbacks, stored
from dispatcher.store.entry import read_entry
from dispatcher.store.stored_callback import StoredCallback

PAGE = 500
"""Callbacks that are read from the archive at once."""
FOREVER_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""


class History(Protocol):
    """What `Callbacks` and `CallbacksAndArchive` have in common."""

    async def get(self, workspace: str, event_id: str) -> StoredCallback | None:
        """As Callbacks.get."""

    async def others(self, callback: StoredCallback) -> list[StoredCallback]:
        """As Callbacks.others."""

    async def of_message(self, workspace: str, uuid: str, last: int = 0) -> list[StoredCallback]:
        """As Callbacks.of_message."""

    def ended(
        self, workspaces: Sequence[str], state: State, since_ms: int = 0, until_ms: int | None = None
    ) -> AsyncIterator[StoredCallback]:
        """As Callbacks.ended."""

    async def has_body(self, callback: StoredCallback) -> bool:
        """As Callbacks.has_body."""


class CallbacksAndArchive:
    """As Callbacks; raises ArchiveUnavailable too. What both have is as Redis has it, where it may go on."""

    def __init__(self, in_redis: Callbacks, archive: Archive) -> None:
        self._in_redis = in_redis
        self._archive = archive

    async def get(self, workspace: str, event_id: str) -> StoredCallback | None:
        """As Callbacks.get."""
        if found := await self._in_redis.get(workspace, event_id):
            return found
        return next(map(_read, await self._archive.get([(workspace, event_id)])), None)

    async def others(self, callback: StoredCallback) -> list[StoredCallback]:
        """As Callbacks.others."""
        found = {one.event_id: one for one in await self._in_redis.others(callback)}
        missing = {f"{callback.event_id}.{one}" for one in callback.others} - found.keys()
        if missing:
            kept = await self._archive.get([(callback.workspace, one) for one in sorted(missing)])
            found |= {one.event_id: one for one in map(_read, kept)}
        return [found[id_] for id_ in sorted(found)]

    async def of_message(self, workspace: str, uuid: str, last: int = 0) -> list[StoredCallback]:
        """As Callbacks.of_message."""
        archived = {one.id: _read(one) for one in await self._archive.of_message(workspace, uuid)}
        found = await self._in_redis.of_message(workspace, uuid, last)
        known = {one.event_id for one in found}
        earlier = [one for id_, one in archived.items() if id_ not in known]
        return sorted([*earlier, *found], key=lambda one: one.accepted_ms)[-last:]

    async def has_body(self, callback: StoredCallback) -> bool:
        """As Callbacks.has_body."""
        if await self._in_redis.has_body(callback):
            return True
        found = await self._archive.get([(callback.workspace, callback.event_id)])
        return any(one.body is not None for one in found)

    async def ended(
        self, workspaces: Sequence[str], state: State, since_ms: int = 0, until_ms: int | None = None
    ) -> AsyncIterator[StoredCallback]:
        """As Callbacks.ended."""
        until = FOREVER_MS if until_ms is None else until_ms
        rows = (
            self._in_redis.ended(workspaces, state, since_ms, until_ms),
            archived(self._archive, workspaces, state.value, since_ms, until),
        )
        heads = [await anext(row, None) for row in rows]
        shown: set[tuple[str, str]] = set()
        """Of those that ended at the same time as the last one."""
        ended_ms: int | None = None
        while any(heads):
            newest = heads.index(
                max((one for one in heads if one), key=_place)
            )  # of two alike, that of Redis
            one = heads[newest]
            assert one
            if one.ended_ms != ended_ms:
                shown, ended_ms = set(), one.ended_ms
            if (one.workspace, one.event_id) not in shown:
                yield one
            shown.add((one.workspace, one.event_id))
            heads[newest] = await anext(rows[newest], None)


async def archived(
    archive: Archive, workspaces: Sequence[str] | None, state: str, since_ms: int, until_ms: int
) -> AsyncIterator[StoredCallback]:
    """What the archive has of workspaces (None: of all) that ended in a state (empty: any) between two times, latest first."""
    after: After | None = None
    while True:
        page = await archive.ended(workspaces, state, since_ms, until_ms, after, PAGE)
        for one in page:
            yield _read(one)
        if len(page) < PAGE:
            return
        after = page[-1].ended_ms, page[-1].workspace, page[-1].id


def _read(one: ArchivedCallback) -> StoredCallback:
    return stored(
        one.key, read_entry(one.entry()), one.endpoint_name.encode() or None, None, None, one.answer
    )


def _place(one: StoredCallback) -> tuple[int, str, str]:
    return one.ended_ms or 0, one.workspace, one.event_id
