"""Records outcomes of callbacks: what comes in while a call to Redis is under way goes out together in the next one."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from dispatcher.errors import EndpointBroken, RedisUnavailable
from dispatcher.store.ledger import Ledger
from dispatcher.store.replies import Settled, Settlement, ToSettle
from dispatcher.worker.task_set import TaskSet

AT_ONCE = 64
"""Most callbacks in one call, since Redis does nothing else meanwhile; results of one turn are not split up, though."""
ENOUGH, MOST_UNDER_WAY = 16, 2
"""When so many turns wait, another call is sent before the reply to the one before: Redis and this worker work at the same time."""

Waiting = tuple[ToSettle, "asyncio.Future[Settled]", Callable[[], None]]
"""A request, its result, and what to call when it will not claim."""


class Settler:
    """Under light load each turn's results go out at once; when Redis is busy, many go out in one call."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: deque[Waiting] = deque()
        self._under_way = 0
        """Calls without a reply."""
        self._is_away = False
        self._tasks = TaskSet()

    async def settle(
        self,
        endpoint: str,
        settlements: Sequence[Settlement],
        claim: int = 0,
        unclaimed: Callable[[], None] = lambda: None,
    ) -> Settled:
        """Records outcomes; then leases up to `claim` due callbacks of the endpoint to this worker.

        Leases none if another worker was hinted. An outcome that did not count had lost its lease: another worker has
        the callback, or had it. Repeats the call while Redis is away or the script fails on the endpoint's keys, for as
        long as a lease lasts; then raises RedisUnavailable or EndpointBroken. What is repeated, or comes while Redis is
        away, leases none: `unclaimed` is called as soon as that is certain, since the outcomes may take long.
        """
        settled: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        waiting = ToSettle(endpoint, settlements, claim), settled, unclaimed
        self._waiting.append(_without_claim(waiting) if self._is_away else waiting)
        self._send_next()
        return await settled

    def _send_next(self) -> None:
        """Sends what waits: if no call is under way, when the loop comes to it; beside one, as soon as there is enough."""
        if not self._waiting:
            return
        if not self._under_way:
            self._under_way = 1
            self._tasks.start(self._send())
        elif self._under_way < MOST_UNDER_WAY and len(self._waiting) >= ENOUGH:
            self._under_way += 1
            self._tasks.start(self._send(self._next()))

    def _next(self) -> list[Waiting]:
        """What the next call takes; nothing if the call before took all."""
        batch, count = list[Waiting](), 0
        while self._waiting:
            count += len(self._waiting[0][0].settlements)
            if batch and count > AT_ONCE:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _send(self, batch: list[Waiting] | None = None) -> None:
        try:
            if batch := batch or self._next():
                await self._settle(batch)
        except Exception as error:  # no memory, or an error of ours: what comes later is sent all the same
            _fail(batch or [], error)
        self._under_way -= 1
        self._send_next()

    async def _settle(self, batch: list[Waiting]) -> None:
        broken = list[Waiting]()
        try:
            broken = _answer(batch, await self._ledger.settle([one for one, _, _ in batch]))
            self._is_away = False
        except RedisUnavailable:
            broken = batch
            self._is_away = True
            self._waiting = deque(map(_without_claim, self._waiting))
        except Exception as error:
            _fail(batch, error)
        if broken:
            self._tasks.start(self._send_again([_without_claim(one) for one in broken]))

    async def _send_again(self, batch: list[Waiting]) -> None:
        """Repeats a call, without claiming: what the first call may have claimed comes back when its lease ends."""
        again = AsyncRetrying(
            retry=retry_if_exception_type((RedisUnavailable, EndpointBroken)),
            wait=wait_random_exponential(0.1, max=2),
            stop=stop_after_delay(self._ledger.options.lease_ms / 1000),
            reraise=True,
        )
        try:
            await again(self._settle_rest, batch)
        except Exception as error:
            _fail(batch, error)

    async def _settle_rest(self, batch: list[Waiting]) -> None:
        """Records what is not recorded yet. Raises RedisUnavailable, or EndpointBroken if some of it still is not."""
        settled = await self._ledger.settle([one for one, _, _ in batch])
        self._is_away = False
        batch[:] = _answer(batch, settled)
        for one in settled:
            if isinstance(one, EndpointBroken):
                raise one


def _without_claim(waiting: Waiting) -> Waiting:
    """The request without its claim; whoever waits is told."""
    asked, settled, unclaimed = waiting
    if not asked.claim:
        return waiting
    unclaimed()
    return ToSettle(asked.endpoint, asked.settlements), settled, unclaimed


def _answer(batch: Sequence[Waiting], settled: Sequence[Settled | EndpointBroken]) -> list[Waiting]:
    """Gives results to the waiting turns; returns the requests whose endpoint is broken, for now."""
    broken = []
    for waiting, one in zip(batch, settled, strict=True):
        if isinstance(one, EndpointBroken):
            broken.append(waiting)
        elif not waiting[1].done():  # else the waiting task was cancelled
            waiting[1].set_result(one)
    return broken


def _fail(batch: Sequence[Waiting], error: Exception) -> None:
    for _, waiting, _ in batch:
        if not waiting.done():
            waiting.set_exception(error)
