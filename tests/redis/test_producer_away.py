"""Enqueuing to several servers of which one is away, silent or full, and while the interpreter ends."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import redis

from dispatcher import AsyncDispatcher, Dispatcher, EnqueueInterrupted
from dispatcher.producer import BATCH, Ready, ready
from dispatcher.rules.partitions import Partitioning
from dispatcher.store.keys import keys_of
from tasks.redis_server import RedisServer
from tests.redis.partitioned import BOTH, Enqueue, many, queue, queues, urls
from tests.redis.test_cancelled import cancelled_after

NOW_MS = 2_000_000_000_000


AWAY = "redis://user:hush@127.0.0.1:1/0"


@BOTH
def test_one_server_is_away(redis_url: str, enqueue: Enqueue) -> None:
    """What goes to the other one is on the queue, and confirmed; the error names the server, without its password."""
    given = many()
    with pytest.raises(EnqueueInterrupted, match=r"redis://127\.0\.0\.1:1/0 is not reachable") as caught:
        enqueue(f"{redis_url} {AWAY}", given, {"partitions": 16})
    assert "hush" not in str(caught.value)
    found = [one.event_id for keys in keys_of("dispatcher", 16)[::2] for one in queue(redis_url, keys.events)]
    assert sorted(found) == sorted(caught.value.confirmed)
    wanted = [one["eventId"] for one in given if Partitioning(16).home(str(one["workspace"])) % 2 == 0]
    assert wanted == caught.value.confirmed


@BOTH
def test_the_server_with_the_number_of_partitions_is_away(redis_url: str, enqueue: Enqueue) -> None:
    """A new producer cannot compare its number, and enqueues nothing."""
    with pytest.raises(EnqueueInterrupted, match=r"127\.0\.0\.1:1/0 is not reachable") as caught:
        enqueue(f"{AWAY} {redis_url}", many(), {"partitions": 16})
    assert [] == caught.value.confirmed
    with redis.Redis.from_url(redis_url) as client:
        assert [] == client.keys("*")


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


@contextlib.contextmanager
def silent_server() -> Iterator[tuple[str, list[socket.socket]]]:
    """The URL of a server that takes connections and never answers, and its connections."""
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connections.append(listener.accept()[0])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0?socket_timeout=0.5", connections
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in connections:
                connection.close()


@BOTH
def test_a_server_that_does_not_answer_is_asked_once(redis_url: str, enqueue: Enqueue) -> None:
    """Of several batches one waits for it, and all go to the other."""
    given = [one | {"workspace": f"w{number}"} for number, one in enumerate(many(4 * BATCH))]
    with silent_server() as (silent, connections):
        with pytest.raises(EnqueueInterrupted, match="Timeout reading from") as caught:
            enqueue(f"{redis_url} {silent}", given, {"partitions": 1024})
        assert 1 == len(connections)
    homes = [Partitioning(1024).home(str(one["workspace"])) for one in given]
    assert sum(home % 2 == 0 for home in homes) == len(caught.value.confirmed)


def test_while_the_interpreter_ends(two: list[RedisServer]) -> None:
    """What is enqueued by a handler of atexit arrives too, where there are no new threads any more."""
    code = """
import atexit, json, sys
from dispatcher import Dispatcher
dispatcher = Dispatcher.from_url(sys.argv[1], partitions=16)
atexit.register(lambda: dispatcher.enqueue_many(json.loads(sys.argv[2])))
"""
    given = many(60)
    program = [sys.executable, "-c", code, urls(two), json.dumps(given)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert "" == done.stderr
    assert 60 == sum(map(len, queues([server.url for server in two], 16)))


def test_cancelled_on_the_way_to_two_servers(two: list[RedisServer]) -> None:
    """A cancellation arrives, whichever of two servers has answered by then, and the dispatcher goes on."""

    async def work() -> None:
        async with AsyncDispatcher.from_url(urls(two), partitions=16) as dispatcher:
            turns, was_there_time = 0, False
            while not was_there_time:
                turns += 1
                was_there_time = not await cancelled_after(turns, dispatcher.enqueue_many(many(60)))
            assert 60 == len(await dispatcher.enqueue_many(many(60)))

    asyncio.run(work())
