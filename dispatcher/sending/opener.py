"""Gives a request a connection if none is idle: a new one, or one that another request is done with sooner."""

import asyncio
from collections import Counter, deque
from dataclasses import dataclass

from dispatcher.sending.connector import Connector
from dispatcher.sending.failures import Failure, InternalError, NoAnswer
from dispatcher.sending.handshakes import Handshakes
from dispatcher.sending.http_connection import Connection
from dispatcher.sending.pool import Pool
from dispatcher.sending.target import Origin, Target
from dispatcher.share_of_core import ShareOfCore

APART_SECONDS = 0.02
"""How far apart encrypted connections to one origin are opened: meanwhile one may be free, which costs no handshake."""

MOST_APART_SECONDS = 0.2
"""The longest that a request waits for that: what is in use then is in use for long."""

BUSY_SECONDS = 0.2
"""How long a request waits for another's encrypted connection before that, while the loop is busy."""

LOOK_SECONDS = 0.05
"""Shortest time over which it is measured how busy the loop is."""

CLOSED = InternalError("the transport is closed")
NOT_IN_TIME = NoAnswer("timeout", "not connected in time")


@dataclass(slots=True, eq=False)
class Opening:
    """An encrypted connection that is being opened."""

    target: Target
    workspace: str
    waiting: asyncio.Future[Connection | Failure | None]
    """Of the request for which it is opened."""
    begun: bool = False
    """Whether the receiver may have seen something of it."""


