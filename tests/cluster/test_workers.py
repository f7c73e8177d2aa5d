"""Real workers and a real producer on a cluster whose nodes die, fail over and hand on slots while callbacks go."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatcher import Dispatcher
from dispatcher.errors import EnqueueInterrupted
from dispatcher.rules.partitions import Partitioning
from tests.acceptance.stack import CELERY, Stack, Worker, change, running_stack, wait_until
from tests.cluster.partitions import COUNT, KEYS, SLOTS
from tests.cluster.servers import Cluster

WORKSPACES = ["acme", "bluefin", "crest", "delta", "ember", "fjord", "gusto", "harbor"]
MESSAGES, STATUSES = 5, ("SUBMITTED", "SENT", "DELIVERED")


@pytest.fixture
def on_cluster(cluster: Cluster, tmp_path: Path) -> Iterator[Stack]:
    """A stack whose partitions lie on the cluster; Celery's broker is a Redis of its own."""
    with running_stack(tmp_path) as stack:
        hosts = ",".join(node.address for node in cluster.nodes)
        stack.environment |= {
            "DISPATCHER_REDIS_URL": f"redis+cluster://{hosts}",
            "DISPATCHER_BROKER_URL": stack.server.url,
            "DISPATCHER_PARTITIONS": str(COUNT),
        }
        for name in WORKSPACES:
            stack.add_workspace(name)
        yield stack


def enqueue(stack: Stack, round_: int) -> list[str]:
    """Enqueues three changes of each of some messages of all workspaces; again until all are confirmed."""
    changes = [
        change(0, workspace=name, status=status)
        | {"message": {"uuid": f"{name}-{round_}-{number}", "src": "ACME", "dest": "+233200000001"}}
        for number in range(MESSAGES)
        for status in STATUSES
        for name in WORKSPACES
    ]
    url = stack.environment["DISPATCHER_REDIS_URL"]
    deadline = time.monotonic() + 40
    with Dispatcher.from_url(url, partitions=COUNT) as dispatcher:
        while True:
            try:
                return dispatcher.enqueue_many(changes)
            except EnqueueInterrupted:
                assert time.monotonic() < deadline
                time.sleep(0.2)


def killed(cluster: Cluster) -> None:
    """A primary dies; its replica, which has all that was enqueued so far, takes over."""
    new, old = cluster.replica(SLOTS[3]), cluster.holder(SLOTS[3])
    enqueued = old.client.info("replication")["master_repl_offset"]
    wait_until(
        lambda: old.client.info("replication")["slave0"]["offset"] >= enqueued, what="the replica has it"
    )
    old.kill()
    cluster.taken_over(new)


def failed_over(cluster: Cluster) -> None:
    """A replica takes over from its primary, which has it do so."""
    cluster.fail_over(SLOTS[9])


def moved(cluster: Cluster) -> None:
    """Two slots move at once, each to another node."""
    for slot in (SLOTS[0], SLOTS[12]):
        others = [node for node in cluster.primaries() if node is not cluster.holder(slot)]
        cluster.move_atomically(slot, others[0])


