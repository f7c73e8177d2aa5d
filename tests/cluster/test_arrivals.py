"""What the nodes of a cluster tell of queues: each is asked for itself, and a new primary anew."""

import asyncio
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from dispatcher.errors import RedisUnavailable
from dispatcher.store.arrivals import Arrivals
from tests.cluster.node import ClusterNode, wait
from tests.cluster.partitions import COUNT, SLOTS, Partitions
from tests.cluster.servers import Cluster

P = 5
"""The partition whose node tells nothing."""


@pytest.fixture
def dumb(either: Cluster) -> Iterator[ClusterNode]:
    """Its node, which refuses to tell of changes."""
    node = either.holder(SLOTS[P])
    node.run("ACL", "SETUSER", "default", "-client")
    yield node
    node.run("ACL", "SETUSER", "default", "+client")


def listened(node: ClusterNode) -> int:
    """How many connections the node tells of changes."""
    return sum("t" in one["flags"] for one in node.client.client_list())


def test_a_node_that_holds_no_partition_any_more(of_either: Partitions, either: Cluster) -> None:
    """The connection that listened to it is closed; those to the others stay."""
    servers = of_either.servers
    arrivals, old = Arrivals(servers), either.holder(SLOTS[P])

    async def looked() -> None:
        for number in range(COUNT):
            await servers.wire(number).call("PING")  # so the map is right
            await look(arrivals, number)
        arrivals._next_check = 0.0
        arrivals.close_unused()
        await asyncio.sleep(0)

    of_either.run(looked())
    assert [1, 1, 1] == [listened(node) for node in either.primaries()]
    either.fail_over(SLOTS[P])
    of_either.run(of_either.count(P))
    of_either.run(looked())
    wait(lambda: listened(old) == 0, "it is closed")
    assert [1, 1, 1] == [listened(node) for node in either.primaries()]
    of_either.run(arrivals.aclose())


async def look(arrivals: Arrivals, partition: int) -> None:
    """Looks until that succeeds."""
    for _ in range(200):
        try:
            await arrivals.look(partition)
        except RedisUnavailable:
            await asyncio.sleep(0.1)
        else:
            return
    raise AssertionError(f"no look at partition {partition} succeeds")


def test_a_node_that_tells_nothing(of_either: Partitions, either: Cluster, dumb: ClusterNode) -> None:
    """Only its partitions are polled, which is said once, and no longer once its replica has taken over."""
    servers = of_either.servers

    async def looked() -> list[int]:
        for number in range(COUNT):
            await servers.wire(number).call("PING")  # so the map is right
            await look(arrivals, number)
        return [number for number in range(COUNT) if not arrivals.are_told(number)]

    arrivals = Arrivals(servers)
    with capture_logs() as logged:
        polled = of_either.run(looked())
        assert polled == [n for n in range(COUNT) if servers.node(n).name == dumb.address]
        assert P in polled
        either.fail_over(SLOTS[P])
        of_either.run(of_either.count(P))
        assert [] == of_either.run(looked())
    assert [("redis.polled", dumb.address)] == [(line["event"], line["server"]) for line in logged]
    of_either.run(arrivals.aclose())
