"""Enqueuing to a real cluster: where its nodes are, slots that move, and a node that is away."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from dispatcher import Dispatcher, EnqueueInterrupted, InvalidInput
from dispatcher.errors import DispatcherError
from dispatcher.rules.partitions import SLOTS, Partitioning, slot_of, tags
from dispatcher.store.keys import keys_of
from tasks.redis_server import RedisServer
from tests.redis.partitioned import BOTH, NAMES, Enqueue, many
from tests.redis.small_cluster import SmallCluster, free_port
from tests.redis.test_producer import change

P = 16


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCluster]:
    """A cluster for tests that leave its slots where they were."""
    with contextlib.closing(cluster_in(tmp_path_factory.mktemp("cluster"))) as cluster:
        yield cluster


@pytest.fixture
def cluster(started: SmallCluster) -> SmallCluster:
    """It, empty."""
    for client in started.clients:
        client.flushall()
    return started


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[SmallCluster]:
    """A cluster for one test."""
    with contextlib.closing(cluster_in(tmp_path)) as cluster:
        yield cluster


def cluster_in(folder: Path, *options: str) -> SmallCluster:
    """Three primaries; skips where there is no Valkey."""
    try:
        return SmallCluster(folder, 3, *options)
    except DispatcherError as error:
        pytest.skip(str(error))


def ids(client: "redis.Redis", key: str) -> list[str]:
    """The eventIds on a queue of a node, in order."""
    return [json.loads(fields[b"event"])["eventId"] for _, fields in client.xrange(key)]


def on_queues(cluster: SmallCluster) -> list[list[str]]:
    """The eventIds on the queue of each partition, at the node that held its slot at the start."""
    slots = [slot_of(tag) for tag in tags(P)]
    keys = keys_of("dispatcher", P)
    return [
        ids(cluster.clients[cluster.holder(slot)], one.events) for slot, one in zip(slots, keys, strict=True)
    ]


def wanted(changes: list[dict[str, object]]) -> list[list[str]]:
    """What each partition has to get, in order."""
    homes = [Partitioning(P).home(str(one["workspace"])) for one in changes]
    return [
        [str(one["eventId"]) for one, home in zip(changes, homes, strict=True) if home == partition]
        for partition in range(P)
    ]


@BOTH
def test_each_at_its_node(cluster: SmallCluster, enqueue: Enqueue) -> None:
    """Status changes are on their partitions' queues, whichever node of the cluster the URL names."""
    last = f"redis+cluster://127.0.0.1:{cluster.ports[2]}"
    given = many()
    assert [one["eventId"] for one in given] == enqueue(last, given, {"partitions": P})
    assert wanted(given) == on_queues(cluster)


@BOTH
def test_the_installations_number(cluster: SmallCluster, enqueue: Enqueue) -> None:
    """The number of partitions is found in the slot of its key, wherever that is."""
    key = "dispatcher:partitions"
    with redis.RedisCluster(host="127.0.0.1", port=cluster.ports[0]) as client:
        client.set(key, "256")
    with pytest.raises(InvalidInput, match="pass partitions=256"):
        enqueue(cluster.url, many(3), {"partitions": P})


def test_check_and_queued(cluster: SmallCluster) -> None:
    """Workspaces are asked for at their homes, and queues are counted, at all nodes."""
    keys = keys_of("dispatcher", P)
    with redis.RedisCluster(host="127.0.0.1", port=cluster.ports[0]) as client:
        for name in NAMES[:30]:
            client.sadd(keys[Partitioning(P).home(name)].workspaces, name)
    with Dispatcher.from_url(cluster.url, partitions=P) as dispatcher:
        assert NAMES[30:] == dispatcher.unknown_workspaces(NAMES)
        dispatcher.enqueue_many(many(60), check=True, skip_invalid=True)
        assert 30 == dispatcher.queued()


