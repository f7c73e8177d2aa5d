"""Enqueuing, against a real server and against one that dies in the middle."""

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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
from dispatcher.producer import BATCH, Change

OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
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
    """Details to skip, the valid ones are enqueued."""
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


WRONG_KINDS = {
    "a list": (
        [change(0)],
        "is a list: enqueue takes status changes one by one; enqueue_many takes a list of them",
    ),
    "a generator": (
        (change(number) for number in range(2)),
        "is a generator: enqueue takes status changes one by one; enqueue_many takes a list of them",
    ),
    "text": ("{}", "is a str: give a StatusChange or a dict; StatusChange.from_json reads JSON"),
    "bytes": (b"{}", "is a bytes: give a StatusChange or a dict; StatusChange.from_json reads JSON"),
    "None": (None, "is None: give a StatusChange or a dict"),
    "a number": (7, "is an int: give a StatusChange or a dict"),
    "a message": (
        Message(uuid="m1", src="ACME", dest="+233"),
        "is a Message: give a StatusChange or a dict",
    ),
}


@pytest.mark.parametrize("case", WRONG_KINDS)
def test_what_is_no_status_change(redis_url: str, case: str) -> None:
    """What enqueue cannot take is named, with what to give in its place; nothing is enqueued beside it."""
    given, text = WRONG_KINDS[case]
    with Dispatcher.from_url(redis_url) as dispatcher, pytest.raises(InvalidInput) as caught:
        dispatcher.enqueue(change(0), given)  # type: ignore[arg-type]
    assert [(1, text)] == caught.value.problems
    assert f"1 status change is invalid, none was enqueued: number 1: {text}" == str(caught.value)
    assert [] == queued(redis_url)


@pytest.mark.parametrize("given", [change(0), StatusChange.from_dict(change(0)), "text", b"bytes", None, 7])
def test_enqueue_many_of_one(redis_url: str, given: Any) -> None:
    """enqueue_many of what is not several says so."""
    with (
        Dispatcher.from_url(redis_url) as dispatcher,
        pytest.raises(InvalidInput, match="enqueue_many takes a list of status changes, or another iterable"),
    ):
        dispatcher.enqueue_many(given)


