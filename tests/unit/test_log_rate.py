"""How often the API logs what callers cause."""

from structlog.testing import capture_logs

from dispatcher.api.app import AwayLog
from dispatcher.api.log_rate import SECONDS, LogRate
from dispatcher.errors import RedisFull, RedisUnavailable
from dispatcher.health import Health


def test_a_line_a_minute() -> None:
    """The first occurrence is logged at once, the others once a minute together; each name has a line of its own."""
    now = 0.0
    rate = LogRate(lambda: now)
    assert [1, 0, 0, 1] == [rate.count(name) for name in ("a", "a", "a", "b")]
    now = SECONDS
    assert [3, 0, 1] == [rate.count(name) for name in ("a", "a", "b")]


def test_calls_while_redis_is_away() -> None:
    """However many calls meet a Redis that is away, or full, each of the two is one line a minute."""
    now = 0.0
    away = AwayLog(Health(), LogRate(lambda: now))
    with capture_logs() as logged:
        for _ in range(50):
            away.note(RedisUnavailable("gone"))
            away.note(RedisFull("full"))
        now = SECONDS
        away.note(RedisUnavailable("still gone"))
    lines = [(line["event"], line["problem"], line["calls"]) for line in logged]
    away_lines = [("gone", 1), ("full", 1), ("still gone", 50)]
    assert [("api.redis_away", problem, calls) for problem, calls in away_lines] == lines


def test_a_full_redis_is_no_reason_to_be_unready() -> None:
    """A Redis that is full answers reads: the process stays ready. One that is away makes it unready at once."""
    health = Health()
    health.answered()
    away = AwayLog(health)
    with capture_logs():
        away.note(RedisFull("full"))
        assert "" == health.ready_problem()
        away.note(RedisUnavailable("gone"))
        assert health.ready_problem()
