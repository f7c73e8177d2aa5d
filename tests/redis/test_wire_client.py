"""redis-py's client over the wire: the same replies and errors as over its own connections, and one connection for all."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError

from dispatcher.store.connection import connect_async
from dispatcher.store.keys import keys_of
from dispatcher.store.servers import PlainServers
from dispatcher.store.wire_client import WireClient

Do = Callable[[Any], Awaitable[Any]]


async def piped(client: Any) -> Any:
    """Commands that are sent together, one of which the server refuses."""
    pipe = client.pipeline(transaction=False)
    pipe.hgetall("hash").zrange("zset", 0, -1, withscores=True).hgetall("zset").get("none")
    return [str(one) for one in await pipe.execute(raise_on_error=False)]


async def piped_whole(client: Any) -> Any:
    """Commands that are sent together, all of which succeed."""
    async with client.pipeline(transaction=False) as pipe:
        return [await pipe.execute(), await pipe.hmget("hash", ["a", "c"]).smembers("set").execute()]


async def doubled(client: Any) -> Any:
    """A transaction that watches a key."""

    async def double(pipe: Any) -> None:
        was = int(await pipe.get("number"))
        pipe.multi()
        pipe.set("number", was * 2).set("number", was)

    return await client.transaction(double, "number")


async def scanned(client: Any) -> Any:
    """What scans give."""
    return [
        [one async for one in client.hscan_iter("hash", count=10)],
        [one async for one in client.zscan_iter("zset")],
        sorted([one async for one in client.scan_iter("h*")]),
    ]


ACTIONS: list[Do] = [
    piped, piped_whole, doubled, scanned,
    lambda client: client.hgetall("hash"),
    lambda client: client.zrangebyscore("zset", 1.5, "+inf", withscores=True),
    lambda client: client.zadd("zset", {"b": 2.5}),
    lambda client: client.set("number", 4),
    lambda client: client.exists("hash", "none"),
    lambda client: client.config_get("maxmemory"),
    lambda client: client.eval("return {KEYS[1], ARGV[1]}", 1, "hash", 7),
    lambda client: client.xrange("none"),
]  # fmt: skip


def run(url: str, count: int, scene: Do) -> Any:
    """What a scene gives with the client of one of so many partitions on one server."""

    async def act() -> Any:
        servers = PlainServers([url], keys_of("dispatcher", count))
        try:
            return await scene(servers.client(count - 1))
        finally:
            await servers.aclose()

    return asyncio.run(act())


async def fill(client: Any) -> None:
    """A key of each kind."""
    await client.hset("hash", mapping={"a": 1, "b": "x"})
    await client.zadd("zset", {"a": 1, "b": 2.5})
    await client.sadd("set", "one")
    await client.set("number", 4)


@pytest.mark.parametrize("count", range(len(ACTIONS)))
def test_same_replies(redis_url: str, count: int) -> None:
    """A command, a pipeline, a scan or a transaction gives what it gives over redis-py's own connections."""

    async def both(client: Any) -> Any:
        assert isinstance(client, WireClient)
        own = connect_async(redis_url)
        try:
            await fill(own)
            return [await ACTIONS[count](one) for one in (own, client)]
        finally:
            await own.aclose()

    own, over_the_wire = run(redis_url, 4, both)
    assert own == over_the_wire


def test_refused_command(redis_url: str) -> None:
    """What the server refuses is raised, also of commands that are sent together."""

    async def refused(client: Any) -> None:
        await fill(client)
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await client.hgetall("zset")
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await client.pipeline(transaction=False).hgetall("zset").get("number").execute()
        assert b"4" == await client.get("number")

    run(redis_url, 4, refused)


def test_one_connection(redis_url: str) -> None:
    """A hundred commands at once, of different partitions, take one connection."""

    async def act() -> int:
        servers = PlainServers([f"{redis_url}?client_name=us"], keys_of("dispatcher", 16))
        try:
            await asyncio.gather(
                *(servers.client(n % 16).get(servers.keys[n % 16].format) for n in range(100))
            )
            return sum(one["name"] == "us" for one in await servers.client(0).client_list())
        finally:
            await servers.aclose()

    assert 1 == asyncio.run(act())


def test_one_partition_keeps_its_pool(redis_url: str) -> None:
    """An installation with one partition reads over redis-py's own connections: a large answer holds up no other command."""

    async def kind(client: Any) -> bool:
        return isinstance(client, WireClient)

    assert not run(redis_url, 1, kind)
