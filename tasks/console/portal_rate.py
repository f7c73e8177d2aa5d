"""Limits how often customers change something in the portal: each change is in the audit trail, which is bounded."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException

MOST, SECONDS = 30, 60.0
"""How many forms of the portal may be carried out for one workspace within so many seconds."""


class PortalRate:
    """When the latest forms of each workspace's customers were carried out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[str, deque[float]] = {}

    @contextmanager
    def one(self, workspace: str) -> Iterator[None]:
        """Counts one, unless it fails. Raises HTTPException (429) after too many."""
        self._forget()
        times = self._times.setdefault(workspace, deque())
        if len(times) >= MOST:
            raise HTTPException(429, f"that was {MOST} times within a minute: wait a little, and try again")
        at = self._clock()
        times.append(at)
        try:
            yield
        except BaseException:
            if at in times:
                times.remove(at)
            raise

    def _forget(self) -> None:
        """Forgets what is long ago, of all workspaces."""
        since = self._clock() - SECONDS
        for workspace, times in [*self._times.items()]:
            while times and times[0] <= since:
                times.popleft()
            if not times:
                del self._times[workspace]
