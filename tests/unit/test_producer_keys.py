"""Producers' keys that are remembered for seconds."""

import asyncio
import gc

import pytest

from dispatcher.errors import RedisUnavailable
from dispatcher.store import producer_keys
from dispatcher.store.api_keys import PRODUCERS, ApiKey
from dispatcher.store.producer_keys import KEPT_SECONDS, ProducerKeys


class Redis:
    """Stands for ApiKeys: knows some keys, and counts how often it is asked."""

    def __init__(self, **platforms: str) -> None:
        self.platforms = platforms
        self.asked = 0
        self.away = False

    async def verify(self, text: str) -> ApiKey | None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise RedisUnavailable("away")
        platform = self.platforms.get(text)
        return ApiKey(text, PRODUCERS, platform, "test", 0, 10) if platform else None


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def made(**platforms: str) -> tuple[Redis, Clock, ProducerKeys]:
    """Keys, by text and platform."""
    redis, clock = Redis(**platforms), Clock()
    return redis, clock, ProducerKeys(redis, clock)  # type: ignore[arg-type]


def test_a_key_is_looked_up_once_in_seconds() -> None:
    """A key that was valid is not asked for again until its time is over; a revoked one is refused then."""
    redis, clock, keys = made(good=PRODUCERS)

    async def use() -> None:
        assert keys.kept("good") is None
        for _ in range(3):
            assert await keys.identify("good") == keys.kept("good") != None  # noqa: E711
        assert 1 == redis.asked
        clock.now += KEPT_SECONDS
        assert keys.kept("good") is None
        assert await keys.identify("good")
        redis.platforms = {}
        clock.now += KEPT_SECONDS - 0.1
        assert await keys.identify("good")
        clock.now += 0.1
        assert (None, None) == (await keys.identify("good"), keys.kept("good"))
        assert 3 == redis.asked

    asyncio.run(use())


def test_those_who_ask_at_the_same_time() -> None:
    """They share one question, also if it fails; the next one asks again."""
    redis, _, keys = made(good=PRODUCERS)

    async def use() -> None:
        redis.away = True
        failed = await asyncio.gather(*(keys.identify("good") for _ in range(5)), return_exceptions=True)
        assert {RedisUnavailable} == {type(one) for one in failed}
        redis.away = False
        assert all(await asyncio.gather(*(keys.identify("good") for _ in range(5))))
        assert 2 == redis.asked

    asyncio.run(use())


def test_one_who_stops_waiting() -> None:
    """A caller that is cancelled takes the answer from no other."""
    _, _, keys = made(good=PRODUCERS)

    async def use() -> None:
        first, second = (asyncio.create_task(keys.identify("good")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second

    asyncio.run(use())


def test_nobody_waits_any_more() -> None:
    """A question that fails after all who asked it were cancelled is no error that asyncio would log."""
    redis, _, keys = made()
    unseen: list[str] = []

    async def use() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context["message"]))
        redis.away = True
        asking = asyncio.create_task(keys.identify("good"))
        await asyncio.sleep(0)
        asking.cancel()
        while keys._asking:
            await asyncio.sleep(0)
        gc.collect()  # such a task says so when it goes

    asyncio.run(use())
    assert [] == unseen


def test_nothing_else_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that are no producer's key take no memory, and valid keys are bounded: the oldest goes."""
    monkeypatch.setattr(producer_keys, "MAX_KEPT", 2)
    redis, _, keys = made(customer="zeckta", one=PRODUCERS, two=PRODUCERS, three=PRODUCERS)

    async def use() -> None:
        for text in ("customer", *map(str, range(50))):
            assert (None, None) == (await keys.identify(text), keys.kept(text))
        assert 51 == redis.asked
        assert (0, 0) == (len(keys._kept), len(keys._asking))
        for text in ("one", "two", "three"):
            assert await keys.identify(text)
        assert [None, "two", "three"] == [key and key.id for key in map(keys.kept, ("one", "two", "three"))]

    asyncio.run(use())
