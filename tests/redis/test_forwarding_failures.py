"""Workers, replies and servers that fail while entries are forwarded: nothing is lost, doubled or mixed up."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from dispatcher.errors import RedisFull, RedisUnavailable
from dispatcher.worker import intake, probe, put_off
from tasks.redis_server import RedisServer
from tests.partitioned import URL, Installation, Partition, holds, line, until


def test_death_between_the_two_steps(two_urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A forwarder that dies after the first step has its entries forwarded again by the next one: each is there once."""

    async def work() -> None:
        async with Installation(two_urls) as its:
            zero, one = its.partitions
            [theirs] = its.named(1)
            await one.add(theirs)
            reached = asyncio.Event()

            async def never(*_: object) -> None:
                reached.set()
                await asyncio.Event().wait()

            monkeypatch.setattr(zero.ledger, "forwarded", never)
            await zero.enqueue(line(n, theirs, "m") for n in range(50))
            await asyncio.wait_for(reached.wait(), 20)
            await until(lambda: one.has_taken(theirs, 1))
            await its.replace(0)
            zero = its.partitions[0]
            await zero.enqueue(line(n, theirs, "m") for n in range(50, 60))
            await until(its.is_empty)
            assert [f"e{n}" for n in range(60)] == await one.accepted(theirs, "m")
            assert 0 == one.metrics.taken["duplicate"]
            assert 10 <= zero.metrics.forwarded < 60, "what was there was not added again"

    asyncio.run(work())


@pytest.mark.parametrize("how", ["killed", "stalled"])
def test_target_away_and_back(two_urls: list[str], second_server: RedisServer, how: str) -> None:
    """While a target is away its entries wait in their order and others go on; it is said once; when it is back they arrive."""

    def send(number: int) -> None:
        os.kill(second_server._process.pid, number)  # type: ignore[union-attr]

    async def work() -> None:
        async with Installation(two_urls) as its:
            zero, one = its.partitions
            [mine], theirs = its.named(0), its.named(1, 5)
            await zero.add(mine)
            await one.add(*theirs)
            await until(lambda: holds(one.intake.leading and zero.intake.leading))
            zero.intake._follow = followed  # type: ignore[method-assign]
            second_server.kill() if how == "killed" else send(signal.SIGSTOP)
            try:
                for first in range(0, 200, 20):
                    numbers = range(first, first + 20)
                    await zero.enqueue(line(n, one, "m") for n in numbers for one in (*theirs, mine))
                    await until(partial(zero.has_taken, mine, first + 20))
                assert 1000 == await zero.queued()
            finally:
                second_server.start() if how == "killed" else send(signal.SIGCONT)
            await until(its.is_empty, 60)
            for workspace in theirs:
                assert [f"e{n}" for n in range(200)] == await one.accepted(workspace, "m")
            assert 0 == one.metrics.taken["duplicate"]

    def followed() -> None:
        raise AssertionError("waiting for the target cost the lease")

    with capture_logs() as said:
        asyncio.run(work())
    events = [entry["event"] for entry in said]
    assert 1 <= events.count("intake.not_forwarded") <= 2, "refused, or silent: not once for each try"
    assert 1 == events.count("intake.forwarding")
    assert "intake.internal_error" not in events


def test_one_part_away(two_urls: list[str], second_server: RedisServer) -> None:
    """While a part of a wide workspace is away, its home takes what is its own, and forwards what belongs to other parts."""

    async def work() -> None:
        async with Installation(two_urls, 4, {f"w{n}": 4 for n in range(1000)}) as its:
            [wide] = its.named(0)
            messages = its.messages_of(wide, 4)
            for part in its.partitions:
                await part.add(wide)
            await until(lambda: holds(all(one.intake.leading for one in its.partitions)))
            second_server.kill()
            try:
                for first in range(0, 60, 20):
                    numbers = range(first, first + 20)
                    await its.partitions[0].enqueue(
                        line(f"{n}x{place}", wide, message)
                        for n in numbers
                        for place, message in messages.items()
                    )
                    for place in (0, 2):
                        await until(partial(_took, its.partitions[place], wide, messages[place], first + 20))
            finally:
                second_server.start()
            await until(its.is_empty, 60)
            for place, message in messages.items():
                expected = [f"e{n}x{place}" for n in range(60)]
                assert expected == await its.partitions[place].accepted(wide, message)

    asyncio.run(work())


async def _took(part: Partition, workspace: str, message: str, count: int) -> bool:
    return len(await part.accepted(workspace, message)) == count


