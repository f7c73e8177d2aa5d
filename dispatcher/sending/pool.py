"""Open, idle connections by origin: as many as there is room for, each as long as its receiver keeps it."""

import asyncio
import heapq
import random
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

from dispatcher.sending.answer import Answer
from dispatcher.sending.failures import Failure, NoAnswer
from dispatcher.sending.http_connection import Connection
from dispatcher.sending.keep_alive import LONGEST_SECONDS, UNKNOWN_SECONDS, KeepAlive
from dispatcher.sending.target import Origin

MAX_AGE_SECONDS = 300.0
"""A connection this old is not reused, so that a name is looked up again, and a replaced certificate is seen.

Each one's age is up to a fifth less, so that those that were opened together are not replaced together.
"""

MAX_OPEN = 16_000
"""Most connections, in use and idle, if there are descriptors for them."""

MAX_ORIGINS = 20_000
"""Of so many origins it is remembered how long they keep connections, or of twice as many as may be open."""

SWEEP_SECONDS, SWEEPS = 0.1, 20
"""How often some origins are looked at for connections to close, and how often until all have been."""

ROOM = 64
"""How many idle connections are closed together if there is no room for another."""


class Shelf:
    """What there is for one origin."""

    __slots__ = ("closes", "idle", "in_use", "known", "learning", "next_at", "waiting")

    def __init__(self) -> None:
        self.idle: list[Connection] = []
        """Connections that may be used, the least recently used first."""
        self.known = KeepAlive()
        self.learning: Connection | None = None
        """Has been idle for too long to be used: it shows how long the receiver keeps it."""
        self.closes = False
        """Whether the last connection could not be used again after its answer: then others are not waited for.

        Where there was no answer nothing is noted: an endpoint that does not answer is paused before long.
        """
        self.in_use = 0
        """How many requests are under way: each has a connection, opens one, or waits for one."""
        self.waiting: list[asyncio.Future[Connection | Failure | None]] = []
        """Requests that wait for a connection, and take one that another request is done with."""
        self.next_at = 0.0
        """When the next connection may be opened, by the loop's clock."""