def in_hours(hours: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()


CERTAIN = {
    "another scheme": ({"callbackUrl": "ftp://customer.example/"}, "callback URL must start with https://"),
    "no URL": ({"callbackUrl": "customer.example/hooks"}, "callback URL must start with https://"),
    "user name": (
        {"callbackUrl": "https://me:hush@customer.example/"},
        "callback URL must not carry a user name or password",
    ),
    "fragment": ({"callbackUrl": "https://customer.example/#x"}, "callback URL must not have a fragment"),
    "no host": ({"callbackUrl": "https:///hooks"}, "callback URL has no host"),
    "no port": ({"callbackUrl": "https://customer.example:70000/"}, "callback URL cannot be read"),
    "blank": ({"callbackUrl": "https://customer.example/a b"}, "callback URL has a blank"),
    "ahead": ({"timestamp": in_hours(2)}, "h ahead; at most 1 h is allowed"),
    "long": (
        {"message": {"uuid": "m1", "src": "a", "dest": "b", "provider": {"x": "y" * 65_536}}},
        "bytes long as JSON; the limit is 65,536",
    ),
}


@pytest.mark.parametrize("case", CERTAIN)
@pytest.mark.parametrize("kind", [dict, StatusChange.from_dict])
def test_what_is_certain_to_be_rejected(redis_url: str, case: str, kind: Callable[[object], Change]) -> None:
    """What each worker would reject is refused where it is enqueued, with the same words."""
    fields, text = CERTAIN[case]
    with Dispatcher.from_url(redis_url) as dispatcher, pytest.raises(InvalidInput) as caught:
        dispatcher.enqueue(kind(change(0, **fields)))
    assert str(caught.value).startswith("the status change is invalid, and was not enqueued: ")
    assert text in str(caught.value)
    assert "hush" not in str(caught.value)
    assert [] == queued(redis_url)


def test_what_is_not_certain_is_enqueued(redis_url: str) -> None:
    """Old changes, http, private addresses, names beyond ASCII, and half an hour ahead: workers say what becomes of them."""
    changes = [
        change(0, timestamp="2001-06-09T13:04:57Z"),
        change(1, callbackUrl="http://10.0.0.1:8080/"),
        change(2, callbackUrl="https://bücher.example/"),
        change(3, timestamp=in_hours(0.9)),
    ]
    with Dispatcher.from_url(redis_url) as dispatcher:
        assert 4 == len(dispatcher.enqueue(*changes)) == dispatcher.queued()


async def enqueued_by(url: str, changes: list[Change], *, is_async: bool, **options: bool) -> list[str]:
    """By either dispatcher."""
    if is_async:
        async with AsyncDispatcher.from_url(url) as dispatcher:
            return await dispatcher.enqueue_many(changes, check=True, **options)
    with Dispatcher.from_url(url) as blocking:
        return blocking.enqueue_many(changes, check=True, **options)


@pytest.mark.parametrize("is_async", [False, True])
def test_check_knows_unknown_workspaces(redis_url: str, is_async: bool) -> None:
    """Details to check, a change of an unknown workspace is invalid, among others that are; one question is asked of Redis."""
    with redis.Redis.from_url(redis_url) as client:
        client.sadd("dispatcher:workspaces", "acme", "bluefin")
        client.config_resetstat()
        changes = [
            change(0),
            change(1, workspace="acne"),
            change(2, workspace="bluefin"),
            change(3, status="X"),
        ]
        with pytest.raises(InvalidInput) as caught:
            asyncio.run(enqueued_by(redis_url, changes, is_async=is_async))
        assert (1, "workspace: there is no workspace 'acne'") == caught.value.problems[0]
        assert [1, 3] == [position for position, _ in caught.value.problems]
        assert [] == queued(redis_url)
        assert 2 == len(asyncio.run(enqueued_by(redis_url, changes, is_async=is_async, skip_invalid=True)))
        assert ["acme", "bluefin"] == [one.workspace for one in queued(redis_url)]
        assert 2 == client.info("commandstats")["cmdstat_smismember"]["calls"]


def test_check_by_a_user_that_may_not_ask(redis_url: str) -> None:
    """A Redis user that may only enqueue is told what it lacks; with what the operator's document adds it may ask."""
    (line,) = re.findall(r"^ACL SETUSER dispatcher-producer (.*)$", OPERATIONS, re.M)
    (more,) = re.findall(r"`(~dispatcher:workspaces [^`]*)`", OPERATIONS)
    with redis.Redis.from_url(redis_url) as client, contextlib.ExitStack() as after:
        after.callback(client.acl_deluser, "p")
        client.execute_command("ACL SETUSER", "p", *line.replace("PASSWORD", "x").split())
        dispatcher = after.enter_context(Dispatcher.from_url(redis_url.replace("unix://", "unix://p:x@")))
        with pytest.raises(RedisUnavailable, match=r"check=True needs `~dispatcher:workspaces \+smismember`"):
            dispatcher.enqueue(change(0), check=True)
        client.execute_command("ACL SETUSER", "p", *more.split())
        with pytest.raises(InvalidInput, match="there is no workspace 'acme'"):
            dispatcher.enqueue(change(0), check=True)


def test_queued_and_closed(redis_url: str) -> None:
    """Both dispatchers say how long the queue is, and close as asyncio's and contextlib's tools do."""

    async def work() -> int:
        async with contextlib.aclosing(AsyncDispatcher.from_url(redis_url)) as dispatcher:
            await dispatcher.enqueue(change(0))
            return await dispatcher.queued()

    with contextlib.closing(Dispatcher.from_url(redis_url)) as dispatcher:
        assert (0, 1, 1) == (dispatcher.queued(), asyncio.run(work()), dispatcher.queued())


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
