"""What commands read and change over all partitions, on a real cluster: the same as on plain servers; a node that is away is named."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis

from config.settings import Settings
from dispatcher.errors import RedisUnavailable
from dispatcher.rules.partitions import Partitioning
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.cluster import ClusterServers
from dispatcher.store.keys import keys_of
from tasks import across_wiring, wiring
from tasks.actions import events, workspaces
from tasks.actions.events import Filter
from tasks.actions.workspaces import Wanted
from tests.cluster.servers import Cluster, frozen, wait
from tests.divided import Installed, installed
from tests.redis.test_across import NAMES, P, _read, fill
from tests.world import World


class OnCluster(Installed):
    """An installation on a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.settings = Settings(_env_file=None, partitions=P)
        self.partitioning = Partitioning(P)
        self.runner = asyncio.Runner()
        self.seeds = [node.url for node in cluster.nodes]  # any of them may be frozen
        self.servers = self.new()
        self.now = 0
        self.worlds = [
            World(self.servers.client(n), keys=keys, call=self.servers.wire(n).call, runner=self.runner)
            for n, keys in enumerate(self.servers.keys)
        ]
        for world in self.worlds:
            world.lead()

    def new(self) -> ClusterServers:
        """The cluster, as a process that starts knows it."""
        return ClusterServers(self.seeds, keys_of("dispatcher", P))

    def do(self, action: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """The result of an action on the whole installation's store."""

        async def act() -> Any:
            servers = self.new()
            try:
                return await action(
                    await across_wiring.store(self.settings, servers, keep=True), *args, **kwargs
                )
            finally:
                await servers.aclose()

        return self.runner.run(act())

    def close(self) -> None:
        """Closes all connections."""
        self.runner.run(self.servers.aclose())
        self.runner.close()


@pytest.fixture
def on_cluster(cluster: Cluster) -> Iterator[OnCluster]:
    """Eight partitions on three primaries."""
    found = OnCluster(cluster)
    yield found
    found.close()


def test_same_answers(on_cluster: OnCluster, redis_url: str) -> None:
    """What is listed and counted in eight partitions on a cluster is what one partition gives."""
    with installed([redis_url], 1) as one:
        on_cluster.now = one.now
        for of in (one, on_cluster):
            fill(of)
        assert one.do(_read) == on_cluster.do(_read)


@pytest.mark.parametrize("partition", [0, P // 2, P - 1])
def test_a_frozen_node(on_cluster: OnCluster, cluster: Cluster, partition: int) -> None:
    """While any primary is silent and has no replica to follow it, its partitions are named, and the rest is listed."""

    async def read(store: wiring.Store) -> tuple[set[str], list[int]]:
        found = {one.workspace async for one in events.chosen(store, Filter("waiting"))}
        return found, store.absent.partitions

    for name in NAMES:
        on_cluster.do(workspaces.add, name, "zeckta", Wanted(f"https://{name}.example/hooks"), None)
    on_cluster.now = 1_800_000_000_000
    for name in NAMES:
        on_cluster.waiting(name, f"of-{name}")
    slots = [redis.crc.key_slot(keys.root.encode()) for keys in on_cluster.servers.keys]
    node = cluster.holder(slots[partition])
    gone = [n for n, slot in enumerate(slots) if cluster.holder(slot) is node]
    with frozen(node, cluster.replica(slots[partition])):
        found, absent = on_cluster.do(read)
    assert set(gone) <= set(absent)
    assert {name for name in NAMES if on_cluster.partitioning.home(name) not in absent} == found
    assert found


def test_a_service_recovers(on_cluster: OnCluster, cluster: Cluster) -> None:
    """A service's partition answers again once a replica has taken over, though the service asks seldom."""
    of = Partitions(on_cluster.new(), needs_all=True)

    def answers() -> bool:
        async def ask() -> bool:
            try:
                await of.ask(3, lambda n: of.call(n, "XLEN", of.keys[n].events))
            except RedisUnavailable:
                return False
            return True

        return on_cluster.runner.run(ask())

    slot = redis.crc.key_slot(of.keys[3].root.encode())
    assert answers()
    with frozen(cluster.holder(slot)):
        assert not answers()
        wait(answers, "the partition answers again")
    on_cluster.runner.run(of.servers.aclose())
