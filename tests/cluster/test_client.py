"""redis-py's client of one partition: commands of readers, pipelines, transactions and subscriptions, wherever the partition is."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import AskError, WatchError

from dispatcher.errors import RedisUnavailable
from dispatcher.rules.partitions import slot_of
from dispatcher.store.connection import redis_now_ms, translated
from tests.cluster.partitions import COUNT, KEYS, SLOTS, Partitions
from tests.cluster.servers import Cluster
from tests.cluster.test_moves import asking, elsewhere, moved

P = 5
KEY = f"{KEYS[P].root}hash"


def test_commands(of_either: Partitions) -> None:
    """Plain commands, with and without keys, are answered by the node that holds the partition."""
    client = of_either.servers.client(P)

    async def scene() -> None:
        assert 0 < await redis_now_ms(client)
        assert 2 == await client.hset(KEY, mapping={"a": "1", "b": "2"})
        assert {b"a": b"1", b"b": b"2"} == await client.hgetall(KEY)
        assert [(b"a", b"1"), (b"b", b"2")] == [pair async for pair in client.hscan_iter(KEY)]
        assert [KEY.encode()] == [key async for key in client.scan_iter(f"{KEYS[P].root}*")]
        port = int(of_either.servers.node(P).name.rpartition(":")[2])
        assert port == (await client.info("server"))["tcp_port"]
        assert client is of_either.servers.client(P)

    of_either.run(scene())


def test_all_at_once(partitions: Partitions) -> None:
    """Clients of all partitions, used before anything is known of the cluster, each find their node."""

    async def scene() -> list[Any]:
        clients = [partitions.servers.client(number) for number in range(COUNT)]
        await asyncio.gather(*(client.set(KEYS[n].root, n) for n, client in enumerate(clients)))
        return await asyncio.gather(*(client.get(KEYS[n].root) for n, client in enumerate(clients)))

    assert [str(number).encode() for number in range(COUNT)] == partitions.run(scene())


def test_command_after_a_move(partitions: Partitions, cluster: Cluster) -> None:
    """A command that a node answers with MOVED is sent once more, to the new one."""
    client = partitions.servers.client(P)
    partitions.run(client.hset(KEY, "a", "1"))
    before, old = moved(cluster.holder(SLOTS[P])), cluster.holder(SLOTS[P])
    cluster.move(SLOTS[P], elsewhere(cluster))
    assert {b"a": b"1"} == partitions.run(client.hgetall(KEY))
    assert before + 1 == moved(old)


@pytest.mark.parametrize("transaction", [True, False])
def test_pipeline_after_a_move(partitions: Partitions, cluster: Cluster, transaction: bool) -> None:
    """A pipeline, or a transaction, of which nothing ran is sent once more."""
    client = partitions.servers.client(P)
    partitions.run(client.hset(KEY, "a", "1"))
    cluster.move(SLOTS[P], elsewhere(cluster))

    async def scene() -> list[Any]:
        async with client.pipeline(transaction=transaction) as pipe:
            return await pipe.hincrby(KEY, "a").hincrby(KEY, "a").execute()

    assert [2, 3] == partitions.run(scene())


def test_pipeline_of_which_a_part_ran(partitions: Partitions, cluster: Cluster) -> None:
    """Of a pipeline with a command that the old node did answer, only the others are sent again, to the new one."""
    client = partitions.servers.client(P)
    partitions.run(client.set(KEY, 1))
    cluster.move(SLOTS[P], elsewhere(cluster))

    async def scene() -> list[Any]:
        async with client.pipeline(transaction=False) as pipe:
            return await pipe.incr(KEY).incr(KEY).time().execute()

    assert [2, 3] == partitions.run(scene())[:2]


def test_ask_is_never_followed(of_either: Partitions, either: Cluster) -> None:
    """While a slot moves key by key, a command, a pipeline and a transaction raise, and change nothing on the target."""
    client = of_either.servers.client(P)
    of_either.run(client.set(f"{KEYS[P].root}stays", 1))
    target = elsewhere(either)
    either.begin_move(SLOTS[P], target)

    async def sent_together(transaction: bool) -> Any:
        async with client.pipeline(transaction=transaction) as pipe:
            return await pipe.set(KEY, 1).set(KEY, 2).execute()

    for call in (lambda: client.set(KEY, 1), lambda: sent_together(True), lambda: sent_together(False)):
        with (
            pytest.raises(RedisUnavailable, match=rf"\(partition {P}\) is moving slot {SLOTS[P]} "),
            translated(""),
        ):
            of_either.run(call())
    assert b"1" == of_either.run(client.get(f"{KEYS[P].root}stays"))
    with pytest.raises(AskError):
        of_either.run(client.get(KEY))
    assert asking(target, "GET", KEY) is None


def test_watched_keys(partitions: Partitions, cluster: Cluster) -> None:
    """A transaction starts anew if its partition moves between reading and writing; one that finds a change does too."""
    client = partitions.servers.client(P)
    partitions.run(client.set(KEY, 1))
    read: list[int] = []

    async def double(pipe: Any) -> None:
        read.append(int(await pipe.get(KEY)))
        if len(read) == 1:
            await asyncio.to_thread(cluster.move, SLOTS[P], elsewhere(cluster))
            await asyncio.sleep(0)
        if len(read) == 2:
            await client.set(KEY, 10)
        pipe.multi()
        pipe.set(KEY, read[-1] * 2)

    assert [True] == partitions.run(client.transaction(double, KEY))
    assert ([1, 1, 10], b"20") == (read, partitions.run(client.get(KEY)))


def test_read_of_a_watched_key_after_a_move(partitions: Partitions, cluster: Cluster) -> None:
    """A partition that moves before what is watched is read is the same as a watched key that changes."""
    client = partitions.servers.client(P)
    partitions.run(client.set(KEY, 1))

    async def scene() -> None:
        async with client.pipeline() as pipe:
            await pipe.watch(KEY)
            await asyncio.to_thread(cluster.move, SLOTS[P], elsewhere(cluster))
            with pytest.raises(WatchError):
                await pipe.get(KEY)
            await pipe.watch(KEY)
            assert b"1" == await pipe.get(KEY)

    partitions.run(scene())


def test_subscription(partitions: Partitions) -> None:
    """What is published by a client of another node reaches a subscriber."""

    async def scene() -> Any:
        async with partitions.servers.client(P).pubsub() as channel:
            await channel.subscribe("news")
            assert await channel.get_message(timeout=5.0)
            await partitions.servers.client((P + COUNT // 2) % COUNT).publish("news", "hello")
            return await channel.get_message(timeout=5.0)

    assert b"hello" == partitions.run(scene())["data"]


def test_connections_are_shared(partitions: Partitions, cluster: Cluster) -> None:
    """Clients of partitions on the same node use each other's connections, and give them back."""

    async def scene() -> None:
        for number in range(COUNT):
            await partitions.servers.client(number).set(KEYS[number].root, 1)

    partitions.run(scene())
    for node in cluster.primaries():
        assert 1 == len([c for c in node.client.client_list(_type="normal") if c["cmd"] == "set"])


def test_key_of_no_partition(partitions: Partitions, cluster: Cluster) -> None:
    """A key without a tag is found where it lies, also after its slot moved; an error says which key it was."""
    key = "dispatcher:partitions"
    slot = slot_of(key)
    assert cluster.holder(slot).run("CLUSTER", "KEYSLOT", key) == slot
    assert b"OK" == partitions.run(partitions.servers.call_for(key, "SET", key, COUNT))
    cluster.move(slot, elsewhere(cluster, slot))
    assert str(COUNT).encode() == partitions.run(partitions.servers.call_for(key, "GET", key))
    cluster.holder(slot).run("ACL", "SETUSER", "default", "-incr")
    try:
        with pytest.raises(RedisUnavailable, match=f"key {key}\\) refuses us"), translated(""):
            partitions.run(partitions.servers.call_for(key, "INCR", key))
    finally:
        cluster.holder(slot).run("ACL", "SETUSER", "default", "+incr")
