"""Retry schedules of subscriptions: reading them, and the waits that they give."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import InvalidInput
from dispatcher.rules.decide import Policy, decide, decide_lost
from dispatcher.rules.outcomes import Attempt, Expired, Failed, Outcome, Retry
from dispatcher.rules.retry_schedule import MOST, in_words, parse_schedule
from dispatcher.rules.workspace import Workspace

EXPIRY = 172_800
NOW = 1_800_000_000_000


def scheduled(*delays: int) -> Policy:
    """The settings' policy, for a receiver with this schedule."""
    one = Workspace("acme", "zeckta", "https://a.example", (), NOW, "r", retry_schedule=delays)
    return Policy().of(one)


def after(policy: Policy, number: int, *, expires_ms: int = NOW + 10**9, rng: float = 0.5) -> Outcome:
    """What happens after a 500."""
    failed = Attempt(NOW, 5, 500, "http_500")
    return decide(failed, number, now_ms=NOW, expires_ms=expires_ms, policy=policy, rng=rng)


@pytest.mark.parametrize(
    ("text", "delays", "shown"),
    [
        ("0,30s,5m,1h,6h", (0, 30, 300, 3600, 21_600), "0,30s,5m,1h,6h"),
        (" 0 , 30 ,90, 24h ", (0, 30, 90, 86_400), "0,30s,90s,1d"),
        ("0", (0,), "0"),
        ("0,1h,0,1m", (0, 3600, 0, 60), "0,1h,0,1m"),
        ("default", (), "default"),
    ],
)
def test_a_schedule(text: str, delays: tuple[int, ...], shown: str) -> None:
    """A bare number is seconds; delays may get shorter."""
    assert (parse_schedule(text, EXPIRY), in_words(delays)) == (delays, shown)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has 1 to 16 delays, not 0; or it is `default`"),
        (" ", "has 1 to 16 delays, not 0"),
        (",".join(["0"] * (MOST + 1)), "has 1 to 16 delays, not 17"),
        ("30s,5m", "begins with 0, because the first attempt is made at once, not with 30s"),
        ("0,-5", "a whole number of seconds, or one with s, m, h or d as in 30s or 6h, not '-5'"),
        ("0,500ms", "not '500ms'"),
        ("0,1.5h", "not '1.5h'"),
        ("0,,5m", "not ''"),
        ("0,5m,", "not ''"),
        ("0,\u0663", "not '\u0663'"),
        ("Default", "not 'Default'"),
        ("0,1d,1d", "less than the expiry in sum, 2d (DISPATCHER_EXPIRY_SECONDS), not 2d"),
        ("0,999999999d", "less than the expiry in sum, 2d"),
        ("0,9999999999", "not '9999999999'"),
    ],
)
def test_no_schedule(text: str, says: str) -> None:
    """One line says what is allowed."""
    with pytest.raises(InvalidInput) as refused:
        parse_schedule(text, EXPIRY)
    assert says in str(refused.value)


def test_its_length_is_the_number_of_attempts() -> None:
    """Each wait is the schedule's, not the settings'; after the last attempt the callback has failed."""
    policy = scheduled(0, 30, 5, 3600)
    assert policy.max_attempts == 4
    assert [after(policy, n) for n in range(1, 5)] == [Retry(30_000), Retry(5000), Retry(3_600_000), Failed()]
    assert after(scheduled(0), 1) == Failed()
    assert after(scheduled(*[0] * MOST), MOST - 1) == Retry(0)


def test_jitter_and_expiry_are_the_settings() -> None:
    """Waits vary as the settings say; a status change's own expiry may end it sooner."""
    assert after(scheduled(0, 100), 1, rng=0.0) == Retry(90_000)
    assert after(scheduled(0, 100), 1, expires_ms=NOW + 50_000) == Expired()


def test_without_one_the_policy_is_the_settings() -> None:
    """The same object: nothing is computed."""
    policy = Policy()
    assert policy.of(None) is policy
    assert policy.of(Workspace("acme", "zeckta", "", (), NOW, "r")) is policy


def test_lost_attempts_go_by_it() -> None:
    """The last one fails; a second loss waits as the schedule says."""
    policy = scheduled(0, 30, 60)

    def lost(number: int, before: int) -> Outcome:
        return decide_lost(number, before, now_ms=NOW, expires_ms=NOW + 10**9, policy=policy, rng=0.5)

    assert [lost(1, 0), lost(2, 1), lost(3, 2)] == [Retry(0), Retry(60_000), Failed()]


@given(st.lists(st.integers(0, 10_000), min_size=0, max_size=15))
def test_what_is_shown_is_read_back(rest: list[int]) -> None:
    """`subscription show` prints what `update` takes."""
    delays = (0, *rest)
    assert parse_schedule(in_words(delays), EXPIRY) == delays
