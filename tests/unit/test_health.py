"""What /healthz and /readyz say."""

import asyncio
import http.client
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import structlog
from prometheus_client.core import GaugeMetricFamily

from config.settings import Settings
from dispatcher.errors import RedisFull, RedisUnavailable
from dispatcher.health import LIVE_SECONDS, READY_SECONDS, Health
from dispatcher.worker.redis_watch import RedisWatch
from tasks import wiring
from tasks.health import looking
from tasks.metrics_server import serve


class Clock:
    """Time that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def codes(health: Health) -> tuple[int, int]:
    """Of /healthz and of /readyz."""
    return health.answer("/healthz")[0], health.answer("/readyz")[0]


def test_health() -> None:
    """Alive while the loop turns; ready once Redis answered, while it goes on answering, and until the end."""
    clock = Clock()
    health = Health(clock)
    assert (200, 503) == codes(health)
    health.answered()
    assert (200, 200) == codes(health)
    clock.now += READY_SECONDS + 1
    assert (200, 503) == codes(health)
    health.answered()
    assert (200, 200) == codes(health)
    clock.now += LIVE_SECONDS + 1
    health.answered()
    assert (503, 503) == codes(health)
    health.turned()
    assert (200, 200) == codes(health)
    health.refused("Redis holds data of another version's format")
    assert (200, 503) == codes(health)
    assert "another version" in health.answer("/readyz")[1]
    health.answered()
    health.stopping = True
    assert (200, 503) == codes(health)


def test_a_failed_call_counts_at_once() -> None:
    """One call that Redis did not answer makes a process not ready, the next answer ready again; it lives all the while."""
    health = Health(Clock())
    health.answered()
    health.failed()
    assert (200, 503) == codes(health)
    health.answered()
    assert (200, 200) == codes(health)


def test_not_ready_says_what_redis_refuses() -> None:
    """A Redis that answers and refuses is not said to be silent; one that does not answer is."""
    health = Health(Clock())
    health.failed("Redis is a read-only replica and refuses writes")
    assert "Redis is a read-only replica and refuses writes" == health.ready_problem()
    health.answered()
    health.failed()
    assert health.ready_problem().startswith("Redis has not answered for")


def test_a_probe_shows_none_of_redis_own_words() -> None:
    """They may name a user or a file, and whoever reaches the port may probe."""
    health = Health(Clock())
    for why in (
        "Redis refuses us: User dispatcher-api has no permissions",
        "Redis cannot write its files (/data: No space left)",
    ):
        health.failed(why)
        assert health.ready_problem() in ("Redis refuses us", "Redis cannot write its files")


def test_redis_watch_logs_each_reason_once() -> None:
    """Repeats of a failure are logged once, another reason anew."""
    watch = RedisWatch()
    refused = RedisUnavailable("a", "Redis is a read-only replica")
    with structlog.testing.capture_logs() as lines:
        for error in (RedisUnavailable("gone"), RedisUnavailable("gone still"), refused, refused):
            watch.failed(error)
        watch.worked()
    assert [("redis.away", "gone"), ("redis.away", "a"), ("redis.back", None)] == [
        (line["event"], line.get("problem")) for line in lines
    ]


def test_a_lost_cancellation_keeps_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at Redis ends with its block, also where the Redis client swallows the cancellation, as it can."""
    begun = asyncio.Event()

    @asynccontextmanager
    async def swallowing(_: object) -> AsyncIterator[None]:
        if begun.is_set():  # it is lost once
            await asyncio.Event().wait()
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        yield

    monkeypatch.setattr(wiring, "store", swallowing)

    async def life() -> set[asyncio.Task[Any]]:
        async with looking(Health(), Settings(_env_file=None), writes=True):
            await begun.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        return (await asyncio.wait(others, timeout=10))[1]

    assert set() == asyncio.run(life())


class Hanging:
    """A collector that waits for a Redis that hangs."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Nothing, for long."""
        asyncio.run(asyncio.sleep(3600))
        yield from ()


def ask(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str, str | None]:
    """Status, text and Cache-Control."""
    connection = http.client.HTTPConnection(host, port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), answer.getheader("Cache-Control")
    connection.close()
    return found


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_health_while_a_scrape_hangs(host: str) -> None:
    """Whoever asks for health waits for no scrape."""
    health = Health()
    try:
        end, port = serve(0, Hanging(), health, host)
    except OSError:
        pytest.skip("no IPv6 here")
    scraping = http.client.HTTPConnection(host, port)
    scraping.request("GET", "/metrics")
    try:
        assert (200, "ok\n", "no-store") == ask(port, "/healthz", host)
        assert (503, "Redis has not answered yet\n", "no-store") == ask(port, "/readyz", host)
    finally:
        scraping.close()
        end()


def test_a_worker_is_not_ready_from_the_first_call_that_fails() -> None:
    """And ready again from the next one that does not; a Redis that is full answers, so it changes nothing."""
    health = Health()
    watch = RedisWatch(health=health)
    watch.worked()
    watch.failed(RedisFull("full"))
    assert "" == health.ready_problem()
    watch.failed(RedisUnavailable("away"))
    assert health.ready_problem().startswith("Redis has not answered")
    watch.worked()
    assert "" == health.ready_problem()