def test_a_slot_that_moves(fresh: SmallCluster) -> None:
    """While a slot is on its way its new changes follow it, in order, and afterwards too."""
    partition = Partitioning(P).home(NAMES[0])
    key, slot = keys_of("dispatcher", P)[partition].events, slot_of(tags(P)[partition])
    source = fresh.holder(slot)
    target = (source + 1) % 3
    given = [change(n, workspace=NAMES[0]) | {"eventId": f"e{n}"} for n in range(40)]
    with Dispatcher.from_url(fresh.url, partitions=P) as dispatcher:
        dispatcher.unknown_workspaces(NAMES[:1])  # it knows the map as it is now
        fresh.clients[target].execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", fresh.id(source))
        fresh.clients[source].execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", fresh.id(target))
        dispatcher.enqueue_many(given[:20])  # ASK: the source has no such queue
        assert [] == fresh.clients[source].keys(key)
        for client in (fresh.clients[target], fresh.clients[source]):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", fresh.id(target))
        dispatcher.enqueue_many(given[20:30])  # MOVED
        calls = fresh.clients[source].info("commandstats")["cmdstat_xadd"]
        dispatcher.enqueue_many(given[30:])
        assert calls == fresh.clients[source].info("commandstats")["cmdstat_xadd"]  # it knows
    assert [one["eventId"] for one in given] == ids(fresh.clients[target], key)


@BOTH
def test_a_node_that_is_away(fresh: SmallCluster, enqueue: Enqueue) -> None:
    """What goes to the others is on the queue, and confirmed; the error names the node and no password."""
    for client in fresh.clients:
        client.config_set("requirepass", "hush-hush")
    away = other_than_the_numbers(fresh)
    fresh.servers[away].kill()
    given, url = many(), fresh.url.replace("//", "//:hush-hush@")
    with pytest.raises(EnqueueInterrupted, match=f"127.0.0.1:{fresh.ports[away]} is not reachable") as caught:
        enqueue(url, given, {"partitions": P})
    assert "hush" not in str(caught.value)
    slots = [slot_of(tag) for tag in tags(P)]
    homes = [Partitioning(P).home(str(one["workspace"])) for one in given]
    there = [
        one["eventId"] for one, home in zip(given, homes, strict=True) if fresh.holder(slots[home]) != away
    ]
    assert 0 < len(there) < len(given)
    assert there == caught.value.confirmed


def other_than_the_numbers(cluster: SmallCluster) -> int:
    """A node that does not hold the number of partitions."""
    return (cluster.holder(slot_of("dispatcher:partitions")) + 1) % 3


def test_after_a_node_was_away(fresh: SmallCluster) -> None:
    """The map is read again after a failure: what a node held that is dead is found where it is now."""
    dead = other_than_the_numbers(fresh)
    living = [fresh.clients[n] for n in range(3) if n != dead]
    with Dispatcher.from_url(fresh.url, partitions=P) as dispatcher:
        dispatcher.enqueue_many(many())
        fresh.servers[dead].kill()
        with pytest.raises(EnqueueInterrupted):
            dispatcher.enqueue_many(many())
        taker = living[0].execute_command("CLUSTER", "MYID")
        for client in living:
            pipe = client.pipeline(transaction=False)
            for slot in (slot for slot in range(SLOTS) if fresh.holder(slot) == dead):
                pipe.execute_command("CLUSTER", "SETSLOT", slot, "NODE", taker)
            pipe.execute()
        assert len(many()) == len(dispatcher.enqueue_many(many()))


def test_the_wrong_kind_of_url(cluster: SmallCluster, tmp_path: Path, server_program: str) -> None:
    """A node of a cluster is no plain server, and the other way round: the error says which URL is right."""
    with (
        Dispatcher.from_url(f"redis://127.0.0.1:{cluster.ports[0]}", partitions=P) as dispatcher,
        pytest.raises(EnqueueInterrupted, match=r"is a node of a cluster, which has redis\+cluster://"),
    ):
        dispatcher.enqueue_many(many())
    port = free_port()
    with (
        RedisServer(tmp_path, "--port", str(port), executable=server_program),
        Dispatcher.from_url(f"redis+cluster://127.0.0.1:{port}", partitions=P) as dispatcher,
        pytest.raises(EnqueueInterrupted, match=r"is no node of a cluster: its URL starts with redis://"),
    ):
        dispatcher.enqueue(change(0))
