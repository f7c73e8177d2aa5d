"""Reads a sorted set in pages while it changes: by score, because ranks shift when members come or go between two pages."""

from collections.abc import Sequence
from typing import Any

Member = tuple[bytes, float]
"""A member and its score."""


def members(reply: Sequence[Any]) -> list[Member]:
    """What a command with WITHSCORES replied: in RESP2 members and scores in turn, in RESP3 pairs."""
    pairs = zip(reply[::2], reply[1::2], strict=True) if reply and isinstance(reply[0], bytes) else reply
    return [(member, float(score)) for member, score in pairs]


class ByScore:
    """Where the reading of a sorted set stands, in either direction. `begin`: the bound that it begins with."""

    def __init__(self, begin: float | str) -> None:
        self.at = str(begin)
        """The bound that the next page begins with: the last score, itself included."""
        self._end: float | None = None
        self._taken: set[bytes] = set()
        """Members with the last score that were taken."""

    def limit(self, size: int) -> int:
        """How many to ask for so that `size` of them are new; if fewer come, they are the last ones."""
        return size + len(self._taken)

    def take(self, page: Sequence[Member]) -> list[Member]:
        """The members of a page that were not taken yet."""
        fresh = [one for one in page if one[0] not in self._taken]
        if page:
            end = page[-1][1]
            if end != self._end:
                self._taken = set()
            self.at, self._end = str(end), end
            self._taken |= {member for member, score in page if score == end}
        return fresh
