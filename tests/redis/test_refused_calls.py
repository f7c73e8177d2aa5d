"""Refused calls of the API on a real server: what is counted, and how little a flood of them costs."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from dispatcher.store.refused_calls import REASONS, Refusals
from dispatcher.store.wire import Call, Wire
from tests.fakes import until
from tests.world import START_MS, World

HOUR_MS = 3_600_000


@pytest.fixture
def call(world: World) -> Iterator[Call]:
    """What sends commands to the world's Redis."""
    wire = Wire(world.client)
    yield wire.call
    world.run(wire.close())


def test_flood_is_written_together(world: World, call: Call) -> None:
    """Ten thousand refusals are a few commands and a line for each reason; none is lost when the process ends."""

    async def flood() -> int:
        refusals = Refusals(call, world.keys)
        before = (await world.client.info("commandstats")).get("cmdstat_hincrby", {"calls": 0})["calls"]
        for number in range(10_000):
            refusals.add("wrong", now_ms=START_MS)
            if number % 100 == 0:  # others have their turn, and Redis its answers
                await world.client.ping()
        refusals.add("rate", "key_1", now_ms=START_MS)
        await asyncio.sleep(0)
        for _ in range(5):
            refusals.add("wrong", "key_2", now_ms=START_MS)
        await refusals.close()
        return (await world.client.info("commandstats"))["cmdstat_hincrby"]["calls"] - before

    with capture_logs() as logs:
        assert world.run(flood()) <= 8
    assert len(logs) <= 3
    assert 10_006 == sum(line["calls"] for line in logs)
    reader = Refusals(call, world.keys)
    assert {("wrong", ""): 10_000, ("wrong", "key_2"): 5, ("rate", "key_1"): 1} == world.run(
        reader.last(START_MS, 1)
    )
    assert dict.fromkeys(REASONS, 0) | {"wrong": 10_005, "rate": 1} == world.run(reader.totals())


def test_hours(world: World, call: Call) -> None:
    """Each hour has its own counts, which are gone after eight days; the total stays."""

    async def work() -> None:
        for hour in range(3):
            refusals = Refusals(call, world.keys)
            refusals.add("missing", now_ms=START_MS + hour * HOUR_MS)
            await refusals.close()

    world.run(work())
    reader = Refusals(call, world.keys)
    assert [1, 2, 3, 3] == [
        sum(world.run(reader.last(START_MS + 2 * HOUR_MS, hours)).values()) for hours in (1, 2, 3, 168)
    ]
    lives = [world.call("ttl", key) for key in world.call("keys", "*:api-refusals:*")]
    assert [True] * 3 == [0 < life <= 8 * 86_400 for life in lives]


def test_a_counter_of_the_wrong_type(world: World, call: Call) -> None:
    """What meets an unexpected error is in the log; what comes after that is counted."""

    async def work() -> dict[str, int]:
        refusals = Refusals(call, world.keys)
        await world.client.set(world.keys.api_refused, "text")
        with capture_logs() as logs:
            refusals.add("wrong", now_ms=START_MS)
            await until(lambda: "api.refusals_uncounted" in [line["event"] for line in logs])
        await world.client.delete(world.keys.api_refused)
        refusals.add("rate", now_ms=START_MS)
        await refusals.close()
        return await refusals.totals()

    assert dict.fromkeys(REASONS, 0) | {"rate": 1} == world.run(work())


def test_a_bug(world: World) -> None:
    """A fault of ours that keeps refusals from being written is logged, and later ones are tried all the same."""

    def breaks(*_command: object) -> Any:
        raise KeyError("bug")

    async def work() -> None:
        refusals = Refusals(breaks, world.keys)
        for _ in range(2):
            refusals.add("wrong", now_ms=START_MS)
            await asyncio.sleep(0)
        await refusals.close()

    with capture_logs() as logs:
        world.run(work())
    assert ["api.refused", "api.refusals_uncounted"] * 2 == [line["event"] for line in logs]


def test_redis_away(world: World) -> None:
    """What cannot be counted is in the log, and nothing else happens."""

    async def away(*_command: object) -> None:
        raise ConnectionError("away")

    async def work() -> None:
        refusals = Refusals(away, world.keys)
        refusals.add("wrong", now_ms=START_MS)
        await refusals.close()

    with capture_logs() as logs:
        world.run(work())
    assert ["api.refused", "api.refusals_uncounted"] == [line["event"] for line in logs]
