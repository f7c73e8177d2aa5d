"""Reading a sorted set in pages: what is there all the time is read once, whatever else comes and goes."""

import asyncio
from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.store.by_score import ByScore, Member, members

MEMBERS = st.dictionaries(st.binary(min_size=1, max_size=2), st.integers(0, 3).map(float), max_size=40)


class Set:
    """As ZRANGEBYSCORE gives it, of what is there at the time."""

    def __init__(self, there: dict[bytes, float]) -> None:
        self.there = there
        self.given = 0

    async def ask(self, begin: str, leave_out: int, count: int) -> list[Member]:
        """A page."""
        ordered = sorted(self.there.items(), key=lambda one: (one[1], one[0]))
        first = bisect_left([score for _, score in ordered], float(begin)) + leave_out
        found = ordered[first : first + count]
        self.given += len(found)
        return found


@settings(max_examples=300)
@given(stay=MEMBERS, come_and_go=MEMBERS, size=st.integers(1, 5), data=st.data())
def test_what_stays_is_read_once(
    stay: dict[bytes, float], come_and_go: dict[bytes, float], size: int, data: st.DataObject
) -> None:
    """Others may be read or not."""
    others = {member: score for member, score in come_and_go.items() if member not in stay}
    reading, found = ByScore("-inf"), list[bytes]()
    while not reading.is_last:
        some = data.draw(st.sets(st.sampled_from(sorted(others)))) if others else set[bytes]()
        there = Set(stay | {member: others[member] for member in some})
        found += [member for member, _ in asyncio.run(reading.next(size, there.ask))]
    assert stay.keys() == set(found) & stay.keys()
    assert len(stay) == sum(member in stay for member in found)


def test_very_many_with_one_score() -> None:
    """Each page costs as much as the first, not as much as all before it; also if those that were read go."""
    names = [b"%05d" % number for number in range(5000)]
    for go in (False, True):
        all_, reading, found = Set(dict.fromkeys(names, 7.0)), ByScore("-inf"), list[bytes]()
        while not reading.is_last:
            page = [member for member, _ in asyncio.run(reading.next(100, all_.ask))]
            found += page
            if go:
                for member in page:
                    del all_.there[member]
        assert names == found
        assert all_.given <= 2 * len(names) + 100


@pytest.mark.parametrize("score", [1796024436819.0, 0.1, float("inf")])
def test_scores_are_asked_for_as_they_are(score: float) -> None:
    """A time of today, a fraction and an infinite one."""
    asked: list[float] = []

    async def ask(at: str, _leave_out: int, _count: int) -> list[Member]:
        asked.append(float(at))
        return [(b"a", score), (b"b", score)]

    reading = ByScore("-inf")
    for _ in range(2):
        asyncio.run(reading.next(2, ask))
    assert [float("-inf"), score] == asked


@pytest.mark.parametrize("reply", [[b"a", b"1", b"b", b"2.5"], [[b"a", 1.0], [b"b", 2.5]]])
def test_replies_of_both_protocols(reply: list[object]) -> None:
    """Flat in RESP2, pairs in RESP3."""
    assert [(b"a", 1.0), (b"b", 2.5)] == members(reply)
    assert [] == members([])
