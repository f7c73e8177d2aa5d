"""Whether another partition that has failed answers again. It is asked in the background, so that no batch waits for it."""

import asyncio
from collections.abc import Awaitable, Callable

from dispatcher.errors import RedisUnavailable

PROBE_SECONDS, PROBES = 1.0, 15
"""Pause before each probe of a partition that failed, and how many are made until it is asked for again, at
most put_off.MOST_SECONDS later."""
ANSWER_SECONDS = 1.0
"""How long a probe waits for an answer."""

EXPECTED = RedisUnavailable, TimeoutError
"""What a call to a partition that is away raises."""


class Probe:
    """The state of one partition. `ask` calls it; `log` gets an error that is not of EXPECTED."""

    def __init__(self, ask: Callable[[], Awaitable[object]], log: Callable[[Exception], None]) -> None:
        self._ask = ask
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._is_away = False

    @property
    def is_away(self) -> bool:
        """Whether its last call failed. It is probed then, if it is not yet."""
        if self._is_away:
            self._start()
        return self._is_away

    def failed(self) -> None:
        """A call failed: it is away until a probe has succeeded."""
        self._is_away = True
        self._start()

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._until_back())

    async def _until_back(self) -> None:
        for _ in range(PROBES):
            await asyncio.sleep(PROBE_SECONDS)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._ask()
                self._is_away = False
                return
            except EXPECTED:
                continue
            except Exception as error:
                self._log(error)
