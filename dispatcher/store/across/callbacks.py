"""Reads callbacks of an installation with several partitions."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from dispatcher.rules.outcomes import State
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.across.without_previous import without_previous
from dispatcher.store.callbacks import PAGE, Callbacks, Id, Passed, Place
from dispatcher.store.endpoints import Endpoint
from dispatcher.store.stored_callback import Pending, StoredCallback

LEAST_PAGE = 20

T = TypeVar("T")


class CallbacksAcross(Callbacks):
    """As Callbacks, of all partitions."""

    def __init__(self, partitions: Partitions) -> None:
        page = max(
            LEAST_PAGE, PAGE // len(partitions.keys)
        )  # a list that is merged starts with a page of each
        self._partitions = partitions
        self._at = partitions.readers(lambda client, keys, url: Callbacks(client, keys, url, page))

    async def get(self, workspace: str, event_id: str) -> StoredCallback | None:
        """As Callbacks.get."""
        found = await self._known(workspace, lambda n: self._at(n).get(workspace, event_id))
        return found[0] if found else None

    async def _known(self, workspace: str, ask: Callable[[int], Awaitable[T | None]]) -> list[T]:
        """What is known of one message; the previous Redis is not needed for what the partitions have."""
        there = await without_previous(self._partitions, workspace, ask)
        return (
            await self._partitions.known(workspace, ask) if there is None else [one for one in there if one]
        )

    async def known(self, ids: Sequence[Id]) -> list[StoredCallback]:
        """As Callbacks.known."""
        of: dict[str, list[Id]] = {}
        for one in ids:
            of.setdefault(one[0], []).append(one)
        return [one for name, some in of.items() for one in await self._of(name, some)]

    async def _of(self, workspace: str, ids: Sequence[Id]) -> list[StoredCallback]:
        found = await self._partitions.for_workspace(workspace, lambda n: self._at(n).known(ids))
        return [one for some in found for one in some]

    async def others(self, callback: StoredCallback) -> list[StoredCallback]:
        """As Callbacks.others."""
        found = await self._partitions.for_workspace(
            callback.workspace, lambda n: self._at(n).others(callback)
        )
        return sorted((one for some in found for one in some), key=lambda one: one.event_id)

    async def of_message(self, workspace: str, uuid: str, last: int = 0) -> list[StoredCallback]:
        """As Callbacks.of_message."""
        some = await self._known(workspace, lambda n: self._at(n).of_message(workspace, uuid, last))
        if len(some) > 1:  # the workspace's width was changed meanwhile
            return sorted((one for of in some for one in of), key=lambda one: one.accepted_ms)[-last:]
        return some[0] if some else []

    async def waiting(
        self, workspace: str | None = None, endpoint: str | None = None, since_ms: int = 0
    ) -> AsyncIterator[StoredCallback | Passed]:
        """As Callbacks.waiting."""
        asked = await self._partitions.of(workspace) if workspace else self._partitions.all
        streams = {n: self._at(n).waiting(workspace, endpoint, since_ms) for n in asked}
        async for one in self._partitions.merged(streams, lambda one: one.expires_ms):
            yield one

    async def pending(self, workspace: str, endpoint: str | None = None) -> AsyncIterator[Pending]:
        """As Callbacks.pending; partition by partition."""
        for n in await self._partitions.of(workspace):
            await self._partitions.require(n)
            async for one in self._at(n).pending(workspace, endpoint):
                self._partitions.note_endpoint(one.endpoint, [n])
                yield one

    async def order(self, workspace: str, uuids: Sequence[str]) -> dict[str, list[str]]:
        """As Callbacks.order."""
        found: dict[str, list[str]] = {}
        for some in await self._partitions.for_workspace(
            workspace, lambda n: self._at(n).order(workspace, uuids)
        ):
            for uuid, ids in some.items():
                found[uuid] = found.get(uuid, []) + ids
        return found

    async def ended(
        self, workspaces: Sequence[str], state: State, since_ms: int = 0, until_ms: int | None = None
    ) -> AsyncIterator[StoredCallback]:
        """As Callbacks.ended."""
        streams = {
            n: self._at(n).ended(some, state, since_ms, until_ms)
            for n, some in (await self._of_each(workspaces)).items()
        }
        async for one in self._partitions.merged(streams, lambda one: -(one.ended_ms or 0)):
            yield one

    async def _of_each(self, workspaces: Sequence[str]) -> dict[int, list[str]]:
        """Which of the workspaces each partition has something of."""
        if len(workspaces) == 1:
            return {n: [*workspaces] for n in await self._partitions.of(workspaces[0])}
        found: dict[int, list[str]] = {}
        wide = await self._partitions.everywhere(self._partitions.names)
        for n, names in wide.items():
            some = [one for one in workspaces if one in names]
            if some:
                found[n] = some
        return found

    async def places(self, workspace: str | None) -> list[Place]:
        """As Callbacks.places. Raises RedisUnavailable if one of them does not answer."""
        of = self._partitions
        numbers = of.all if workspace is None else await of.of(workspace)
        for n in numbers:
            await of.require(n)
        return [self._place(n) for n in numbers]

    async def present_places(self, workspace: str | None) -> list[Place]:
        """As Callbacks.present_places."""
        of = self._partitions

        async def place(n: int) -> Place:
            await of.require(n)
            return self._place(n)

        if workspace is not None:
            return await of.for_workspace(workspace, place)
        return [*(await of.everywhere(place)).values()]

    def _place(self, n: int) -> Place:
        of = self._partitions
        return Place(of.servers.client(n), of.keys[n], of.url(n))

    async def has_body(self, callback: StoredCallback) -> bool:
        """As Callbacks.has_body."""
        return any(
            await self._partitions.for_workspace(callback.workspace, lambda n: self._at(n).has_body(callback))
        )

    async def before(self, callback: StoredCallback, endpoint: Endpoint) -> int:
        """As Callbacks.before."""
        return max(
            await self._partitions.for_workspace(
                callback.workspace, lambda n: self._at(n).before(callback, endpoint)
            )
        )
