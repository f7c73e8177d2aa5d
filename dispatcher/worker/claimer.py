"""Claims for turns: what they ask for in one pass of the loop goes to Redis together."""

import asyncio
from collections import deque

from dispatcher.store.ledger import Ledger
from dispatcher.store.replies import Claim, ToClaim
from dispatcher.worker.task_set import TaskSet

AT_ONCE = 64
"""Most callbacks that one call asks for, since Redis does nothing else meanwhile; what one turn asks for is not split up."""

Asked = tuple[ToClaim, "asyncio.Future[Claim]"]


class Claimer:
    """A wake finds several endpoints, whose turns begin together: one call to Redis costs less than one for each."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._asked: deque[Asked] = deque()
        """While there are any, a task is about to send them."""
        self._tasks = TaskSet()

    async def claim(self, endpoint: str, count: int) -> Claim:
        """Leases up to `count` due callbacks of an endpoint to this worker.

        Raises RedisUnavailable, or EndpointBroken if a key of the endpoint is damaged; callbacks may nevertheless have
        been leased.
        """
        claimed: asyncio.Future[Claim] = asyncio.get_running_loop().create_future()
        if not self._asked:
            self._tasks.start(self._send())
        self._asked.append((ToClaim(endpoint, count), claimed))
        return await claimed

    def _next(self) -> list[Asked]:
        """What the next call asks for; not for turns that were cancelled."""
        asked, count = list[Asked](), 0
        while self._asked:
            one, claimed = self._asked[0]
            if asked and count + one.most > AT_ONCE:
                break
            self._asked.popleft()
            if not claimed.done():
                asked.append((one, claimed))
                count += one.most
        return asked

    async def _send(self) -> None:
        asked = list[Asked]()
        try:
            asked = self._next()
            if self._asked:
                self._tasks.start(self._send())
            found = await self._ledger.claim([one for one, _ in asked]) if asked else []
            for (_, claimed), one in zip(asked, found, strict=True):
                _answer(claimed, one)
        except Exception as error:
            for _, claimed in asked:
                _answer(claimed, error)


def _answer(claimed: "asyncio.Future[Claim]", one: Claim | Exception) -> None:
    if claimed.done():  # it is answered, or its turn was cancelled
        return
    if isinstance(one, Exception):
        claimed.set_exception(one)
    else:
        claimed.set_result(one)
