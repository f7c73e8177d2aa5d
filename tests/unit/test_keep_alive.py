"""What is known of how long a receiver keeps connections, without sockets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.sending.keep_alive import (
    BLINK_SECONDS,
    DOUBT_SECONDS,
    LONGEST_DOUBT_SECONDS,
    LONGEST_SECONDS,
    UNKNOWN_SECONDS,
    KeepAlive,
    usable,
)


@pytest.mark.parametrize(
    ("kept", "used"),
    [(0.0, 0.0), (0.5, 0.25), (1.0, 0.5), (2.0, 1.0), (5.0, 4.0), (60.0, 54.0), (75.0, 67.5)],
)
def test_the_margin(kept: float, used: float) -> None:
    """A tenth, but at least a second; half of what is shorter than two."""
    assert used == usable(kept)


def test_nothing_is_known_at_first() -> None:
    """Then a connection is used for four seconds, and it is worth learning more."""
    known = KeepAlive()
    assert UNKNOWN_SECONDS == known.seconds
    assert known.learns(0)


def test_what_stays_open_may_be_used() -> None:
    """The longer a connection is seen to stay open, the longer others are used; a short time takes nothing back."""
    known = KeepAlive()
    for idle, used in ((3, UNKNOWN_SECONDS), (30, 27), (20, 27), (LONGEST_SECONDS, usable(LONGEST_SECONDS))):
        known.survived(idle, 0)
        assert used == known.seconds
    assert not known.learns(0)


def test_a_close_ends_the_learning() -> None:
    """Once the receiver has closed one, no connection is kept to learn for an hour."""
    known = KeepAlive()
    known.closed(60, 100)
    assert (54, False) == (known.seconds, known.learns(101))
    assert known.learns(100 + LONGEST_DOUBT_SECONDS)


def test_sooner_than_known_is_believed_longer_each_time() -> None:
    """A receiver that closes early is held to it for half a minute, then for a minute, up to an hour."""
    known, now = KeepAlive(), 0.0
    for doubled in range(10):
        known.survived(60, now)
        known.closed(5, now)
        held = min(DOUBT_SECONDS * 2**doubled, LONGEST_DOUBT_SECONDS)
        known.survived(60, now + held - 1)
        assert (4, False) == (known.seconds, known.learns(now + held - 1))
        assert known.learns(now + held)
        now += held
    now += 2 * LONGEST_DOUBT_SECONDS
    known.survived(60, now)
    known.closed(5, now)
    assert known.learns(now + DOUBT_SECONDS)


def test_a_promise_is_believed_until_it_is_broken() -> None:
    """What the receiver says needs no learning; if it closes sooner, that counts until the doubt is over."""
    known = KeepAlive()
    known.promised(30, 0)
    assert (27, False) == (known.seconds, known.learns(0))
    known.closed(5, 0)
    known.promised(30, 1)
    assert 4 == known.seconds
    known.survived(60, DOUBT_SECONDS)
    assert 27 == known.seconds


def test_a_promise_of_nothing() -> None:
    """`timeout=0` keeps no connection."""
    known = KeepAlive()
    known.promised(0, 0)
    assert 0 == known.seconds


def test_a_blink_says_nothing() -> None:
    """A connection that ends right after an answer is no sign of a time."""
    known = KeepAlive()
    known.closed(BLINK_SECONDS / 2, 0)
    assert UNKNOWN_SECONDS == known.seconds


@pytest.mark.parametrize(("idle", "used"), [(UNKNOWN_SECONDS, 54), (50, UNKNOWN_SECONDS)])
def test_silence(idle: float, used: float) -> None:
    """A request without an answer casts doubt on a long idle time, and none on a short one."""
    known = KeepAlive()
    known.survived(60, 0)
    known.silent(idle, 0)
    assert used == known.seconds


times = st.floats(0, 1e6)


@given(
    st.lists(
        st.tuples(st.sampled_from(["promised", "survived", "closed", "silent"]), times, st.floats(0, 1e4))
    )
)
def test_whatever_happens_the_time_is_bounded(events: list[tuple[str, float, float]]) -> None:
    """No sequence of events has a connection used for longer than is safe, or for less than no time."""
    known, now = KeepAlive(), 0.0
    for name, seconds, passed in events:
        now += passed
        getattr(known, name)(seconds, now)
        assert 0 <= known.seconds <= usable(LONGEST_SECONDS)
