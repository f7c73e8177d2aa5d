"""Reads what became of status changes: from Redis, and from the archive what Redis has forgotten."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from dispatcher.errors import ArchiveUnavailable
from dispatcher.store.archive.archive import Archive
from dispatcher.store.archive.archived_callback import ArchivedCallback
from dispatcher.store.archive.ends import read
from dispatcher.store.callbacks import Callbacks
from dispatcher.store.stored_callback import StoredCallback

Away = Callable[[ArchiveUnavailable], None]
"""What is called where the archive does not answer, which then counts as empty."""


class History(Protocol):
    """What `Callbacks` and `CallbacksAndArchive` have in common."""

    async def get(self, workspace: str, event_id: str) -> StoredCallback | None:
        """As Callbacks.get."""

    async def others(self, callback: StoredCallback) -> list[StoredCallback]:
        """As Callbacks.others."""

    async def of_message(self, workspace: str, uuid: str, last: int = 0) -> list[StoredCallback]:
        """As Callbacks.of_message."""

    async def has_body(self, callback: StoredCallback) -> bool:
        """As Callbacks.has_body."""


class CallbacksAndArchive:
    """As Callbacks; raises ArchiveUnavailable too, unless `away` is given. What both have is as Redis has it, where it may go on."""

    def __init__(self, in_redis: Callbacks, archive: Archive, away: Away | None = None) -> None:
        self._in_redis = in_redis
        self._archive = archive
        self._away = away

    async def get(self, workspace: str, event_id: str) -> StoredCallback | None:
        """As Callbacks.get."""
        if found := await self._in_redis.get(workspace, event_id):
            return found
        archived = await self._kept(self._archive.get([(workspace, event_id)]))
        return archived[-1] if archived else None

    async def others(self, callback: StoredCallback) -> list[StoredCallback]:
        """As Callbacks.others."""
        found = {one.event_id: one for one in await self._in_redis.others(callback)}
        missing = {f"{callback.event_id}.{one}" for one in callback.others} - found.keys()
        if missing:
            ids = [(callback.workspace, one) for one in sorted(missing)]
            found |= {one.event_id: one for one in await self._kept(self._archive.get(ids))}
        return [found[id_] for id_ in sorted(found)]

    async def of_message(self, workspace: str, uuid: str, last: int = 0) -> list[StoredCallback]:
        """As Callbacks.of_message."""
        found = await self._in_redis.of_message(
            workspace, uuid, last
        )  # first: it goes from there to the archive
        archived = {one.event_id: one for one in await self._kept(self._archive.of_message(workspace, uuid))}
        known = {one.event_id for one in found}
        earlier = [one for id_, one in archived.items() if id_ not in known]
        return sorted([*earlier, *found], key=lambda one: one.accepted_ms)[-last:]

    async def has_body(self, callback: StoredCallback) -> bool:
        """As Callbacks.has_body."""
        if await self._in_redis.has_body(callback):
            return True
        try:
            found = await self._archive.get([(callback.workspace, callback.event_id)])
        except ArchiveUnavailable as error:
            if self._away is None:
                raise
            self._away(error)
            return False
        return bool(found) and found[-1].body is not None

    async def _kept(self, asked: Awaitable[list[ArchivedCallback]]) -> list[StoredCallback]:
        try:
            return [shown for one in await asked if (shown := read(one))]
        except ArchiveUnavailable as error:
            if self._away is None:
                raise
            self._away(error)
            return []
