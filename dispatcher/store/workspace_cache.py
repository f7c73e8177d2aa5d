"""Workspaces as a worker last read them, so that a callback costs no read of its customer's settings."""

import asyncio

from dispatcher.rules.workspace import Workspace
from dispatcher.store.workspaces import Workspaces


class WorkspaceCache:
    """Workspaces as last read; one whose revision differs is read again, once for all who wait. An unknown one is not kept."""

    def __init__(self, workspaces: Workspaces) -> None:
        self._workspaces = workspaces
        self._known: dict[str, tuple[Workspace, set[str | None]]] = {}
        """With the revisions that it is at least as new as."""
        self._reads: dict[str, tuple[str | None, asyncio.Task[Workspace | None]]] = {}
        """The read of a workspace that is under way, with the revision that it was begun for."""

    async def get(self, workspace: str, revision: str | None = None) -> Workspace | None:
        """The workspace, at least as new as `revision` (None: as last read). Raises RedisUnavailable.

        Who asks for the same revision shares a read: it was begun after that revision was there. A read that fails is
        not kept, and one of those who wait may be cancelled without the others.
        """
        known, revisions = self._known.get(workspace, (None, set()))
        if known and (revision is None or revision in revisions):
            return known
        begun_for, read = self._reads.get(workspace, (None, None))
        if read is None or revision not in (None, begun_for):
            read = asyncio.create_task(self._read(workspace, revision))
            read.add_done_callback(_looked_at)
            self._reads[workspace] = revision, read
        return await asyncio.shield(read)

    async def _read(self, workspace: str, revision: str | None) -> Workspace | None:
        """Reads it; what is found is kept, unless a later read was begun or it was to be forgotten meanwhile."""
        try:
            found = await self._workspaces.get(workspace)
        finally:
            is_latest = self._reads.get(workspace, (None, None))[1] is asyncio.current_task()
            if is_latest:
                del self._reads[workspace]
        if is_latest and found:
            self._known[workspace] = found, {revision, found.revision}
        elif is_latest:
            self._known.pop(workspace, None)
        return found

    def forget(self, workspace: str) -> None:
        """Has the workspace read again at the next `get`."""
        self._known.pop(workspace, None)
        self._reads.pop(workspace, None)


def _looked_at(read: "asyncio.Task[Workspace | None]") -> None:
    """A failure is for those who waited; where nobody does any more, it is no health."""
    if not read.cancelled():
        read.exception()
