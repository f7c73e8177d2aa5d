"""Enqueuing, against a real server and against one that dies in the middle."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from dispatcher import (
    AsyncDispatcher,
    Dispatcher,
    EnqueueInterrupted,
    InvalidInput,
    Message,
    RedisFull,
    RedisUnavailable,
    Status,
    StatusChange,
)
from dispatcher.producer import BATCH

STAMP = "2026-06-09T13:04:57.487133482Z"


def change(number: int, **fields: object) -> dict[str, object]:
    """A valid status change as a backend would write it."""
    message = {"uuid": f"m{number}", "src": "ACME", "dest": "+233200000001"}
    return {"workspace": "acme", "status": "SENT", "timestamp": STAMP, "message": message, **fields}


def queued(url: str) -> list[StatusChange]:
    """What is on the queue, in order."""
    with redis.Redis.from_url(url) as client:
        return [StatusChange.from_json(fields[b"event"]) for _, fields in client.xrange("dispatcher:events")]


def test_enqueue(redis_url: str) -> None:
    """A status change arrives as it was given, and its eventId is returned."""
    message = Message(uuid="m1", src="ACME", dest="+233200000001", cost="0.05")
    given = StatusChange(workspace="acme", status=Status.SENT, timestamp=STAMP, message=message)
    with Dispatcher.from_url(redis_url) as dispatcher:
        assert [given.event_id] == dispatcher.enqueue(given)
    assert [given] == queued(redis_url)


def test_enqueue_many_keeps_order(redis_url: str) -> None:
    """More than a batch of status changes arrives in order, with their eventIds returned in order."""
    with Dispatcher.from_url(redis_url) as dispatcher:
        event_ids = dispatcher.enqueue_many(change(number) for number in range(BATCH + 10))
    assert [f"m{number}" for number in range(BATCH + 10)] == [one.message.uuid for one in queued(redis_url)]
    assert event_ids == [one.event_id for one in queued(redis_url)]


def test_none_of_an_invalid_call(redis_url: str) -> None:
    """Where some are invalid each is named by position, and none is enqueued."""
    with Dispatcher.from_url(redis_url) as dispatcher, pytest.raises(InvalidInput) as caught:
        dispatcher.enqueue_many([change(0), change(1, status="ARRIVED"), change(2, workspace="a b")])
    assert [1, 2] == [position for position, _ in caught.value.problems]
    assert "status: must be one of" in str(caught.value)
    assert [] == queued(redis_url)


def test_skip_invalid(redis_url: str) -> None:
    """Told to skip, the valid ones are enqueued."""
    with Dispatcher.from_url(redis_url) as dispatcher:
        event_ids = dispatcher.enqueue_many([change(0), change(1, status="ARRIVED")], skip_invalid=True)
    assert event_ids == [one.event_id for one in queued(redis_url)]


def test_async_twin(redis_url: str) -> None:
    """The asyncio client does the same."""

    async def work() -> list[str]:
        async with AsyncDispatcher.from_url(redis_url) as dispatcher:
            with pytest.raises(InvalidInput):
                await dispatcher.enqueue(change(0), change(1, extra=1))
            return await dispatcher.enqueue(change(0)) + await dispatcher.enqueue_many([change(1)])

    assert asyncio.run(work()) == [one.event_id for one in queued(redis_url)]


def test_own_prefix(redis_url: str) -> None:
    """With a key prefix the queue is another stream."""
    with Dispatcher.from_url(redis_url, key_prefix="other") as dispatcher:
        dispatcher.enqueue(change(0))
    with redis.Redis.from_url(redis_url) as client:
        assert [b"other:events"] == client.keys("*")


def test_redis_away() -> None:
    """Without Redis the error says which URL, without its password."""
    away = pytest.raises(RedisUnavailable, match=r"redis://127\.0\.0\.1:1/0 is not reachable")
    with Dispatcher.from_url("redis://user:hush@127.0.0.1:1/0") as dispatcher, away as caught:
        dispatcher.enqueue(change(0))
    assert "hush" not in str(caught.value)


def test_redis_full(redis_url: str) -> None:
    """A full Redis refuses with an error of its own, and nothing is on the queue."""
    with redis.Redis.from_url(redis_url) as client, Dispatcher.from_url(redis_url) as dispatcher:
        client.config_set("maxmemory", "1")
        try:
            with pytest.raises(RedisFull):
                dispatcher.enqueue(change(0))
        finally:
            client.config_set("maxmemory", "0")
    assert [] == queued(redis_url)


def test_interrupted() -> None:
    """When the connection breaks in the middle, the error lists what is on the queue for certain."""
    changes = [StatusChange.from_dict(change(number)) for number in range(BATCH * 2)]
    with (
        _server_that_dies_after(BATCH) as url,
        Dispatcher.from_url(url) as dispatcher,
        pytest.raises(EnqueueInterrupted) as caught,
    ):
        dispatcher.enqueue_many(changes)
    assert [one.event_id for one in changes[:BATCH]] == caught.value.confirmed


@contextmanager
def _server_that_dies_after(count: int) -> Iterator[str]:
    """Speaks just enough RESP to confirm `count` XADDs, then closes the connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        listener.close()
        with connection, connection.makefile("rb") as lines:
            confirmed = 0
            while confirmed < count:
                words = _command(lines)
                confirmed += words[0] == b"XADD"
                connection.sendall(b"$3\r\n1-1\r\n" if words[0] == b"XADD" else b"+OK\r\n")

    port = listener.getsockname()[1]
    thread = threading.Thread(target=serve)
    thread.start()
    yield f"redis://127.0.0.1:{port}/0"
    thread.join()


def _command(lines: object) -> list[bytes]:
    words = []
    for _ in range(int(lines.readline()[1:])):  # type: ignore[attr-defined]
        length = int(lines.readline()[1:])  # type: ignore[attr-defined]
        words.append(lines.read(length + 2)[:-2])  # type: ignore[attr-defined]
    return words
