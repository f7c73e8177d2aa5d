"""What tests of producers with partitions share: both dispatchers, status changes, and what is on the queues."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis

from dispatcher import AsyncDispatcher, Dispatcher, StatusChange
from dispatcher.producer import BATCH
from dispatcher.store.keys import keys_of
from tasks.redis_server import RedisServer
from tests.redis.test_producer import change

NAMES = [f"customer-{number}" for number in range(60)]

Enqueue = Callable[..., list[str]]


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