def test_target_full(two_urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A full target gets nothing, which is said once; its entries wait, others go on, and the source is not said to be full."""
    monkeypatch.setattr(probe, "PROBE_SECONDS", 0.01)
    for name in ("FIRST_SECONDS", "MOST_SECONDS"):
        monkeypatch.setattr(put_off, name, 0.1)
    refused: list[Exception] = []

    async def work() -> None:
        async with Installation(two_urls) as its:
            zero, one = its.partitions
            [mine], [theirs] = its.named(0), its.named(1)
            await zero.add(mine)
            await one.add(theirs)
            await one.client.config_set("maxmemory", 1)
            real = zero.ledgers[1].forward

            async def counting(*args: Any) -> int:
                try:
                    return await real(*args)
                except RedisFull as error:
                    refused.append(error)
                    raise

            monkeypatch.setattr(zero.ledgers[1], "forward", counting)
            await zero.enqueue(line(n, workspace, "m") for n in range(100) for workspace in (theirs, mine))
            await until(lambda: zero.has_taken(mine, 100))
            await until(lambda: holds(len(refused) > 3))
            assert (100, 0, 0) == (
                await zero.queued(),
                await one.queued(),
                await zero.client.exists(zero.keys.full),
            )
            await one.client.config_set("maxmemory", 0)
            await until(its.is_empty, 60)
            assert [f"e{n}" for n in range(100)] == await one.accepted(theirs, "m")

    with capture_logs() as said:
        asyncio.run(work())
    assert 1 == [entry["event"] for entry in said].count("intake.not_forwarded")


def test_probing_a_target_meets_a_bug(two_urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, which asyncio would not; the target is probed again, and gets its entries."""
    monkeypatch.setattr(probe, "PROBE_SECONDS", 0.01)
    for name in ("FIRST_SECONDS", "MOST_SECONDS"):
        monkeypatch.setattr(put_off, name, 0.1)
    meets: list[Exception] = [RedisUnavailable("away"), KeyError("bug"), KeyError("bug")]

    async def work() -> None:
        async with Installation(two_urls) as its:
            zero, one = its.partitions
            [theirs] = its.named(1)
            await one.add(theirs)
            real = zero.ledgers[1].forward

            async def breaks(*args: Any) -> int:
                if meets:
                    raise meets.pop(0)
                return await real(*args)

            monkeypatch.setattr(zero.ledgers[1], "forward", breaks)
            await zero.enqueue([line(0, theirs, "m")])
            await until(lambda: one.has_taken(theirs, 1))

    with capture_logs() as said:
        asyncio.run(work())
    told = [entry["problem"] for entry in said if entry["event"] == "intake.not_forwarded"]
    assert ["away", "'bug'"] == told


def test_source_full(two_urls: list[str]) -> None:
    """What belongs elsewhere leaves a full partition, though that accepts nothing: it makes room."""

    async def work() -> None:
        async with Installation(two_urls, starts=False) as its:
            zero, one = its.partitions
            [mine], [theirs] = its.named(0), its.named(1)
            await zero.add(mine)
            await one.add(theirs)
            await zero.enqueue(line(n, workspace, "m") for n in range(20) for workspace in (mine, theirs))
            await zero.client.config_set("maxmemory", 1)
            try:
                zero.start()
                one.start()
                await until(lambda: one.has_taken(theirs, 20))
                await until(lambda: zero.has_queued(20))
            finally:
                await zero.client.config_set("maxmemory", 0)
            await until(its.is_empty)
            assert [f"e{n}" for n in range(20)] == await zero.accepted(mine, "m")
            assert [f"e{n}" for n in range(20)] == await one.accepted(theirs, "m")

    asyncio.run(work())


def test_source_full_and_a_workspace_made_anew(two_urls: list[str]) -> None:
    """What leaves a full partition goes where its workspace's record of now says, as it does while there is room."""

    async def work() -> None:
        async with Installation(two_urls, 2, {f"w{n}": 2 for n in range(100)}) as its:
            zero, one = its.partitions
            mine, wide = its.named(0, 2)
            for part in its.partitions:
                await part.add(mine, wide)
            message, own = its.messages_of(wide, 2)[1], its.messages_of(mine, 2)[0]
            await zero.enqueue([line(1, wide, message)])
            await until(lambda: zero.has_queued(0))
            await until(lambda: _took(one, wide, message, 1))
            for part in its.partitions:
                await part.client.delete(part.keys.workspace(wide), part.keys.workspaces)
            await zero.workspaces.add(wide, "zeckta", URL, now_ms=2)
            async with zero.client.pipeline(transaction=True) as pipe:
                for name, number, uuid in ((mine, 2, own), (wide, 3, message)):
                    pipe.xadd(zero.keys.events, {"event": line(number, name, uuid)})
                pipe.execute_command("CONFIG", "SET", "maxmemory", 1)
                await pipe.execute()
            try:
                await until(lambda: holds(wide in zero.cache.reads[-1:] and zero.intake._full))
            finally:
                await zero.client.config_set("maxmemory", 0)
            await until(its.is_empty)
            assert ["e3"] == await zero.accepted(wide, message)
            assert ["e1"] == await one.accepted(wide, message)

    asyncio.run(work())


def test_replies_that_are_lost(two_urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of both steps that fail, before they ran or after it, lose nothing, double nothing and mix up nothing."""
    rng = random.Random(5)
    monkeypatch.setattr(probe, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(intake, "FOLLOW_SECONDS", 0.01)
    for name in ("FIRST_SECONDS", "MOST_SECONDS"):
        monkeypatch.setattr(put_off, name, 0.05)

    def unreliable(real: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def call(*args: object) -> object:
            chance = rng.random()
            if chance < 0.2:
                raise RedisUnavailable("not sent")
            found = await real(*args)
            if chance < 0.4:
                raise RedisUnavailable("its reply was lost")
            return found

        return call

    async def work() -> None:
        async with Installation(two_urls) as its:
            zero, one = its.partitions
            theirs = its.named(1, 5)
            await one.add(*theirs)
            monkeypatch.setattr(zero.ledger, "forwarded", unreliable(zero.ledger.forwarded))
            monkeypatch.setattr(zero.ledgers[1], "forward", unreliable(zero.ledgers[1].forward))
            for first in range(0, 300, 10):
                lines = [line(n, workspace, "m") for n in range(first, first + 10) for workspace in theirs]
                await zero.enqueue(lines)
                await asyncio.sleep(0.02)
            await until(its.is_empty, 60)
            for workspace in theirs:
                assert [f"e{n}" for n in range(300)] == await one.accepted(workspace, "m")
            await until(lambda: one.has_counted(1500))
            assert {"accepted": 1500} == +one.metrics.taken

    asyncio.run(work())
