"""What waits for its turn in a pool of blocking connections, so that a signal handler may raise at any moment.

redis-py's pool keeps its connections in a `queue.LifoQueue`, whose lock is taken by code in Python. An exception that a
signal handler raises there (Celery's soft time limit, an alarm) leaves it locked, and every later call waits for ever.
"""

import queue
from collections import deque
from typing import Any


class Slots:
    """As much of `queue.LifoQueue` as redis-py's pool uses. Each step is one call in C, which a handler cannot divide.

    An exception between two steps costs one slot at most.
    """

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.queue: deque[Any] = deque()
        """The connections that nobody uses; a slot without one is not in it."""

    def put_nowait(self, connection: Any) -> None:
        """Frees a slot, with a connection or None. Raises queue.Full if all are free."""
        if self._free.qsize() >= self._maxsize:
            raise queue.Full
        if connection is not None:
            self.queue.append(connection)
        self._free.put(None)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes a slot: the connection that was used last, or None. Raises queue.Empty if none gets free in time."""
        self._free.get(block, timeout)
        try:
            return self.queue.pop()
        except IndexError:
            return None
