"""When the map of a cluster is read, and how often."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from dispatcher.store import cluster_map
from dispatcher.store.cluster import ClusterServers
from tests.cluster.partitions import COUNT, KEYS, Partitions
from tests.cluster.servers import Cluster, frozen
from tests.cluster.stub import ALL_MINE, Stub


@pytest.fixture
def node() -> Iterator[Stub]:
    """A cluster of one node."""
    with Stub() as stub:
        yield stub


@pytest.fixture
def servers(node: Stub, runner: asyncio.Runner) -> Iterator[ClusterServers]:
    """It, as workers see it."""
    servers = ClusterServers([node.url], KEYS)
    yield servers
    runner.run(servers.aclose())


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings may follow one another faster than in earnest."""
    monkeypatch.setattr(cluster_map, "PAUSE_SECONDS", 0.05)


def by_wire(servers: ClusterServers, partition: int) -> Awaitable[Any]:
    """A command as scripts are called."""
    return servers.wire(partition).call("GET", KEYS[partition].root)


def by_client(servers: ClusterServers, partition: int) -> Awaitable[Any]:
    """A command of redis-py, which has errors of its own kinds and texts."""
    return servers.client(partition).get(KEYS[partition].root)


async def of_all(
    servers: ClusterServers, way: Callable[[ClusterServers, int], Awaitable[Any]] = by_wire, *, times: int = 1
) -> list[Any]:
    """What a command gives in each partition, or why it fails."""
    calls = [way(servers, number) for number in range(COUNT) for _ in range(times)]
    return await asyncio.gather(*calls, return_exceptions=True)


def test_read_once(node: Stub, servers: ClusterServers, runner: asyncio.Runner) -> None:
    """However many commands come first, and however many follow, the map is read once."""
    runner.run(of_all(servers, times=5))
    runner.run(of_all(servers))
    assert ("CLUSTER", 1, 6 * COUNT) == (node.asked[0], node.asked.count("CLUSTER"), node.asked.count("GET"))


@pytest.mark.parametrize("way", [by_wire, by_client])
@pytest.mark.parametrize(
    ("answer", "anew"),
    [
        ("-CLUSTERDOWN The cluster is down", True),
        ("-READONLY You can't write against a read only replica.", True),
        ("-LOADING Redis is loading the dataset in memory", True),
        ("-MASTERDOWN Link with MASTER is down", True),
        ("-ERR unknown command", False),
        ("-WRONGTYPE Operation against a key holding the wrong kind of value", False),
        ("-OOM command not allowed when used memory > 'maxmemory'.", False),
        ("-ASK 5 127.0.0.1:1", False),
        ("-TRYAGAIN Multiple keys request during rehashing of slot", False),
    ],
)
def test_after_an_error(
    node: Stub,
    servers: ClusterServers,
    runner: asyncio.Runner,
    way: Callable[[ClusterServers, int], Awaitable[Any]],
    answer: str,
    anew: bool,
) -> None:
    """After an answer that says that a node may have lost its slots, the next commands wait for a new reading; after others they do not."""
    node.answer = answer
    failed = runner.run(of_all(servers, way))
    assert COUNT == len([one for one in failed if isinstance(one, Exception)])
    node.answer = "+OK"
    assert [b"OK"] * COUNT == runner.run(of_all(servers, way))
    assert (anew, 2 * COUNT) == (node.asked.count("CLUSTER") > 1, node.asked.count("GET"))


def test_moved_without_end(node: Stub, servers: ClusterServers, runner: asyncio.Runner) -> None:
    """A node that answers MOVED whatever the map says gets each command twice; those that wait for the map share a reading."""
    node.answer = "-MOVED 5 127.0.0.1:PORT"
    failed = runner.run(of_all(servers))
    assert COUNT == len([one for one in failed if isinstance(one, Exception)])
    assert (True, 2 * COUNT) == (1 < node.asked.count("CLUSTER") < COUNT // 2, node.asked.count("GET"))


def test_a_failed_reading_is_shared(node: Stub, servers: ClusterServers, runner: asyncio.Runner) -> None:
    """Commands that wait for a reading which fails all fail by it; the next ones have another."""
    node.slots = "-ERR broken"
    assert 1 == len({str(one) for one in runner.run(of_all(servers))})
    assert ["CLUSTER"] == node.asked
    node.slots = ALL_MINE
    assert [b"OK"] * COUNT == runner.run(of_all(servers))


def test_a_cancelled_reading(node: Stub, servers: ClusterServers, runner: asyncio.Runner) -> None:
    """If the command that reads the map is cancelled, the next one that waits reads it."""

    async def scene() -> object:
        first, second = (asyncio.create_task(servers.wire(number).call("GET", "x")) for number in (0, 1))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert b"OK" == runner.run(scene())


def test_nodes_that_left(
    node: Stub, servers: ClusterServers, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connections of a node that the cluster does not name any more are closed, some time after."""
    monkeypatch.setattr(cluster_map, "LEAVE_SECONDS", 0.0)
    with Stub() as other:
        node.slots = ALL_MINE.replace("PORT", str(other.port))
        assert [b"OK"] * COUNT == runner.run(of_all(servers))
        left = servers.node(0)
        node.slots = ALL_MINE
        other.answer = "-MOVED 5 127.0.0.1:" + str(node.port)
        assert [b"OK"] * COUNT == runner.run(of_all(servers))
        for answer in ("-READONLY no", "+OK"):
            node.answer = answer
            runner.run(of_all(servers))

        async def closed() -> bool:
            link = left.wire._link
            assert link
            return not link.is_open

        assert runner.run(closed())
        assert (left.name, node.port) != (servers.node(0).name, other.port)


def test_whom_a_moved_names(node: Stub, servers: ClusterServers, runner: asyncio.Runner) -> None:
    """After a MOVED the node that it names is asked first: others may not have heard yet."""
    with Stub() as other:
        node.answer = f"-MOVED 5 127.0.0.1:{other.port}"
        assert [b"OK"] * COUNT == runner.run(of_all(servers))
        assert (["CLUSTER"] + ["GET"] * COUNT, COUNT + 1) == (other.asked, len(node.asked))


def test_silent_nodes_are_not_waited_for(cluster: Cluster, runner: asyncio.Runner) -> None:
    """Nodes to start with that are silent do not matter while one of them answers; closing leaves none of their sockets open."""
    replicas = [node for node in cluster.nodes if not node.is_primary]
    start = replicas + cluster.primaries()
    with frozen(*replicas):
        servers = ClusterServers([f"{node.url}?socket_timeout=1" for node in start], KEYS)
        try:
            assert 1 == runner.run(Partitions(servers, runner).count(0))
        finally:
            runner.run(servers.aclose())
        assert not asyncio.all_tasks(runner.get_loop())
