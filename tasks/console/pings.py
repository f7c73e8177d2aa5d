"""Test callbacks under way: each is a POST of this process, and may wait for as long as a receiver takes."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException

MOST_OF_WORKSPACE = 3
"""Test callbacks of one workspace that are under way at the same time."""


class Pings:
    """How many test callbacks of each workspace are under way."""

    def __init__(self) -> None:
        self._under_way = Counter[str]()

    @contextmanager
    def one(self, workspace: str) -> Iterator[None]:
        """Counts one for as long as it takes. Raises HTTPException (429) if there are too many."""
        if self._under_way[workspace] >= MOST_OF_WORKSPACE:
            raise HTTPException(429, "too many test callbacks are under way: wait until one has its answer")
        self._under_way[workspace] += 1
        try:
            yield
        finally:
            self._under_way[workspace] -= 1
            self._under_way += Counter()  # without those of 0
