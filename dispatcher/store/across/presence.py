"""Whether servers answer: one that does not is not asked again for some seconds, so that nobody waits for it many times."""

import asyncio
import time
from typing import Any

from redis.exceptions import RedisError, ResponseError

from dispatcher.errors import RedisUnavailable
from dispatcher.store.connection import concerns_all, safe_url, translate
from dispatcher.store.servers import Servers

SILENCE_SECONDS = 2.0
"""A server that does not answer PING for so long is away."""
PRESENT_SECONDS = 1.0
"""For how long a server that answered is taken for present."""


class Presence:
    """Which servers answer, as far as is known."""

    def __init__(self, servers: Servers, away_seconds: float) -> None:
        """`away_seconds` is for how long a server that did not answer is taken for away."""
        self._servers = servers
        self._away_seconds = away_seconds
        self._away: dict[str, tuple[float, RedisUnavailable]] = {}
        self._present: dict[str, float] = {}
        self._pings: dict[str | int, asyncio.Future[Any]] = {}
        """By server, or by partition while its server is not known."""

    def node(self, partition: int) -> str:
        """The name of the server that holds a partition; empty while none is known, as before a cluster's map is read."""
        try:
            return self._servers.node(partition).name
        except RedisUnavailable:
            return ""

    def problem(self, node: str) -> RedisUnavailable | None:
        """Why a server does not answer; None unless it is known to be away."""
        away_until, problem = self._away.get(node, (0.0, None))
        return problem if time.monotonic() < away_until else None

    async def require(self, partition: int) -> str:
        """The name of a partition's server. Raises RedisUnavailable if it does not answer, or did not some seconds ago."""
        node = self.node(partition)
        if problem := self.problem(node):
            raise problem
        if time.monotonic() < self._present.get(node, 0.0):
            return node
        try:
            await self._ping(node, partition)
        except TimeoutError as error:
            text = f"Redis at {safe_url(self._servers.url(partition))} does not answer within {SILENCE_SECONDS:g} s"
            raise self.noted_away(node, RedisUnavailable(text)) from error
        except (RedisError, OSError, RedisUnavailable) as error:
            if node and not isinstance(error, ResponseError):
                concerns_all(error)
            found = translate(error, self._servers.url(partition))
            if isinstance(found, RedisUnavailable):
                self.noted_away(node, found)
            raise found from error
        answered = self.node(partition)  # another, if the partition has moved
        self._present[answered] = time.monotonic() + PRESENT_SECONDS
        return answered

    async def _ping(self, node: str, partition: int) -> None:
        """Asks a server whether it is there; all who want to know at the same time share the PING. Raises TimeoutError.

        While it is not known which server holds a partition, each asks for its own: of several servers one may be silent.
        The PING goes by the partition's wire and is not cancelled: so a cluster learns that the node is silent.
        """
        whose = node or partition
        if whose not in self._pings:
            ping = self._pings[whose] = asyncio.ensure_future(self._servers.wire(partition).call("PING"))
            ping.add_done_callback(lambda done: self._pinged(whose, done))
        asked = self._pings[whose]
        await asyncio.wait({asked}, timeout=SILENCE_SECONDS)
        if not asked.done():
            raise TimeoutError
        asked.result()

    def _pinged(self, whose: str | int, ping: "asyncio.Future[Any]") -> None:
        del self._pings[whose]
        if not ping.cancelled():
            ping.exception()  # whoever waited has it

    def noted_away(self, node: str, problem: RedisUnavailable) -> RedisUnavailable:
        """Has a server that did not answer not be asked for some seconds; returns the problem."""
        if node:
            self._away[node] = time.monotonic() + self._away_seconds, problem
            self._present.pop(node, None)
        return problem