@pytest.mark.parametrize("happens", [killed, failed_over, moved])
def test_callbacks_while_nodes_change(
    on_cluster: Stack, cluster: Cluster, happens: Callable[[Cluster], None]
) -> None:
    """Every change is delivered, in the order of its message's first attempts, and the workers go on without a restart."""
    workers = [on_cluster.start_worker(*CELERY, "-n", f"n{n}@%h") for n in range(2)]
    for worker in workers:
        worker.wait_ready()
    wait_until(lambda: "without an owner" not in on_cluster.cli("stats").stdout, what="owners")
    ids = enqueue(on_cluster, 0)
    happens(cluster)
    ids += enqueue(on_cluster, 1) + enqueue(on_cluster, 2)
    wait_until(lambda: set(ids) <= {one.event_id for one in on_cluster.received}, 60, "all are delivered")
    assert [None, None] == [worker.process.poll() for worker in workers]
    first: dict[str, float] = {}
    for place, one in enumerate(on_cluster.received):
        first.setdefault(one.event_id, place)
    by_message: defaultdict[int, list[float]] = defaultdict(list)
    for number, id_ in enumerate(ids):
        each = MESSAGES * len(STATUSES) * len(WORKSPACES)
        round_, rest = divmod(number, each)
        message, workspace = rest // (len(STATUSES) * len(WORKSPACES)), rest % len(WORKSPACES)
        by_message[(round_ * MESSAGES + message) * len(WORKSPACES) + workspace].append(first[id_])
    assert all(places == sorted(places) for places in by_message.values())
    if happens is not killed:  # a primary that dies takes along what its replica had not heard of
        assert len(on_cluster.received) == len(first)
    wait_until(lambda: all(map(all_are_back, workers)), 60, "the log says that all is back")
    if happens is killed:
        assert any(worker.lines("redis.away") for worker in workers)
    assert [0, 0] == [worker.terminate() for worker in workers]


def all_are_back(worker: Worker) -> bool:
    """Whether each server that its log says is away is said to be back, with the same partitions or more."""
    away, back = (
        {line["server"]: set(line["partitions"]) for line in worker.lines(event)}
        for event in ("redis.away", "redis.back")
    )
    return away.keys() == back.keys() and all(away[server] <= back[server] for server in away)


def test_the_log_while_a_slot_moves_key_by_key(on_cluster: Stack, cluster: Cluster) -> None:
    """Its partition, beside others of the same node that go on, is in the log once when that begins and once when it is over."""
    worker = on_cluster.start_worker()
    wait_until(lambda: "without an owner" not in on_cluster.cli("stats").stdout, what="owners")
    ids = enqueue(on_cluster, 0)
    wait_until(lambda: set(ids) <= {one.event_id for one in on_cluster.received}, 60, "all are delivered")
    home = Partitioning(COUNT).home("acme")
    slot = SLOTS[home]
    target = next(node for node in cluster.primaries() if node is not cluster.holder(slot))
    source = cluster.begin_move(slot, target)
    cluster.move_keys(source, target, source.run("CLUSTER", "GETKEYSINSLOT", slot, 1000)[::2])
    wait_until(lambda: worker.lines("redis.away"), what="it is logged")
    time.sleep(8)  # there is time for many lines
    cluster.end_move(slot, source, target)
    wait_until(lambda: worker.lines("redis.back"), 60, "the log says that it is back")
    lines = [*worker.lines("redis.away"), *worker.lines("redis.back")]
    assert [("redis.away", source.address, [home]), ("redis.back", source.address, [home])] == [
        (line["event"], line["server"], line["partitions"]) for line in lines
    ]


def test_connections_of_a_worker(on_cluster: Stack, cluster: Cluster) -> None:
    """A worker that has delivered has two connections to each primary: one for commands, one for news of queues."""
    url = on_cluster.environment["DISPATCHER_REDIS_URL"]
    on_cluster.start_worker(DISPATCHER_REDIS_URL=f"{url}?client_name=worker")
    wait_until(lambda: "without an owner" not in on_cluster.cli("stats").stdout, what="owners")
    ids = enqueue(on_cluster, 0)
    wait_until(lambda: set(ids) <= {one.event_id for one in on_cluster.received}, 60, "all are delivered")
    counted = [
        sum(one["name"] == "worker" for one in node.client.client_list()) for node in cluster.primaries()
    ]
    assert [2] * len(counted) == counted


def test_homes_are_on_all_nodes() -> None:
    """The workspaces of these tests lie in several partitions of each third of the slots."""
    homes = {Partitioning(COUNT).home(name) for name in WORKSPACES}
    assert {0, 1, 2} == {home * 3 // COUNT for home in homes}
    assert len(KEYS) == COUNT
