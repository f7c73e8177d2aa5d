"""What is said where a cluster is not there, is none, or does not know where its slots are."""

import asyncio
import re
from collections.abc import Iterator

import pytest

from dispatcher.errors import InvalidInput, RedisUnavailable
from dispatcher.store.across.presence import Presence
from dispatcher.store.cluster import ClusterServers
from dispatcher.store.connection import connect, connect_async, translated
from dispatcher.store.keys import Keys
from dispatcher.store.wire import Wire
from tasks.redis_server import RedisServer
from tests.cluster.node import free_port
from tests.cluster.partitions import COUNT, KEYS, SLOTS, Partitions
from tests.cluster.servers import Cluster
from tests.cluster.stub import ALL_MINE, Stub

P = 5


def error_of(urls: list[str], runner: asyncio.Runner, partition: int = P) -> str:
    """What a first command says, by a script's way and by a client's, which must be the same but for figures."""
    servers = ClusterServers(urls, KEYS)

    async def scene() -> list[BaseException]:
        commands = (
            servers.wire(partition).call("GET", KEYS[partition].root),
            servers.client(partition).get("x"),
        )
        found = []
        try:
            for command in commands:
                with pytest.raises(RedisUnavailable) as caught, translated(""):
                    await command
                found.append(caught.value)
        finally:
            await servers.aclose()
        return found

    first, second = map(str, runner.run(scene()))
    assert first == second
    assert 1 == len(first.splitlines())
    return first


def test_no_node_reachable(runner: asyncio.Runner) -> None:
    """Where none of the nodes to start with is there, the error names one, and what to look at."""
    urls = [f"redis://:hush@127.0.0.1:{free_port()}" for _ in range(2)]
    said = error_of(urls, runner)
    assert said.startswith(
        "None of 2 nodes says which node of the cluster holds what. The first: Redis at redis://127.0.0.1:"
    )
    assert said.endswith("Is it running, and is DISPATCHER_REDIS_URL right?")
    assert "hush" not in said
    assert error_of(urls[:1], runner).startswith(
        f"Redis at redis://127.0.0.1:{urls[0].rpartition(':')[2]}/0 is not"
    )


def test_first_seed_away(cluster: Cluster, runner: asyncio.Runner) -> None:
    """A node to start with that is away does not matter while another one answers."""
    servers = ClusterServers([f"redis://127.0.0.1:{free_port()}", cluster.nodes[4].url], KEYS)
    assert 1 == runner.run(Partitions(servers, runner).count(P))
    runner.run(servers.aclose())


def test_a_node_that_is_away(partitions: Partitions, cluster: Cluster) -> None:
    """What is said of a node to all who ask for its partitions names none of them."""
    node = cluster.holder(SLOTS[P])
    assert 1 == partitions.run(partitions.count(P))  # so that it is known which node that is
    node.kill()
    with pytest.raises(RedisUnavailable, match=f"^Redis at {node.url}/0 is not reachable"):
        partitions.run(Presence(partitions.servers, 5).require(P))


