"""Gives a request a connection if none is idle: a new one, or one that another request is done with before that."""

import asyncio
from dataclasses import dataclass

from dispatcher.sending.connector import Connector
from dispatcher.sending.failures import Failure, InternalError, NoAnswer
from dispatcher.sending.handshakes import Handshakes
from dispatcher.sending.http_connection import Connection
from dispatcher.sending.pool import Pool
from dispatcher.sending.target import Target

APART_SECONDS = 0.02
"""How far apart encrypted connections to one origin are opened: meanwhile one may be free, which costs no handshake."""

CLOSED = InternalError("the transport is closed")


@dataclass(slots=True, eq=False)
class Opening:
    """A connection that is being opened."""

    target: Target
    workspace: str
    waiting: asyncio.Future[Connection | Failure]
    """Of the request for which it is opened."""
    begun: bool = False
    """Whether the receiver may have seen something of it."""


class Opener:
    """Opens connections. Without it a burst to one receiver would be a handshake for each request."""

    def __init__(self, connector: Connector, handshakes: Handshakes, pool: Pool) -> None:
        self._connector = connector
        self._handshakes = handshakes
        self._pool = pool
        self._openings: dict[asyncio.Task[None], Opening] = {}

    async def connection(self, target: Target, workspace: str, deadline: float) -> Connection | Failure:
        """Returns a connection for one request; gives up at `deadline` (of the loop's clock)."""
        while not self._pool.closed:
            opening = Opening(target, workspace, self._pool.wait(target.origin))
            task = asyncio.create_task(self._open(opening, deadline))
            self._openings[task] = opening
            task.add_done_callback(self._openings.pop)
            try:
                found = await opening.waiting
            finally:
                self._pool.leave(target.origin, opening.waiting)
                if not opening.begun:
                    task.cancel()
            if not isinstance(found, Connection) or found.fresh or found.reusable:
                return found  # else it was another request's, and has ended at this moment
        return CLOSED

    def close(self) -> None:
        """Opens no more connections."""
        for task, opening in self._openings.items():
            task.cancel()
            if not opening.waiting.done():
                opening.waiting.set_result(CLOSED)

    async def _open(self, opening: Opening, deadline: float) -> None:
        found: Connection | Failure = CLOSED
        try:
            async with asyncio.timeout_at(deadline):
                if opening.target.encrypted:
                    while pause := self._pool.pause(opening.target.origin, APART_SECONDS):  # noqa: ASYNC110 (a time)
                        await asyncio.sleep(pause)
                await self._handshakes.turn(opening.workspace)
                opening.begun = True
                found = await self._connector.connect(opening.target)
        except TimeoutError:
            found = NoAnswer("timeout", "not connected in time")
        except Exception as error:
            if opening.waiting.done():
                raise
            opening.waiting.set_exception(error)
        finally:
            if not opening.waiting.done():
                opening.waiting.set_result(found)
            elif isinstance(found, Connection):
                found.reusable = True
                self._pool.keep(opening.target.origin, found, opening.workspace)
