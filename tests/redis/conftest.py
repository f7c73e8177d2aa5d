"""A world on the real server; afterwards no key may have been left behind for ever."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.store.connection import connect_async
from dispatcher.store.wire import Wire
from tasks.redis_server import RedisServer
from tests.leaks import leaked_keys
from tests.world import World


@pytest.fixture
def world(redis_url: str) -> Iterator[World]:
    """A ledger on the real server, its intake led by the test."""
    client = connect_async(redis_url)
    world = World(client, Wire(client))
    with contextlib.closing(world):
        world.lead()
        yield world
        assert [] == leaked_keys(world)


@pytest.fixture
def two(server_program: str, tmp_path: Path) -> Iterator[list[RedisServer]]:
    """Two servers."""
    with contextlib.ExitStack() as stack:
        folders = [tmp_path / "a", tmp_path / "b"]
        for folder in folders:
            folder.mkdir()
        yield [stack.enter_context(RedisServer(one, executable=server_program)) for one in folders]


@pytest.fixture
def second_server(server_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    """Another server, which may be killed, and has what it confirmed: by default it writes up to 2 s later on a busy disk."""
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    with RedisServer(tmp_path, *durable, executable=server_program) as server:
        yield server


@pytest.fixture
def two_urls(redis_url: str, second_server: RedisServer) -> list[str]:
    """Two servers: even partitions are on the first, odd ones on the second."""
    return [redis_url, second_server.url]
