"""Intake keeps what it is told of messages, and callbacks never depend on that."""

import asyncio

import pytest
from redis.exceptions import ResponseError

from dispatcher.keys import Keys
from dispatcher.metrics import Metrics
from dispatcher.model import Status
from dispatcher.scripts import sha
from dispatcher.status_api.messages import Messages
from dispatcher.status_api.record import Recorder
from dispatcher.wire import Argument
from tests.redis.test_intake import Reader, accepted, line

KEYS = Keys()


async def intake(
    url: str, *lines: bytes, retention_ms: int = 60_000, key: str = ""
) -> tuple[Reader, Metrics]:
    """An intake with a message store that has taken these lines; `key` stands in its way."""
    reader, metrics = Reader(url), Metrics()
    await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
    reader.intake._recorder = Recorder(reader.wire.call, KEYS, url, retention_ms, metrics)
    if key:
        await reader.client.lpush(key, "not a string")
    for one in lines:
        await reader.client.xadd(KEYS.events, {"event": one})
    await reader.drain()
    return reader, metrics


def test_statuses_without_a_callback_are_kept_too(redis_url: str) -> None:
    """QUEUED causes no callback, and is the message's status all the same."""

    async def work() -> tuple[list[str], list[Status]]:
        reader, _ = await intake(redis_url, line(1, status="QUEUED"), line(2), line(3, status="NONSENSE"))
        found = await Messages(reader.wire.call, KEYS).get_many("acme", ["m1", "m2", "m3"])
        ids = await accepted(reader)
        await reader.close()
        return ids, [one.status for one in found]

    assert (["e2"], [Status.QUEUED, Status.SENT]) == asyncio.run(work())


def test_broken_store_is_nothing_to_callbacks(redis_url: str) -> None:
    """Where the script fails, the callbacks are accepted as ever, and the failures are counted."""

    async def work() -> tuple[list[str], int]:
        broken = KEYS.status("acme", "m1")
        reader, metrics = await intake(redis_url, line(1), line(2), key=broken)
        ids = await accepted(reader)
        await reader.close()
        return ids, metrics.recorded["failed"]

    ids, failed = asyncio.run(work())
    assert (["e1", "e2"], True) == (ids, failed > 0)


def test_unpreparable_change_is_nothing_to_callbacks(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a change cannot even be prepared for the store, its callback is accepted."""
    monkeypatch.setattr("dispatcher.status_api.record.told_by", lambda *_: 1 / 0)

    async def work() -> tuple[list[str], int]:
        reader, metrics = await intake(redis_url, line(1))
        ids = await accepted(reader)
        await reader.close()
        return ids, metrics.recorded["failed"]

    assert (["e1"], 1) == asyncio.run(work())


def test_what_was_accepted_was_recorded(redis_url: str) -> None:
    """Recording goes to Redis before acceptance: a worker that dies between the two loses nothing."""
    names = {sha(name): name for name in ("record", "accept")}
    order: list[str] = []

    async def work() -> None:
        reader, _ = await intake(redis_url, line(1))  # the scripts are known to Redis then
        call = reader.wire.call

        async def watched(*command: Argument) -> object:
            order.extend(names[one] for one in command[1:2] if one in names)
            return await call(*command)

        reader.ledger._scripts._call = watched
        reader.intake._recorder = Recorder(watched, KEYS, redis_url, 60_000)
        reader.intake._stop.clear()
        await reader.client.xadd(KEYS.events, {"event": line(2)})
        await reader.drain()
        await reader.close()

    asyncio.run(work())
    assert ["record", "accept"] == order


def test_script_that_cannot_be_loaded_is_nothing_to_callbacks(redis_url: str) -> None:
    """A Redis that will not have the script has the callbacks all the same."""

    async def work() -> list[str]:
        reader, _ = await intake(redis_url)
        call = reader.wire.call

        async def refusing(*command: Argument) -> object:
            if command[:2] == ("SCRIPT", "LOAD"):
                raise ResponseError("ERR Error compiling script")
            return await call(*command)

        reader.intake._recorder = Recorder(refusing, KEYS, redis_url, 60_000)
        reader.intake._recorder_is_ready = False
        reader.intake._stop.clear()
        await reader.client.script_flush()
        await reader.client.xadd(KEYS.events, {"event": line(1)})
        await reader.drain()
        ids = await accepted(reader)
        await reader.close()
        return ids

    assert ["e1"] == asyncio.run(work())