@pytest.fixture
def plain(server_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that is in no cluster."""
    port = free_port()
    folder = tmp_path_factory.mktemp("plain")
    with RedisServer(folder, "--port", str(port), "--bind", "127.0.0.1", executable=server_program):
        yield f"redis://127.0.0.1:{port}"


def test_no_cluster(plain: str, runner: asyncio.Runner) -> None:
    """A plain server says that it is none, and the error what to set."""
    assert error_of([plain], runner) == (
        f"Redis at {plain}/0 is no node of a cluster (cluster-enabled no). "
        "Set DISPATCHER_REDIS_URL to a cluster, or to this server with redis:// or rediss://"
    )


def test_node_of_a_cluster_by_a_plain_url(cluster: Cluster, runner: asyncio.Runner) -> None:
    """Who connects to one node of a cluster as if it was a plain server is told what to set, by each client."""
    node = next(node for node in cluster.nodes if node is not cluster.holder(SLOTS[P]))

    async def scene() -> None:
        client = connect_async(node.url)
        wire = Wire(client)
        try:
            for call in (client.get, lambda key: wire.call("GET", key)):
                with pytest.raises(RedisUnavailable, match=says), translated(node.url):
                    await call(KEYS[P].root)
        finally:
            await wire.close()
            await client.aclose()

    says = rf"Redis at {node.url} is a node of a cluster\. Set DISPATCHER_REDIS_URL to redis\+cluster://"
    runner.run(scene())
    with connect(node.url) as client, pytest.raises(RedisUnavailable, match=says), translated(node.url):
        client.get(KEYS[P].root)


def test_slot_that_no_node_holds(cluster: Cluster, partitions: Partitions) -> None:
    """A slot without a node is an error of its partition alone, and none any more once a node has it."""
    holder = cluster.holder(SLOTS[P])
    holder.run("CLUSTER", "DELSLOTS", SLOTS[P])
    try:
        # whichever node is asked, it may not have heard of it yet, and the old one then says so
        with pytest.raises(RedisUnavailable, match=r"no node of the cluster holds slot|Hash slot not served"):
            partitions.world(P)
        assert 1 == partitions.run(partitions.count((P + 1) % COUNT))
    finally:
        holder.run("CLUSTER", "ADDSLOTS", SLOTS[P])
    cluster.settle()
    assert 1 == partitions.run(partitions.count(P))


def test_nodes_that_do_not_agree(runner: asyncio.Runner) -> None:
    """A MOVED that the map, read anew, does not mend is an error that says where the slot is said to be."""
    with Stub("-MOVED 5 127.0.0.1:1") as node:
        assert error_of([node.url], runner) == (
            f"Redis at {node.url}/0 (partition {P}) says that slot 5 is on 127.0.0.1:1, where it is not by the cluster's map. "
            "Work on its keys goes on when the nodes agree; if they do not, look at redis-cli --cluster check"
        )


@pytest.mark.parametrize(
    ("answer", "slot"),
    [("-TRYAGAIN Multiple keys request during rehashing of slot", "a slot"), ("-ASK 5 ?:1", "slot 5")],
)
def test_slot_on_the_move(runner: asyncio.Runner, answer: str, slot: str) -> None:
    """A slot of whose keys a node has some only, or not this one, is said to be on the move."""
    with Stub(answer) as node:
        says = rf"^Redis at {node.url}/0 \(partition {P}\) is moving {slot} to another node key by key"
        assert re.search(says, error_of([node.url], runner))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("*0", rf"no node of the cluster holds slot {SLOTS[P]}, that of partition {P}"),
        (ALL_MINE.replace("$-1", "$1\r\n?"), rf"no node of the cluster holds slot {SLOTS[P]}, .* or it has no address"),
        ("-ERR unknown command 'CLUSTER'", r"does not give the cluster's map: .*unknown command"),
        ("+OK", r"does not give the cluster's map: "),
        ("*1\r\n*2\r\n:0\r\n:16383", r"does not give the cluster's map: "),
        ("*1\r\n*3\r\n:0\r\n$1\r\nx\r\n*2\r\n:1\r\n:1", r"does not give the cluster's map: "),
        ("-NOPERM no permissions to run the 'cluster|slots' command", r"refuses us: .*cluster\|slots"),
        ("-LOADING Redis is loading the dataset in memory", r"cannot serve now: LOADING"),
        ("-CLUSTERDOWN The cluster is down", r"cannot serve now: CLUSTERDOWN"),
    ],
)  # fmt: skip
def test_strange_answers(runner: asyncio.Runner, answer: str, says: str) -> None:
    """Whatever a server answers to CLUSTER SLOTS, the error is one line that says what it was."""
    with Stub(slots=answer) as node:
        assert re.search(says, error_of([node.url], runner))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://localhost/1", "only the database 0"),
        ("unix:///tmp/socket", "a host and a port"),
        ("http://localhost", "must start with redis://"),
    ],
)
def test_url_that_names_no_node(url: str, why: str) -> None:
    """A node to start with is a host and a port."""
    with pytest.raises(InvalidInput, match=why):
        ClusterServers([url], KEYS)


def test_one_partition() -> None:
    """An installation of one partition has keys without a tag: on a cluster they would lie in many slots."""
    with pytest.raises(InvalidInput, match="set DISPATCHER_PARTITIONS"):
        ClusterServers(["redis://localhost"], [Keys()])


def test_not_asked_yet() -> None:
    """Before the first command nothing is known, and nothing was connected to."""
    servers = ClusterServers(["redis://127.0.0.1:1"], KEYS)
    with pytest.raises(RedisUnavailable, match=f"partition {P} is not known yet: none was asked"):
        servers.node(P)
