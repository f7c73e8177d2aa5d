"""Reading a sorted set in pages: what is there all the time is read once, whatever else comes and goes."""

from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.store.by_score import ByScore, Member, members

MEMBERS = st.dictionaries(st.binary(min_size=1, max_size=2), st.integers(0, 3).map(float), max_size=40)


def page(there: dict[bytes, float], begin: str, size: int) -> list[Member]:
    """As ZRANGEBYSCORE gives it."""
    ordered = sorted(there.items(), key=lambda one: (one[1], one[0]))
    first = bisect_left([score for _, score in ordered], float(begin))
    return ordered[first : first + size]


@settings(max_examples=300)
@given(stay=MEMBERS, come_and_go=MEMBERS, size=st.integers(1, 5), data=st.data())
def test_what_stays_is_read_once(
    stay: dict[bytes, float], come_and_go: dict[bytes, float], size: int, data: st.DataObject
) -> None:
    """Others may be read or not."""
    others = {member: score for member, score in come_and_go.items() if member not in stay}
    reading, found = ByScore("-inf"), list[bytes]()
    while True:
        some = data.draw(st.sets(st.sampled_from(sorted(others)))) if others else set[bytes]()
        there = stay | {member: others[member] for member in some}
        num = reading.limit(size)
        got = page(there, reading.at, num)
        found += [member for member, _ in reading.take(got)]
        if len(got) < num:
            break
    assert stay.keys() == set(found) & stay.keys()
    assert len(stay) == sum(member in stay for member in found)


def test_scores_are_asked_for_as_they_are() -> None:
    """A time of today, a fraction and an infinite one."""
    for score in (1796024436819.0, 0.1, float("inf")):
        reading = ByScore("-inf")
        reading.take([(b"a", score)])
        assert score == float(reading.at)
        assert 3 == reading.limit(2)


@pytest.mark.parametrize("reply", [[b"a", b"1", b"b", b"2.5"], [[b"a", 1.0], [b"b", 2.5]]])
def test_replies_of_both_protocols(reply: list[object]) -> None:
    """Flat in RESP2, pairs in RESP3."""
    assert [(b"a", 1.0), (b"b", 2.5)] == members(reply)
    assert [] == members([])
