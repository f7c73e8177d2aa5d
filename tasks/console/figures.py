"""Counters by the hour, for plots over a day or a week: an hour that is over is read once."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from dispatcher.store.across.absent import Absent, apart, pass_on
from dispatcher.store.stats import HOUR_MS, Figures
from tasks import wiring

MOST_KEPT = 4000
"""Hours that are remembered, of one workspace or of all: some 3 kB each."""
LATE_MS = 120_000
"""How long after its end an hour may still change: an attempt that began in it may end later."""
CURRENT_SECONDS = 15.0
"""How long figures are shown that will change: of the hour that is not over, or read while a partition did not answer."""
AT_ONCE = 6


class HourFigures:
    """Reads hours, each once for all viewers."""

    def __init__(self, store: Callable[[], Awaitable[wiring.Store]]) -> None:
        self._store = store
        self._kept: OrderedDict[tuple[str, int], tuple[Figures, float]] = OrderedDict()
        self._all: asyncio.Task[None] | None = None
        self._wanted: list[int] = []

    async def of_workspace(self, workspace: str, now_ms: int, hours: int) -> list[Figures]:
        """The figures of the last hours of one workspace, the current one last."""
        store, last = await self._store(), now_ms // HOUR_MS
        numbers = range(last - hours + 1, last + 1)
        known = {number: one for number in numbers if (one := self._known(workspace, number)) is not None}
        missing = [number for number in numbers if number not in known]
        for first in range(0, len(missing), AT_ONCE):
            some = missing[first : first + AT_ONCE]
            read = [store.stats.workspace(workspace, number * HOUR_MS, 1) for number in some]
            with apart() as absent:
                read_now = await asyncio.gather(*read)
            pass_on(absent)
            for number, found in zip(some, read_now, strict=True):
                self._keep(workspace, number, found, now_ms, absent)
                known[number] = found
        return [known[number] for number in numbers]

    def of_all(self, now_ms: int, hours: int) -> tuple[list[Figures | None], int]:
        """The same of all workspaces, so far as they are read: reads the others meanwhile. And how many are missing."""
        last = now_ms // HOUR_MS
        numbers = range(last - hours + 1, last + 1)
        found = [self._known("", number) for number in numbers]
        missing = [number for number, one in zip(numbers, found, strict=True) if one is None]
        self._wanted = list(reversed(missing))
        if missing and (self._all is None or self._all.done()):
            self._all = asyncio.create_task(self._read_all(now_ms))
            self._all.add_done_callback(lambda task: task.cancelled() or task.exception())
        return found, len(missing)

    async def close(self) -> None:
        """Ends reading."""
        if self._all and not self._all.done():
            self._all.cancel()
            await asyncio.wait({self._all})

    async def _read_all(self, now_ms: int) -> None:
        """Reads hours of all workspaces, the latest first: with 10,000 workspaces one takes a second."""
        store = await self._store()
        while self._wanted:
            number, began = self._wanted.pop(0), time.monotonic()
            with apart() as absent:
                found = await store.stats.together(number * HOUR_MS, 1)
            self._keep("", number, found, now_ms, absent)
            await asyncio.sleep(time.monotonic() - began)  # others' pages are answered meanwhile

    def _known(self, workspace: str, number: int) -> Figures | None:
        found, until = self._kept.get((workspace, number), (None, 0.0))
        return found if time.monotonic() < until else None

    def _keep(self, workspace: str, number: int, found: Figures, now_ms: int, absent: Absent) -> None:
        is_final = (number + 1) * HOUR_MS + LATE_MS < now_ms and not absent.partitions
        self._kept[workspace, number] = found, time.monotonic() + (86_400 if is_final else CURRENT_SECONDS)
        self._kept.move_to_end((workspace, number))
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
