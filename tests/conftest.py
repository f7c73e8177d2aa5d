"""What tests of several folders share: a real Redis server, emptied before each test."""

import os
from collections.abc import Iterator

import pytest
import redis
from hypothesis import settings

from dispatcher.errors import DispatcherError
from tasks.redis_server import RedisServer, find_server

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def server_program() -> None:
    """There is a Redis server to run: else skip at home, fail in CI."""
    try:
        find_server()
    except DispatcherError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))


@pytest.fixture(scope="session")
def redis_server(server_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server on a unix socket for the whole run."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Its URL; the server is empty."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url
