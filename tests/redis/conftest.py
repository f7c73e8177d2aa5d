"""A world on the real server; afterwards no key may have been left behind for ever."""

from collections.abc import Iterator

import pytest

from dispatcher.store.connection import connect_async
from dispatcher.store.wire import Wire
from tests.leaks import leaked_keys
from tests.world import World


@pytest.fixture
def world(redis_url: str) -> Iterator[World]:
    """A ledger on the real server, its intake led by the test."""
    client = connect_async(redis_url)
    world = World(client, Wire(client))
    world.lead()
    yield world
    assert [] == leaked_keys(world)
    world.close()
