"""Intake keeps what it is told of messages, and callbacks never depend on that."""

import asyncio

import pytest

from dispatcher.model import Status
from dispatcher.store.keys import Keys
from dispatcher.store.messages import Messages
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.recorder import Recorder
from tests.redis.test_intake import Reader, accepted, line

KEYS = Keys()


async def intake(
    url: str, *lines: bytes, retention_ms: int = 60_000, key: str = ""
) -> tuple[Reader, Metrics]:
    """An intake with a message store that has taken these lines; `key` stands in its way."""
    metrics = Metrics()
    reader = Reader(url, Recorder(retention_ms, metrics))
    await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
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
    """Where a record's key is broken, all callbacks are accepted as ever, the others recorded, and the failure counted."""

    async def work() -> tuple[list[str], dict[str, int]]:
        broken = KEYS.status("acme", "m1")
        reader, metrics = await intake(redis_url, line(1), line(2), key=broken)
        ids = await accepted(reader)
        await reader.close()
        return ids, metrics.recorded

    ids, recorded = asyncio.run(work())
    assert ["e1", "e2"] == ids
    assert {"recorded": 1, "late": 0, "conflict": 0, "failed": 1} == recorded


def test_unpreparable_change_is_nothing_to_callbacks(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a change cannot even be prepared for the store, its callback is accepted."""
    monkeypatch.setattr("dispatcher.store.message_record.details_of", lambda *_: 1 / 0)

    async def work() -> tuple[list[str], int]:
        reader, metrics = await intake(redis_url, line(1))
        ids = await accepted(reader)
        await reader.close()
        return ids, metrics.recorded["failed"]

    assert (["e1"], 1) == asyncio.run(work())


def test_conflict_is_not_recorded(redis_url: str) -> None:
    """Of two status changes with one eventId the first one stands, in a batch and after it, in both ledger and store."""

    async def work() -> tuple[list[Status], dict[str, int]]:
        sent, failed = line(1), line(1, status="FAILED")
        reader, metrics = await intake(redis_url, sent, failed)
        await reader.close()
        reader = Reader(redis_url, Recorder(60_000, metrics))
        await reader.client.xadd(KEYS.events, {"event": line(1, status="DELIVERED")})
        await reader.drain()
        [found] = await Messages(reader.wire.call, KEYS).get_many("acme", ["m1"])
        await reader.close()
        return [status for status, _ in found.history], metrics.recorded

    history, recorded = asyncio.run(work())
    assert [Status.SENT] == history
    assert {"recorded": 1, "late": 0, "conflict": 2, "failed": 0} == recorded
