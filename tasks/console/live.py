"""Attempts as workers make them, for the page that shows them live: one subscription for all viewers."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Literal

import structlog

from config.settings import Settings
from dispatcher.api.log_rate import LogRate
from dispatcher.errors import DispatcherError, RedisUnavailable, visible
from tasks import watching, wiring
from tasks.watching import Attempted

KEPT = 200
"""The latest attempts, which a page that opens shows at once."""
MOST_WAITING = 500
"""Attempts that wait for a slow viewer; the oldest are dropped first."""
MOST_DRAWN = 1000
"""Rows that are remembered: viewers want the same ones at about the same time."""
LINGER_SECONDS = 15.0
"""How long attempts are watched after the last viewer has gone: a page without a script comes back by then."""

log = structlog.get_logger()

MOST_STREAMS = 16
"""Live pages that one person may have open: they share the server's connections with all other pages."""


Numbered = tuple[int, Attempted]
"""An attempt, and its number in this process: a stream that broke off goes on behind the last one it had."""


State = Literal["away", "failed", "waiting", "live"]
"""away: Redis does not answer; failed: for another reason, which is in the log; waiting: not all workers publish their attempts yet; live: they do."""

ViewersQueue = asyncio.Queue[Numbered | None]
"""What a viewer has not had yet; None: the state has changed."""


class Live:
    """Watches while somebody looks."""

    def __init__(self, settings: Settings, store: Callable[[], Awaitable[wiring.Store]]) -> None:
        self._settings = settings
        self._store = store
        self._viewers: dict[ViewersQueue, str] = {}
        self._latest: deque[Numbered] = deque(maxlen=KEPT)
        self._number = (
            time.time_ns() // 1000
        )  # higher than any of the process before: a stream goes on behind that
        self._drawn: dict[tuple[int, str], str] = {}
        self._looked_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self.state: State = "waiting"
        self._unreadable = LogRate()

    def latest(self) -> list[Numbered]:
        """The latest attempts, newest first; begins to watch."""
        self._looked_at = time.monotonic()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        return list(reversed(self._latest))

    @property
    def last(self) -> int:
        """The number of the latest attempt; before the first one, one below it."""
        return self._number

    def drawn(self, key: tuple[int, str], draw: Callable[[], str]) -> str:
        """An attempt as a row, drawn when it is first wanted; by its number and what its links begin with."""
        if key not in self._drawn:
            self._drawn[key] = draw()
            if len(self._drawn) > MOST_DRAWN:
                del self._drawn[next(iter(self._drawn))]
        return self._drawn[key]

    def join(self, after: int, who: str) -> ViewersQueue | None:
        """The attempts after a number (0: from now on), for one viewer until `leave`; None if there are too many.

        All streams leave half of the connections for other pages.
        """
        own = sum(one == who for one in self._viewers.values())
        if own >= MOST_STREAMS or len(self._viewers) >= self._settings.api_max_connections // 2:
            return None
        queue: ViewersQueue = asyncio.Queue(MOST_WAITING)
        for one in self._latest if after else ():
            if one[0] > after:
                queue.put_nowait(one)
        self._viewers[queue] = who
        self.latest()
        return queue

    def leave(self, queue: ViewersQueue) -> None:
        """A viewer has gone."""
        del self._viewers[queue]
        self._looked_at = time.monotonic()

    async def close(self) -> None:
        """Ends watching."""
        if self._task and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _watch(self) -> None:
        while self._is_wanted():
            try:
                await self._follow(await self._store())
            except DispatcherError as error:
                self._become("away" if isinstance(error, RedisUnavailable) else "failed")
                log.warning("console.tail_away", problem=str(error))
                await asyncio.sleep(1)
            except Exception:
                self._become("failed")
                log.exception("console.tail_error", action="trying again")
                await asyncio.sleep(1)
        self._become("waiting")
        self._latest.clear()

    def _is_wanted(self) -> bool:
        return bool(self._viewers) or time.monotonic() - self._looked_at < LINGER_SECONDS

    async def _follow(self, store: wiring.Store) -> None:
        async with aclosing(watching.watch(self._settings, store)) as found:
            async for heard in found:
                self._become("live" if heard.is_live else "waiting")
                for attempt in heard.attempts:
                    self._show(attempt)
                if heard.problem and (times := self._unreadable.count("unreadable")):
                    log.warning("console.tail_unreadable", problem=visible(heard.problem)[:200], times=times)
                if not self._is_wanted():
                    return

    def _become(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._put(None)

    def _show(self, attempt: Attempted) -> None:
        self._number += 1
        one = self._number, attempt
        self._latest.append(one)
        self._put(one)

    def _put(self, one: Numbered | None) -> None:
        for queue in self._viewers:
            if queue.full():
                with suppress(asyncio.QueueEmpty):
                    queue.get_nowait()
            queue.put_nowait(one)
