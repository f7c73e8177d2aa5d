"""Caches workspaces in a worker, so that a callback costs no read of its customer's settings."""

import asyncio
from collections import OrderedDict
from collections.abc import Collection

from dispatcher.rules.workspace import Workspace
from dispatcher.store.workspaces import Workspaces

MAX_KNOWN = 50_000
"""Most workspaces that a worker caches; each takes about a kilobyte."""


class WorkspaceCache:
    """Caches workspaces. Reads one again if its revision differs, once for all callers; does not cache unknown ones.

    Beyond `most` it forgets the one that it read first.
    """

    def __init__(self, workspaces: Workspaces, most: int = MAX_KNOWN) -> None:
        self._workspaces = workspaces
        self._most = most
        self._known: OrderedDict[str, tuple[Workspace, Collection[str | None]]] = OrderedDict()
        """Each workspace with the revisions that it is at least as new as; the one read last is last."""
        self._reads: dict[str, tuple[str | None, asyncio.Task[Workspace | None]]] = {}
        """The reads under way, each with the revision that it was begun for."""

    async def get(self, workspace: str, revision: str | None = None) -> Workspace | None:
        """The workspace, at least as new as `revision` (None: as last read). Raises RedisUnavailable.

        Callers that ask for the same revision share a read: it was begun after that revision existed. A failed read is
        not cached, and cancelling one caller does not affect the others.
        """
        known, revisions = self._known.get(workspace, (None, ()))
        if known and (revision is None or revision in revisions):
            return known
        begun_for, read = self._reads.get(workspace, (None, None))
        if read is None or revision not in (None, begun_for):
            read = asyncio.create_task(self._read(workspace, revision))
            read.add_done_callback(_looked_at)
            self._reads[workspace] = revision, read
        return await asyncio.shield(read)

    async def _read(self, workspace: str, revision: str | None) -> Workspace | None:
        """Reads a workspace and caches it, unless a later read was begun or `forget` was called meanwhile."""
        try:
            found = await self._workspaces.get(workspace)
        finally:
            is_latest = self._reads.get(workspace, (None, None))[1] is asyncio.current_task()
            if is_latest:
                del self._reads[workspace]
        if is_latest and found:
            self._known[workspace] = found, (revision, found.revision)
            self._known.move_to_end(workspace)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        elif is_latest:
            self._known.pop(workspace, None)
        return found

    def forget(self, workspace: str) -> None:
        """Makes the next `get` read the workspace again."""
        self._known.pop(workspace, None)
        self._reads.pop(workspace, None)


def _looked_at(read: "asyncio.Task[Workspace | None]") -> None:
    """Marks a failure as seen: the callers get it, and if all were cancelled, asyncio must not log it."""
    if not read.cancelled():
        read.exception()
