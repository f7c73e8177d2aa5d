"""How long to wait after each attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import RetryCallState, Retrying, wait_exponential

from dispatcher.rules.backoff import MAX_DELAY_SECONDS, Backoff

rngs = st.floats(0, 1, exclude_max=True)
attempts = st.integers(1, 10**6)
backoffs = st.builds(
    Backoff,
    base_seconds=st.floats(0.001, 100_000),
    factor=st.floats(1, 1000),
    jitter=st.floats(0, 1),
)


@pytest.mark.parametrize(("attempt", "ms"), [(1, 15_000), (2, 240_000), (3, 3_840_000), (4, 61_440_000)])
def test_the_documented_delays(attempt: int, ms: int) -> None:
    """Without jitter the delays are 15 s, 4 min, 64 min and 17 h."""
    assert ms == Backoff().delay_ms(attempt, 0.5)


@pytest.mark.parametrize(("rng", "ms"), [(0.0, 13_500), (0.25, 14_250), (0.75, 15_750)])
def test_jitter_spreads_both_ways(rng: float, ms: int) -> None:
    """The random number moves a delay between its ends, evenly."""
    assert ms == Backoff().delay_ms(1, rng)


@given(attempt=st.integers(1, 4), rng=rngs)
def test_jitter_is_a_tenth_at_most(attempt: int, rng: float) -> None:
    """Every delay lies within 10 % of the documented one."""
    nominal = 15_000 * 16 ** (attempt - 1)
    assert 9 * nominal <= 10 * Backoff().delay_ms(attempt, rng) <= 11 * nominal


@given(backoff=backoffs, attempt=attempts, rng=rngs)
def test_delays_never_shrink(backoff: Backoff, attempt: int, rng: float) -> None:
    """With equal luck, a later attempt never waits less."""
    assert backoff.delay_ms(attempt, rng) <= backoff.delay_ms(attempt + 1, rng)


@given(backoff=backoffs, attempt=attempts, rng=rngs)
def test_delays_have_bounds(backoff: Backoff, attempt: int, rng: float) -> None:
    """No setting and no attempt number makes a delay negative, or longer than a week and its jitter."""
    assert 0 <= backoff.delay_ms(attempt, rng) <= round(1000 * MAX_DELAY_SECONDS * (1 + backoff.jitter))


@pytest.mark.parametrize("factor", [2, 2.0, 16, 1e300])
@pytest.mark.parametrize("attempt", [1_000, 10**9, 10**100])
def test_huge_attempt_numbers_wait_a_week(attempt: int, factor: float) -> None:
    """However far an attempt number runs away, its delay is a week and is computed at once."""
    assert 604_800_000 == Backoff(factor=factor).delay_ms(attempt, 0.5)


@given(rng=rngs, attempt=attempts)
def test_a_factor_of_one_is_a_steady_delay(rng: float, attempt: int) -> None:
    """With factor 1 and no jitter every delay is the first one."""
    assert 2_500 == Backoff(base_seconds=2.5, factor=1, jitter=0).delay_ms(attempt, rng)


@given(backoff=backoffs, attempt=st.integers(1, 100), rng=rngs)
def test_the_formula_is_the_usual_one(backoff: Backoff, attempt: int, rng: float) -> None:
    """To the millisecond the delays are those of another implementation of exponential backoff."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    theirs = wait_exponential(backoff.base_seconds, max=MAX_DELAY_SECONDS, exp_base=backoff.factor)
    spread = 1 + backoff.jitter * (2 * rng - 1)
    assert round(1000 * theirs(state) * spread) == backoff.delay_ms(attempt, rng)
