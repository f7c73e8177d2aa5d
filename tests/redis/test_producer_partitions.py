"""Enqueuing to partitions, on one server and on several that know nothing of each other."""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from dispatcher import (
    AsyncDispatcher,
    Dispatcher,
    DispatcherError,
    EnqueueInterrupted,
    InvalidInput,
    RedisUnavailable,
    StatusChange,
)
from dispatcher.producer import BATCH, Ready, ready
from dispatcher.rules.partitions import Partitioning
from dispatcher.store.keys import keys_of
from tasks.redis_server import RedisServer
from tests.redis.test_producer import change

PARTITIONS = Path(__file__).parents[2] / "docs" / "partitions.md"
NAMES = [f"customer-{number}" for number in range(60)]

NOW_MS = 2_000_000_000_000

Enqueue = Callable[..., list[str]]


@pytest.fixture
def two(server_program: str, tmp_path: Path) -> Iterator[list[RedisServer]]:
    """Two servers."""
    with contextlib.ExitStack() as stack:
        folders = [tmp_path / "a", tmp_path / "b"]
        for folder in folders:
            folder.mkdir()
        yield [stack.enter_context(RedisServer(one, executable=server_program)) for one in folders]


def urls(servers: list[RedisServer]) -> str:
    """Their URLs, as a setting names them."""
    return ", ".join(server.url for server in servers)


def blocking(url: str, changes: list[Any], options: dict[str, Any], **how: Any) -> list[str]:
    """Enqueues with Dispatcher."""
    with Dispatcher.from_url(url, **options) as dispatcher:
        return dispatcher.enqueue_many(changes, **how)


def by_asyncio(url: str, changes: list[Any], options: dict[str, Any], **how: Any) -> list[str]:
    """Enqueues with AsyncDispatcher."""

    async def work() -> list[str]:
        async with AsyncDispatcher.from_url(url, **options) as dispatcher:
            return await dispatcher.enqueue_many(changes, **how)

    return asyncio.run(work())


BOTH = pytest.mark.parametrize("enqueue", [blocking, by_asyncio])


def queue(url: str, key: str) -> list[StatusChange]:
    """What is on one queue, in order."""
    with redis.Redis.from_url(url) as client:
        return [StatusChange.from_json(fields[b"event"]) for _, fields in client.xrange(key)]


def queues(servers: list[str], partitions: int) -> list[list[StatusChange]]:
    """What is on the queue of each partition, at the server where it has to be; nothing is anywhere else."""
    found = [
        queue(servers[one.partition % len(servers)], one.events) for one in keys_of("dispatcher", partitions)
    ]
    total = 0
    for url in servers:
        with redis.Redis.from_url(url) as client:
            total += sum(client.xlen(key) for key in client.keys("*:events"))
    assert total == sum(map(len, found))
    return found


def many(count: int = BATCH + 200) -> list[dict[str, object]]:
    """Changes of several messages of every workspace: change n is the n-th of its message."""
    return [
        change(
            number,
            workspace=NAMES[number % 60],
            message={"uuid": f"m{number % 180}", "src": "A", "dest": "+1"},
        )
        | {"eventId": f"e{number}"}
        for number in range(count)
    ]


@BOTH
@pytest.mark.parametrize("partitions", [2, 16, 256])
def test_each_on_the_queue_of_its_partition(redis_url: str, enqueue: Enqueue, partitions: int) -> None:
    """A status change is on its partition's queue; a workspace that is spread is on several, by its messages."""
    widths = {NAMES[7]: 4}
    given = many()
    ids = enqueue(redis_url, given, {"partitions": partitions, "widths": widths})
    assert [one["eventId"] for one in given] == ids
    division = Partitioning(partitions)
    for partition, found in enumerate(queues([redis_url], partitions)):
        wanted = [
            one["eventId"]
            for one in given
            if partition
            == division.of(one["workspace"], one["message"]["uuid"], widths.get(one["workspace"], 1))  # type: ignore[index,arg-type,call-overload]
        ]
        assert wanted == [one.event_id for one in found]


