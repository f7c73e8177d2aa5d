"""Reads a sorted set in pages while it changes: by score, because ranks shift when members come or go between two pages."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Member = tuple[bytes, float]
"""A member and its score."""
Ask = Callable[[str, int, int], Awaitable[Sequence[Member]]]
"""Asks for members from a bound on, itself included: how many to leave out, and how many to give at most."""


def members(reply: Sequence[Any]) -> list[Member]:
    """What a command with WITHSCORES replied: in RESP2 members and scores in turn, in RESP3 pairs."""
    pairs = zip(reply[::2], reply[1::2], strict=True) if reply and isinstance(reply[0], bytes) else reply
    return [(member, float(score)) for member, score in pairs]


class ByScore:
    """Where the reading of a sorted set stands, in either direction. `begin`: the bound that it begins with."""

    def __init__(self, begin: float | str) -> None:
        self._at = str(begin)
        """The bound that the next page begins with: the last score."""
        self._end: float | None = None
        self._taken: set[bytes] = set()
        """Members with the last score that were taken."""
        self.is_last = False
        """Whether nothing follows the last page."""

    async def next(self, size: int, ask: Ask) -> list[Member]:
        """The next members, `size` of them or somewhat more; none at the end.

        Of very many with one score those that were taken are left out, but for some: only if the page begins with one of
        these, which stand in the order of their names, was nothing passed over. Otherwise all are asked for.
        """
        leave_out = max(0, len(self._taken) - size)
        while True:
            count = size + len(self._taken) - leave_out
            page = await ask(self._at, leave_out, count)
            if not leave_out or (page and page[0][0] in self._taken):
                break
            leave_out = 0
        return self.take(page, count)

    def take(self, page: Sequence[Member], count: int) -> list[Member]:
        """Those members of a page that were not taken yet; `count`: how many were asked for."""
        fresh = [one for one in page if one[0] not in self._taken]
        self.is_last = len(page) < count
        if page:
            end = page[-1][1]
            if end != self._end:
                self._taken = set()
            self._at, self._end = str(end), end
            self._taken |= {member for member, score in page if score == end}
        return fresh
