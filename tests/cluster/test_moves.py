"""Slots that are moved to another node: key by key, as clusters always could, and atomically, as Valkey 9 can."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError

from dispatcher.errors import RedisUnavailable
from dispatcher.store.arguments import WITH_ARCHIVE
from dispatcher.store.arrivals import Arrivals, ToldQueue
from dispatcher.store.script_text import source
from tests.cluster.node import ClusterNode
from tests.cluster.partitions import COUNT, KEYS, SLOTS, Partitions
from tests.cluster.servers import Cluster
from tests.world import START_MS, TOKEN, callback

P = 5
"""The partition that is moved."""
MOVES = pytest.mark.parametrize("move", [Cluster.move, Cluster.move_atomically], ids=["classic", "atomic"])


def elsewhere(cluster: Cluster, slot: int = SLOTS[P]) -> ClusterNode:
    """A primary that does not hold a slot."""
    return next(node for node in cluster.primaries() if node is not cluster.holder(slot))


def moved(node: ClusterNode) -> int:
    """How many commands a node has answered with MOVED."""
    return int(node.client.info("errorstats").get("errorstat_MOVED", {"count": 0})["count"])


@MOVES
def test_is_followed(
    partitions: Partitions, cluster: Cluster, move: Callable[[Cluster, int, ClusterNode], None]
) -> None:
    """After a move each thing goes on where it was, on a node that has never seen our scripts; the old one is asked once."""
    world, source_node, target = partitions.world(P), cluster.holder(SLOTS[P]), elsewhere(cluster)
    world.accept(callback("e1"), callback("e2", message="m2"))
    [one] = world.claim(count=1).callbacks
    before = moved(source_node)
    target.run("SCRIPT", "FLUSH")
    target.run("FUNCTION", "FLUSH")
    move(cluster, SLOTS[P], target)
    assert world.settle(one.event_id, one.claim)[1]
    assert ["duplicate"] == world.accept(callback("e1"))[1]
    assert ["e2"] == world.deliver_all()
    assert target.address == partitions.servers.node(P).name
    assert before + 1 == moved(source_node)


@MOVES
def test_commands_sent_together(
    partitions: Partitions, cluster: Cluster, move: Callable[[Cluster, int, ClusterNode], None]
) -> None:
    """Commands that were sent together all reach the new node, in their order; what one is refused is its own."""
    wire, key = partitions.servers.wire(P), f"{KEYS[P].root}list"
    partitions.run(wire.call("RPUSH", key, "a"))
    move(cluster, SLOTS[P], elsewhere(cluster))
    replies = partitions.run(wire.call_all([("RPUSH", key, "b"), ("GET", key), ("RPUSH", key, "c")]))
    assert (2, 3) == (replies[0], replies[2])
    assert isinstance(replies[1], ResponseError)
    assert [b"a", b"b", b"c"] == partitions.run(wire.call("LRANGE", key, 0, -1))


@MOVES
def test_the_queue_of_a_slot_that_has_moved(
    partitions: Partitions, cluster: Cluster, move: Callable[[Cluster, int, ClusterNode], None]
) -> None:
    """Who asks the old node whether entries have come reads the queue, which finds the new one."""
    world = partitions.world(P)

    async def read() -> int:
        arrivals = Arrivals(partitions.servers)
        queue = ToldQueue(partitions.servers.wire(P).call, KEYS[P], arrivals)
        try:
            return len(await queue.read(10))
        finally:
            await arrivals.aclose()

    assert 0 == partitions.run(read())
    world.enqueued(1)
    move(cluster, SLOTS[P], elsewhere(cluster))
    assert 1 == partitions.run(read())


def test_while_a_slot_moves_key_by_key(of_either: Partitions, either: Cluster) -> None:
    """With keys on both sides a script call raises in one clear line and changes nothing; it goes on after the move."""
    world, other = of_either.world(P), of_either.world((P + 1) % COUNT)
    world.accept(*(callback(f"e{n}", message=f"m{n}") for n in range(20)))
    target = elsewhere(either)
    source_node = either.begin_move(SLOTS[P], target)
    keys = source_node.run("CLUSTER", "GETKEYSINSLOT", SLOTS[P], 1000)
    either.move_keys(source_node, target, keys[::2])
    before = dumped(source_node, target)
    for call in (world.claim, lambda: world.accept(callback("new"), entries=["1-1"]), world.lead):
        with pytest.raises(RedisUnavailable) as caught:
            call()
        assert str(caught.value) == (
            f"Redis at redis://{source_node.address}/0 (partition {P}) is moving slot {SLOTS[P]} to another node key by key; "
            "meanwhile nothing is done with its keys. Work on them goes on when the move has ended (CLUSTER SETSLOT ... NODE "
            "on both nodes)"
        )
    assert before == dumped(source_node, target)
    assert ["accepted"] == other.accept(callback("e1"))[1]
    either.end_move(SLOTS[P], source_node, target)
    assert 20 == len(world.deliver_all())
    assert target.address == of_either.servers.node(P).name


def dumped(*nodes: ClusterNode) -> list[tuple[str, bytes]]:
    """All keys of a partition, with their values."""
    keys = [(node, key) for node in nodes for key in sorted(node.client.keys(f"{KEYS[P].root}*"))]
    return [(f"{node.port} {key.decode()}", asking(node, "DUMP", key)) for node, key in keys]


def test_what_following_ask_would_do(partitions: Partitions, cluster: Cluster) -> None:
    """A script that is sent on to the target with ASKING sees nothing of the ledger, and makes a second one. Ours is not sent."""
    world = partitions.world(P)
    world.accept(callback("e1"))
    target = elsewhere(cluster)
    source_node = cluster.begin_move(SLOTS[P], target)
    args = [KEYS[P].root, START_MS, 20, 604_800_000, "impostor", 30_000, 0, 0, WITH_ARCHIVE]
    assert b"leading" == asking(target, "EVAL", source("lead"), 1, *args)[0]
    assert [TOKEN, "impostor"] == [
        asking(node, "GET", KEYS[P].intake).decode() for node in (source_node, target)
    ]
    for key in target.run("KEYS", f"{KEYS[P].root}*"):  # takes that back
        asking(target, "DEL", key)
    with pytest.raises(RedisUnavailable, match="is moving slot"):
        world.lead("impostor")
    cluster.end_move(SLOTS[P], source_node, target)
    assert TOKEN == target.run("GET", KEYS[P].intake)
    assert world.lead("impostor") is None


def asking(node: ClusterNode, *command: Any) -> Any:
    """What a node that is importing a slot answers to a client which follows ASK."""
    with node.client.pipeline(transaction=False) as pipe:
        pipe.execute_command("ASKING")
        pipe.execute_command(*command)
        return pipe.execute()[1]


def test_atomic_move_under_load(partitions: Partitions, cluster: Cluster) -> None:
    """A script that is called all the time while its slot moves counts on without a gap, and nobody gets an error."""
    client = cluster.holder(SLOTS[P]).client
    for first in range(0, 20_000, 1000):
        client.mset({f"{KEYS[P].root}{n}": "x" * 100 for n in range(first, first + 1000)})

    async def scene() -> list[int]:
        moving = asyncio.create_task(asyncio.to_thread(cluster.move_atomically, SLOTS[P], elsewhere(cluster)))
        counted = []
        while not moving.done():
            counted.append(await partitions.count(P))
        await moving
        return [*counted, await partitions.count(P)]

    source_node = cluster.holder(SLOTS[P])
    counted = partitions.run(scene())
    assert list(range(1, len(counted) + 1)) == counted
    assert len(counted) > 100
    assert source_node is not cluster.holder(SLOTS[P])
    assert 20_001 == cluster.holder(SLOTS[P]).run("CLUSTER", "COUNTKEYSINSLOT", SLOTS[P])
