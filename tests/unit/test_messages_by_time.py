"""Searching a stretch of time, over lists that are in memory."""

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import InvalidInput
from dispatcher.model import Status
from dispatcher.store.keys import Keys
from dispatcher.store.message_reader import Bounds
from dispatcher.store.message_record import SLOT_MS, Head
from dispatcher.store.messages_by_time import MessagesByTime, TimeSearch

SLOTS = 4
TIMES = st.lists(st.integers(0, SLOTS * SLOT_MS - 1), max_size=40, unique=True)


class Lists:
    """Messages that are named by when they were sent, and counts how many of them were read."""

    def __init__(self, times: Sequence[int], page: int = 500, looked_at: int = 20_000) -> None:
        self.keys = Keys()
        self.bounds = Bounds(page, looked_at)
        self.read = 0
        self._times = times

    def _listed(self, key: str) -> list[bytes]:
        return [
            str(at).encode()
            for at in self._times
            if self.keys.status_time("acme", "SMS", at // SLOT_MS) == key
        ]

    async def ask(self, command: str, key: str, first: int = 0, last: int = 0) -> int | list[bytes]:
        """LLEN or LRANGE."""
        listed = self._listed(key)
        return len(listed) if command == "LLEN" else listed[first : last + 1]

    async def get_many(
        self, _: str, uuids: Sequence[str], keep: Callable[[Head], bool] = lambda _: True
    ) -> list[Any]:
        """Those that are to be kept."""
        self.read += len(uuids)
        here = {str(at) for at in self._times}
        return [
            SimpleNamespace(uuid=uuid, sent_ms=int(uuid), history=[])
            for uuid in uuids
            if uuid in here and keep(head(uuid))
        ]


def head(uuid: str) -> Head:
    """Every third one is delivered."""
    return Head(uuid, Status.SENT if int(uuid) % 3 else Status.DELIVERED, int(uuid))


def find(*places: Any, **asked: Any) -> list[str]:
    """What a search over all slots finds, by uuid."""
    search = {"from_ms": 0, "to_ms": SLOTS * SLOT_MS, "skip": 0, "count": 100} | asked
    found = asyncio.run(MessagesByTime(places, TimeSearch("acme", "SMS", **search)).find())
    return [one.uuid for one in found]


@given(
    TIMES,
    st.integers(1, 7),
    st.integers(0, SLOTS * SLOT_MS),
    st.integers(0, SLOTS * SLOT_MS),
    st.integers(0, 45),
    st.integers(1, 10),
    st.booleans(),
    st.integers(1, 3),
)
def test_page_of_one_long_list(
    times: list[int],
    page: int,
    from_ms: int,
    to_ms: int,
    skip: int,
    count: int,
    only_delivered: bool,
    places: int,
) -> None:
    """However few are read at once, a page is cut out of the list of all that are wanted, slot by slot, place by place."""
    keep = (lambda one: one.status is Status.DELIVERED) if only_delivered else None
    lists = [Lists([at for at in times if at % places == place], page=page) for place in range(places)]
    found = find(*lists, from_ms=from_ms, to_ms=to_ms, skip=skip, count=count, keep=keep)
    wanted = [
        str(at)
        for at in sorted(times, key=lambda at: (at // SLOT_MS, at % places))
        if from_ms <= at <= to_ms and (keep is None or keep(head(str(at))))
    ]
    assert wanted[skip : skip + count] == found


def test_what_is_skipped_is_not_read() -> None:
    """Of slots that are wanted as a whole, those before the page are counted and not read."""
    lists = Lists(range(0, SLOTS * SLOT_MS, SLOT_MS // 10), page=3)
    assert [str(2 * SLOT_MS)] == find(lists, skip=20, count=1)
    assert lists.read <= 3


def test_what_is_skipped_is_not_read_in_two_places() -> None:
    """In two places they are counted in both; of the page itself both are asked whether they know something newer."""
    even, odd = (Lists(range(start, SLOTS * SLOT_MS, SLOT_MS // 5), page=3) for start in (0, 1))
    assert [str(2 * SLOT_MS)] == find(even, odd, skip=20, count=1)
    assert even.read + odd.read <= 3 + 2


def test_too_many() -> None:
    """A search that finds too little in what it may look at is refused, and says what to do."""
    with pytest.raises(InvalidInput, match=r"more than 5 messages lie in that time .* narrow it"):
        find(Lists(range(20), page=3, looked_at=5), keep=lambda _: False)
