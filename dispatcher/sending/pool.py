"""Open, idle connections by origin."""

import asyncio
from collections import defaultdict

from dispatcher.sending.http_connection import Connection
from dispatcher.sending.target import Origin

KEEP_ALIVE_SECONDS = 4.0
"""Idle connections are closed before common servers close them (5 s in Node.js): a POST must not meet a closing one."""

MAX_AGE_SECONDS = 60.0
"""A connection this old is not reused, so that a name whose address changed is looked up again."""

SWEEP_SECONDS = 0.5


class Pool:
    """Keeps a connection after its answer, for the next request to its origin."""

    def __init__(self, max_age_seconds: float = MAX_AGE_SECONDS) -> None:
        self._max_age_seconds = max_age_seconds
        self._loop = asyncio.get_running_loop()
        self._idle: defaultdict[Origin, list[Connection]] = defaultdict(list)
        self._sweeper: asyncio.TimerHandle | None = None
        self.closed = False

    def take(self, origin: Origin) -> Connection | None:
        """Takes the most recently used connection; None if there is none."""
        connections = self._idle.get(origin)
        while connections:
            connection = connections.pop()
            if connection.reusable and self._loop.time() - connection.idle_since < KEEP_ALIVE_SECONDS:
                return connection
            connection.close()
        return None

    def keep(self, origin: Origin, connection: Connection) -> None:
        """Keeps a reusable connection, or closes it if it is too old or the pool is closed."""
        if self.closed or self._loop.time() - connection.made_at >= self._max_age_seconds:
            connection.close()
            return
        self._idle[origin].append(connection)
        self._sweeper = self._sweeper or self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def close(self) -> None:
        """Closes all connections, and from now on each one that it is to keep."""
        self.closed = True
        if self._sweeper:
            self._sweeper.cancel()
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    def _sweep(self) -> None:
        """Closes connections that have been idle for KEEP_ALIVE_SECONDS."""
        idle_before = self._loop.time() - KEEP_ALIVE_SECONDS
        for origin, connections in list(self._idle.items()):
            for connection in connections:
                if connection.idle_since <= idle_before:
                    connection.close()
            connections[:] = [connection for connection in connections if connection.reusable]
            if not connections:
                del self._idle[origin]
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep) if self._idle else None
