"""Whose turn it is to open a connection, and to take the loop for a step of a handshake.

A handshake is 0.8 to 1 ms of OpenSSL, in two steps. If many were done whenever their bytes come, requests on open
connections would wait for all of them. So a turn of the loop has one round: a step, or several if they take little time
(a server may send its part byte by byte). Only a turn that took long for all else has more rounds.

The key exchange is the server's choice, and one may cost a hundred times as much (ffdhe8192 of RFC 7919). A server whose step did
has its next ones in a thread, one at a time for all such servers: OpenSSL lets the loop run meanwhile.

Requests that may soon have another one's connection take turns by an instance of their own, which has no steps (opener.py).
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

COSTLY_SECONDS, MOST_COSTLY = 0.02, 10_000
"""CPU of a step from which on a server's next ones are done in a thread, and how many such servers are remembered."""

STEP_SECONDS = 0.0005
"""No step of a round begins after this time; the first one always does."""

OTHERS_SECONDS, MOST_MORE = 0.002, 8
"""One round more for each 2 ms that a turn of the loop took for all else, so that a busy loop still makes connections;
at most so many more."""


class Handshakes:
    """Steps of handshakes go first, so that what has begun ends; then new connections, one of each workspace in turn."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._steps: deque[tuple[Callable[[], None], str, asyncio.Future[None]]] = deque()
        """What to do, the server's name, and what is told when it is done."""
        self._costly: dict[str, None] = {}
        """Servers whose steps are done in a thread; the latest is last."""
        self._thread = ThreadPoolExecutor(1, "handshakes")
        """Has one step at a time. One that is not wanted any more before it began is not done."""
        self._turns: OrderedDict[str, deque[asyncio.Future[Any]]] = OrderedDict()
        self._scheduled_at = 0.0
        self._next: asyncio.Handle | None = None

    async def turn(self, workspace: str) -> None:
        """Waits until a new connection may be opened for a workspace."""
        if self._next is None:
            self._schedule()
            return
        waiting: asyncio.Future[Any] = self._loop.create_future()
        self.queue(workspace, waiting)
        await waiting

    def queue(self, workspace: str, waiting: "asyncio.Future[Any]") -> None:
        """Sets a future to None when a new connection may be opened for a workspace; it has no turn if it is done before."""
        if self._next is None:
            self._schedule()
        self._turns.setdefault(workspace, deque()).append(waiting)

    async def step(self, do: Callable[[], None], server: str) -> None:
        """Does a step of a handshake with a server when it is its turn. Raises what it raises."""
        if server in self._costly:
            await self._loop.run_in_executor(self._thread, do)
            return
        done = self._loop.create_future()
        self._steps.append((do, server, done))
        if self._next is None:
            self._schedule()
        await done

    def _schedule(self) -> None:
        self._scheduled_at = self._clock()
        self._next = self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._next = None
        others_seconds = self._clock() - self._scheduled_at
        for _ in range(1 + min(MOST_MORE, int(others_seconds / OTHERS_SECONDS))):
            ends = self._clock() + STEP_SECONDS
            while self._step() and self._clock() < ends:
                pass
            if not self._steps:
                self._begin()
        if self._steps or self._turns:
            self._schedule()

    def _step(self) -> bool:
        """Does the next step that is still wanted; returns whether there was one."""
        while self._steps:
            do, server, done = self._steps.popleft()
            if done.done():
                continue
            before = time.thread_time()
            try:
                do()
            except Exception as error:
                done.set_exception(error)
            else:
                done.set_result(None)
            if time.thread_time() - before > COSTLY_SECONDS:
                self._note_costly(server)
            return True
        return False

    def _note_costly(self, server: str) -> None:
        if len(self._costly) == MOST_COSTLY:
            del self._costly[next(iter(self._costly))]
        self._costly[server] = None

    def _begin(self) -> None:
        """Gives a turn to the workspace whose last one was longest ago."""
        while self._turns:
            workspace, waiting = self._turns.popitem(last=False)
            while waiting and waiting[0].done():
                waiting.popleft()
            if waiting:
                waiting.popleft().set_result(None)
                if waiting:
                    self._turns[workspace] = waiting
                return