@BOTH
def test_two_servers(two: list[RedisServer], enqueue: Enqueue) -> None:
    """Partition i is on server i mod 2, and the changes of a message are there in their order."""
    given = many()
    ids = enqueue(urls(two), given, {"partitions": 16})
    found = queues([server.url for server in two], 16)
    assert sorted(ids) == sorted(one.event_id for queue in found for one in queue)
    assert all(any(found[start::2]) for start in (0, 1))
    for changes in found:
        numbers = [int(one.event_id[1:]) for one in changes]
        assert sorted(numbers) == numbers


def test_one_partition_has_no_tag_and_asks_nothing(redis_url: str) -> None:
    """With one partition the queue is as ever, and nothing is read before the first status change."""
    with redis.Redis.from_url(redis_url) as client, Dispatcher.from_url(redis_url) as dispatcher:
        client.set("dispatcher:partitions", "16")
        client.config_resetstat()
        dispatcher.enqueue(change(0))
        assert {"cmdstat_xadd"} <= set(client.info("commandstats"))
        assert not {"cmdstat_get", "cmdstat_role"} & set(client.info("commandstats"))
        assert 1 == client.xlen("dispatcher:events")


@BOTH
def test_another_number_of_partitions(two: list[RedisServer], enqueue: Enqueue) -> None:
    """A producer with another number of partitions than the installation says what to pass, and enqueues nothing."""
    with redis.Redis.from_url(two[0].url) as client:
        client.set("dispatcher:partitions", "256")
    with pytest.raises(InvalidInput) as caught:
        enqueue(urls(two), many(3), {"partitions": 16})
    assert (
        "this installation has 256 partitions, and 16 are configured here: pass partitions=256, or set "
        "DISPATCHER_PARTITIONS=256"
    ) == str(caught.value)
    assert not any(queues([server.url for server in two], 16))
    assert 3 == len(enqueue(urls(two), many(3), {"partitions": 256}))


def test_when_the_number_is_read(redis_url: str) -> None:
    """It is read until it is there, and not again: a new installation has none before its first worker."""
    with redis.Redis.from_url(redis_url) as client:
        with Dispatcher.from_url(redis_url, partitions=4) as dispatcher:
            dispatcher.enqueue(change(0))
            client.set("dispatcher:partitions", "2")
            for ask in (dispatcher.queued, lambda: dispatcher.enqueue(change(1), check=True)):
                with pytest.raises(InvalidInput, match="pass partitions=2"):
                    ask()
            client.set("dispatcher:partitions", "4")
            client.config_resetstat()
            dispatcher.enqueue(change(2))
            dispatcher.enqueue(change(3))
            assert 3 == dispatcher.queued()
        assert 1 == client.info("commandstats")["cmdstat_get"]["calls"]


@pytest.mark.parametrize("text", ["", "0", "many", "1025", "16 ", "²", "9" * 5000])
def test_a_damaged_number(redis_url: str, text: str) -> None:
    """What is no number of partitions is called so."""
    with redis.Redis.from_url(redis_url) as client:
        client.set("dispatcher:partitions", text)
    with (
        Dispatcher.from_url(redis_url, partitions=4) as dispatcher,
        pytest.raises(DispatcherError, match=r"the key dispatcher:partitions in Redis holds no number"),
    ):
        dispatcher.enqueue(change(0))


@BOTH
def test_check_and_queued(two: list[RedisServer], enqueue: Enqueue) -> None:
    """Whether a workspace exists is asked of its home, and all queues are counted."""
    keys = keys_of("dispatcher", 16)
    division = Partitioning(16)
    for name in NAMES[1:]:
        home = division.home(name)
        with redis.Redis.from_url(two[home % 2].url) as client:
            client.sadd(keys[home].workspaces, name)
    with pytest.raises(InvalidInput) as caught:
        enqueue(urls(two), many(60), {"partitions": 16}, check=True)
    assert [(0, "workspace: there is no workspace 'customer-0'")] == caught.value.problems
    enqueue(urls(two), many(60), {"partitions": 16}, check=True, skip_invalid=True)
    with Dispatcher.from_url(urls(two), partitions=16) as dispatcher:
        assert ["customer-0", "nobody"] == dispatcher.unknown_workspaces([*NAMES, "nobody", "nobody"])
        assert 59 == dispatcher.queued()