class Opener:
    """Opens connections. Without it a burst to one receiver would be a connection for each request.

    Where another request has a connection that may be used again, one waits for that until it is its turn to open its
    own: one in a turn of the loop, and some more if the turn took long. So an idle worker soon has one for each request.
    A handshake takes longer than most answers, so with TLS a request goes on waiting while it opens its own. While the
    loop is busy it first waits for BUSY_SECONDS, also for a connection that is only being opened: a worker whose CPU is
    the limit sends no more by more connections, and each costs it as much as 15 POSTs. If nobody has or opens one any
    more, the first that waits opens its own at once.
    """

    def __init__(
        self, connector: Connector, handshakes: Handshakes, pool: Pool, share: ShareOfCore | None = None
    ) -> None:
        self._connector = connector
        self._handshakes = handshakes
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._turns = Handshakes()
        """Of those that wait for another's connection: they do not wait behind handshakes."""
        self._share = share or ShareOfCore(LOOK_SECONDS)
        self._being_opened: Counter[Origin] = Counter()
        """How many requests open an encrypted connection to each origin."""
        self._patient: dict[Origin, deque[asyncio.Future[Connection | Failure | None]]] = {}
        """Requests that wait because the loop is busy, the first one first."""
        self._openings: dict[asyncio.Task[None], Opening] = {}
        self._left: set[Origin] = set()
        """Origins to which a connection is being opened that no request waits for any more; one each."""

    async def connection(self, target: Target, workspace: str, deadline: float) -> Connection | Failure:
        """Returns a connection for one request; gives up at `deadline` (of the loop's clock)."""
        self._pool.make_room()
        if free := await self._free(target, workspace, deadline):
            return free
        if not target.encrypted:
            return await self._connect(target, deadline)
        self._being_opened[target.origin] += 1
        try:
            return await self._open_and_wait(target, workspace, deadline)
        finally:
            self._being_opened[target.origin] -= 1
            if not self._being_opened[target.origin]:
                del self._being_opened[target.origin]

    async def _open_and_wait(self, target: Target, workspace: str, deadline: float) -> Connection | Failure:
        """Opens an encrypted connection, unless another's is free sooner."""
        while not self._pool.closed:
            opening = Opening(target, workspace, self._pool.wait(target.origin))
            task = asyncio.create_task(self._open(opening, deadline))
            self._openings[task] = opening
            task.add_done_callback(self._openings.pop)
            try:
                found = await self._found(target, workspace, opening.waiting)
            finally:
                self._leave(task, opening)
            if found:
                return found
        return CLOSED

    def ended(self, origin: Origin) -> None:
        """A request has ended; once its caller has kept its connection, or not, it is seen whether others wait for nothing."""
        if origin in self._patient:
            self._loop.call_soon(self._let_first_open, origin)

    def _let_first_open(self, origin: Origin) -> None:
        patient = self._patient.get(origin)
        if patient and origin not in self._being_opened and not self._pool.is_held(origin):
            _end_wait(patient[0])

    async def _free(self, target: Target, workspace: str, deadline: float) -> Connection | Failure | None:
        """Waits for a connection that another request is done with; None: open one."""
        origin = target.origin
        is_busy = target.encrypted and self._is_busy()
        if not self._pool.may_be_free(origin, is_being_opened=is_busy and origin in self._being_opened):
            return None
        waiting = self._pool.wait(origin)
        if is_busy:
            found = await self._found_while_busy(target, workspace, waiting, deadline)
        else:
            self._turns.queue(workspace, waiting)
            found = await self._found(target, workspace, waiting)
        found = found or self._pool.take(origin)
        if found and self._loop.time() >= deadline:
            self._keep(target, workspace, found)
            return NOT_IN_TIME
        return found

    def _is_busy(self) -> bool:
        self._share.look()
        return self._share.is_high

    async def _found_while_busy(
        self,
        target: Target,
        workspace: str,
        waiting: "asyncio.Future[Connection | Failure | None]",
        deadline: float,
    ) -> Connection | Failure | None:
        """What a request waits for within BUSY_SECONDS, or half of the time that it has; None: it is to open its own."""
        now, patient = self._loop.time(), self._patient.setdefault(target.origin, deque())
        timer = self._loop.call_at(min(now + BUSY_SECONDS, (now + deadline) / 2), _end_wait, waiting)
        patient.append(waiting)
        try:
            return await self._found(target, workspace, waiting)
        finally:
            timer.cancel()
            patient.remove(waiting)
            if not patient:
                del self._patient[target.origin]

    async def _found(
        self, target: Target, workspace: str, waiting: "asyncio.Future[Connection | Failure | None]"
    ) -> Connection | Failure | None:
        """What a request waits for; None if that has ended at this moment, or the request is to open its own."""
        try:
            found = await waiting
        except asyncio.CancelledError:
            if not waiting.cancelled() and not waiting.exception():  # cancelled in the turn in which it came
                self._keep(target, workspace, waiting.result())
            raise
        finally:
            self._pool.leave(target.origin, waiting)
        is_over = isinstance(found, Connection) and not found.reusable and found.ended is not None
        return None if is_over else found  # over: the pool had it from another request

    def _leave(self, task: asyncio.Task[None], opening: Opening) -> None:
        """Lets one connection to an origin be opened for the next request, and gives up what is more."""
        origin = opening.target.origin
        if task.done():
            return
        if not opening.begun or origin in self._left:
            task.cancel()
        else:
            self._left.add(origin)
            task.add_done_callback(lambda _: self._left.discard(origin))

    def close(self) -> None:
        """Opens no more connections."""
        for task, opening in self._openings.items():
            task.cancel()
            if not opening.waiting.done():
                opening.waiting.set_result(CLOSED)
        for waiting in [one for patient in self._patient.values() for one in patient]:
            if not waiting.done():
                waiting.set_result(CLOSED)

    async def _connect(self, target: Target, deadline: float) -> Connection | Failure:
        try:
            async with asyncio.timeout_at(deadline):
                return CLOSED if self._pool.closed else await self._connector.connect(target)
        except TimeoutError:
            return NOT_IN_TIME

    async def _apart(self, origin: Origin) -> None:
        """Waits until APART_SECONDS after the last connection to an origin was opened, at most MOST_APART_SECONDS."""
        waited = 0.0
        while waited < MOST_APART_SECONDS and (pause := self._pool.pause(origin, APART_SECONDS)):
            await asyncio.sleep(pause)
            waited += pause

    async def _open(self, opening: Opening, deadline: float) -> None:
        found: Connection | Failure = CLOSED
        try:
            async with asyncio.timeout_at(deadline):
                await self._apart(opening.target.origin)
                await self._handshakes.turn(opening.workspace)
                opening.begun = True
                found = await self._connector.connect(opening.target)
        except TimeoutError:
            found = NOT_IN_TIME
        except Exception as error:
            if opening.waiting.done():
                raise
            opening.waiting.set_exception(error)
        finally:
            if not opening.waiting.done():
                opening.waiting.set_result(found)
            else:
                self._keep(opening.target, opening.workspace, found)

    def _keep(self, target: Target, workspace: str, found: Connection | Failure | None) -> None:
        """Keeps a connection that its request does not need any more, for the next one."""
        if isinstance(found, Connection) and not found.over:
            found.reusable = True
            self._pool.keep(target.origin, found, workspace)


def _end_wait(waiting: "asyncio.Future[Connection | Failure | None]") -> None:
    """Has a request that waits open a connection of its own."""
    if not waiting.done():
        waiting.set_result(None)