class Pool:
    """Keeps a connection after its answer, for the next request to its origin.

    At most `max_open` are open, idle and in use. If there is no room, the workspace that has most idle ones loses those
    that it has not used for longest. `clock` counts the seconds for which connections are idle and kept; the default is
    the loop's.
    """

    def __init__(
        self,
        max_age_seconds: float = MAX_AGE_SECONDS,
        max_open: int = MAX_OPEN,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._max_age_seconds = max_age_seconds
        self._max_open = max_open
        self._max_origins = max(MAX_ORIGINS, 2 * max_open)
        self._loop = asyncio.get_running_loop()
        self._clock = clock or self._loop.time
        self._shelves: dict[Origin, Shelf] = {}
        self._held: dict[str, OrderedDict[Connection, Shelf]] = {}
        """Idle connections by the workspace that used them last, the least recently used first."""
        self.idle = 0
        """How many connections are idle."""
        self.in_use = 0
        """How many requests are under way, each of which has a connection, opens one or waits for one."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._unswept: list[Shelf] = []
        self.closed = False

    def begin(self, origin: Origin) -> None:
        """A request begins; its caller calls `end` before it gives its connection to `keep` or `failed`."""
        self.in_use += 1
        self._shelf(origin).in_use += 1

    def end(self, origin: Origin) -> None:
        """A request has ended."""
        self.in_use -= 1
        if shelf := self._shelves.get(origin):  # else the pool was closed meanwhile
            shelf.in_use -= 1

    def take(self, origin: Origin) -> Connection | None:
        """Takes the most recently used connection; None if there is none that may be used."""
        shelf = self._shelves.get(origin)
        if not shelf or not shelf.idle:
            return None
        connection, now = shelf.idle[-1], self._clock()
        connection.idle_seconds = now - connection.idle_since
        if connection.idle_seconds >= shelf.known.seconds or now >= connection.old_at:
            self._look(shelf, now)
            if not shelf.idle:
                return None
            connection = shelf.idle[-1]
            connection.idle_seconds = now - connection.idle_since
        shelf.idle.pop()
        self._let_go(connection)
        return connection

    def may_be_free(self, origin: Origin, *, is_being_opened: bool = False) -> bool:
        """Whether a request other than the caller's has a connection to an origin that may be used again, or opens one."""
        shelf = self._shelves.get(origin)
        if shelf is None or shelf.closes:
            return False
        return is_being_opened or shelf.in_use - 1 > len(shelf.waiting)

    def is_held(self, origin: Origin) -> bool:
        """Whether any request has a connection to an origin, or is about to."""
        shelf = self._shelves.get(origin)
        return shelf is not None and shelf.in_use > len(shelf.waiting)

    def wait(self, origin: Origin) -> "asyncio.Future[Connection | Failure | None]":
        """The next connection to an origin that is free; None: the caller is to open one.

        The caller sets it if it has a connection, and leaves then.
        """
        waiting: asyncio.Future[Connection | Failure | None] = self._loop.create_future()
        self._shelf(origin).waiting.append(waiting)
        return waiting

    def pause(self, origin: Origin, seconds: float) -> float:
        """How long to wait before a connection is opened; if 0, the next one has to wait that many seconds.

        By the loop's clock and not by `clock`, because the caller sleeps by it.
        """
        shelf, now = self._shelf(origin), self._loop.time()
        if now < shelf.next_at:
            return shelf.next_at - now
        shelf.next_at = now + seconds
        return 0.0

    def leave(self, origin: Origin, waiting: "asyncio.Future[Connection | Failure | None]") -> None:
        """Waits no more."""
        shelf = self._shelves.get(origin)
        if shelf and waiting in shelf.waiting:
            shelf.waiting.remove(waiting)

    def keep(self, origin: Origin, connection: Connection, workspace: str) -> None:
        """Keeps a reusable connection, or closes it if it is too old or the pool is closed."""
        now, shelf = self._clock(), self._shelf(origin)
        connection.idle_since = now
        if connection.ended is None:
            connection.ended = self._ended
            connection.old_at = now + self._max_age_seconds * random.uniform(0.8, 1.0)
        if self.closed or now >= connection.old_at:
            connection.close()
            return
        if not connection.fresh:
            shelf.closes = False
        if connection.keep_alive is not None:
            shelf.known.promised(connection.keep_alive, now)
        elif connection.fresh:
            connection.idle_since -= max(0.0, shelf.known.seconds - UNKNOWN_SECONDS)
        while shelf.waiting:
            waiting = shelf.waiting.pop(0)
            if not waiting.done():
                connection.idle_seconds = 0.0
                waiting.set_result(connection)
                return
        self._put(shelf, connection, workspace)

    def failed(self, origin: Origin, connection: Connection, answer: Answer | NoAnswer) -> None:
        """Learns from a request on a connection that cannot be used again."""
        if isinstance(answer, Answer):
            self._shelf(origin).closes = True
        elif connection.unanswered:
            known, now = self._shelf(origin).known, self._clock()
            if answer.word == "maybe_received":
                known.closed(connection.idle_seconds, now)
            elif answer.word == "timeout":
                known.silent(connection.idle_seconds, now)

    def close(self) -> None:
        """Closes all connections, and from now on each one that it is to keep."""
        self.closed = True
        if self._sweeper:
            self._sweeper.cancel()
        for held in self._held.values():
            for connection in held:
                connection.close()
        self._held.clear()
        self._shelves.clear()
        self._unswept.clear()
        self.idle = 0

    def _shelf(self, origin: Origin) -> Shelf:
        shelf = self._shelves.get(origin)
        if shelf is None:
            if len(self._shelves) >= self._max_origins:
                self._forget_origins()
            shelf = self._shelves[origin] = Shelf()
        return shelf

    def _put(self, shelf: Shelf, connection: Connection, workspace: str) -> None:
        held = self._held.get(workspace)
        if held is None:
            held = self._held[workspace] = OrderedDict()
        held[connection] = shelf
        connection.workspace = workspace
        shelf.idle.append(connection)
        self.idle += 1
        self.make_room()
        if not self._sweeper:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _let_go(self, connection: Connection) -> None:
        del self._held[connection.workspace][connection]
        self.idle -= 1

    def _ended(self, connection: Connection) -> None:
        """The receiver has closed a connection; here only if it is idle, and not just given to a request."""
        held = self._held.get(connection.workspace)
        if held and connection in held:
            shelf = held[connection]
            self._take_out(connection, shelf)
            if not connection.fresh:
                now = self._clock()
                shelf.known.closed(now - connection.idle_since, now)

    def _look(self, shelf: Shelf, now: float) -> None:
        """Closes what may not be used any more; one of them may stay, to show how long the receiver keeps it."""
        known, learning = shelf.known, shelf.learning
        if learning:
            idle_seconds = now - learning.idle_since
            known.survived(idle_seconds, now)
            if idle_seconds >= LONGEST_SECONDS or not known.learns(now):
                self._drop(learning, shelf)
        for one in [c for c in shelf.idle if now - c.idle_since >= known.seconds or now >= c.old_at]:
            if shelf.learning or one.fresh or not known.learns(now):
                self._drop(one, shelf)
            else:
                shelf.idle.remove(one)
                shelf.learning = one

    def _drop(self, connection: Connection, shelf: Shelf) -> None:
        self._take_out(connection, shelf)
        connection.close()

    def _take_out(self, connection: Connection, shelf: Shelf) -> None:
        if connection is shelf.learning:
            shelf.learning = None
        else:
            shelf.idle.remove(connection)
        self._let_go(connection)

    def make_room(self) -> None:
        """Closes idle connections if too many are open, of the workspaces that have most of them.

        None of those has more than the others afterwards.
        """
        if self.idle + self.in_use <= self._max_open:
            return
        largest = heapq.nlargest(ROOM, self._held.values(), key=len)
        sizes = [(-len(held), number) for number, held in enumerate(largest)]
        for _ in range(min(self.idle, max(1, min(ROOM, self._max_open // ROOM)))):
            size, number = sizes[0]
            connection, shelf = next(iter(largest[number].items()))
            self._drop(connection, shelf)
            heapq.heapreplace(sizes, (size + 1, number))

    def _sweep(self) -> None:
        """Looks at some of the origins."""
        if not self._unswept:
            self._held = {workspace: held for workspace, held in self._held.items() if held}
            self._unswept = list(self._shelves.values())
        now = self._clock()
        for _ in range(min(len(self._unswept), len(self._shelves) // SWEEPS + 1)):
            shelf = self._unswept.pop()
            if shelf.idle or shelf.learning:
                self._look(shelf, now)
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep) if self.idle else None

    def _forget_origins(self) -> None:
        """Forgets some origins that have no connection: what was known of them can be learned again."""
        bare = (o for o, shelf in self._shelves.items() if not (shelf.idle or shelf.learning or shelf.in_use))
        for origin in list(islice(bare, self._max_origins // 10)):
            del self._shelves[origin]