@BOTH
def test_one_server_is_away(two: list[RedisServer], enqueue: Enqueue) -> None:
    """What goes to the other one is on the queue, and confirmed; the error names the server, without its password."""
    two[1].stop()
    away = f"redis://user:hush@127.0.0.1:1/0 {two[0].url}"
    keys, given = keys_of("dispatcher", 16), many()
    with pytest.raises(EnqueueInterrupted, match=r"redis://127\.0\.0\.1:1/0 is not reachable") as caught:
        enqueue(away.replace(two[0].url, "") + f",{two[0].url}", given, {"partitions": 16})
    assert "hush" not in str(caught.value)
    assert caught.value.confirmed == []  # the number of partitions is on the first server
    there_first = f"{two[0].url} redis://user:hush@127.0.0.1:1/0"
    with pytest.raises(EnqueueInterrupted, match=r"127\.0\.0\.1:1/0 is not reachable") as caught:
        enqueue(there_first, given, {"partitions": 16})
    assert "hush" not in str(caught.value)
    found = [one.event_id for key in keys[::2] for one in queue(two[0].url, key.events)]
    assert sorted(found) == sorted(caught.value.confirmed)
    wanted = [one["eventId"] for one in given if Partitioning(16).home(str(one["workspace"])) % 2 == 0]
    assert wanted == caught.value.confirmed


def test_nothing_overtakes_what_was_refused(two: list[RedisServer]) -> None:
    """Where a server refuses something, nothing that comes after it goes there, also if it would take that again."""
    with (
        redis.Redis.from_url(two[1].url) as client,
        Dispatcher.from_url(urls(two), partitions=16) as dispatcher,
    ):
        client.config_set("maxmemory", "1")

        def changes() -> Iterator[Ready]:
            for number, one in enumerate(many(BATCH) * 2):
                if number == BATCH:
                    client.config_set("maxmemory", "0")
                yield ready(one, NOW_MS)

        with pytest.raises(EnqueueInterrupted, match=r"is full \(maxmemory\)") as caught:
            dispatcher.enqueue_ready(changes())
        assert [] == client.keys("*:events")
    there = [one for one in many(BATCH) if Partitioning(16).home(str(one["workspace"])) % 2 == 0]
    assert 2 * len(there) == len(caught.value.confirmed)


def test_a_user_that_may_only_enqueue(redis_url: str) -> None:
    """A Redis user for a producer with partitions needs the three rules of the document, and is told of each that it lacks."""
    (line,) = re.findall(r"^ACL SETUSER dispatcher-producer (.*)$", PARTITIONS.read_text(), re.M)
    with redis.Redis.from_url(redis_url) as client, contextlib.ExitStack() as after:
        after.callback(client.acl_deluser, "p")
        client.execute_command("ACL SETUSER", "p", *line.replace("PASSWORD", "x").split())
        url = redis_url.replace("unix://", "unix://p:x@")
        dispatcher = after.enter_context(Dispatcher.from_url(url, partitions=4))
        dispatcher.enqueue(change(0))
        with pytest.raises(
            RedisUnavailable, match=r"check=True needs `~dispatcher:\{\*\}:workspaces \+smismember`"
        ):
            dispatcher.enqueue(change(0), check=True)
        client.execute_command("ACL SETUSER", "p", "-get")
        other = after.enter_context(Dispatcher.from_url(url, partitions=4))
        with pytest.raises(RedisUnavailable, match=r"it needs `~dispatcher:partitions \+get`"):
            other.enqueue(change(0))


def test_a_client_of_ones_own(redis_url: str) -> None:
    """The constructor takes a client and partitions, for one server."""
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    client.set("dispatcher:partitions", "16")
    with Dispatcher(client, redis_url, partitions=16) as dispatcher:
        assert 60 == len(dispatcher.enqueue_many(many(60)))
    assert 60 == sum(map(len, queues([redis_url], 16)))


def test_while_the_interpreter_ends(two: list[RedisServer]) -> None:
    """What is enqueued by a handler of atexit arrives too, where there are no new threads any more."""
    code = """
import atexit, json, sys
from dispatcher import Dispatcher
dispatcher = Dispatcher.from_url(sys.argv[1], partitions=16)
atexit.register(lambda: dispatcher.enqueue_many(json.loads(sys.argv[2])))
"""
    given = many(60)
    command = [sys.executable, "-c", code, urls(two), json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "" == done.stderr
    assert 60 == sum(map(len, queues([server.url for server in two], 16)))
