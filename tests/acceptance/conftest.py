"""A stack of real parts for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.redis_server import RedisServer
from tests.acceptance.stack import Stack, running_stack


@pytest.fixture
def stack(server_program: None, tmp_path: Path) -> Iterator[Stack]:
    """Redis and a receiver; workers are started by the test."""
    with running_stack(tmp_path) as stack:
        yield stack


@pytest.fixture
def new(server_program: None, tmp_path: Path) -> Iterator[RedisServer]:
    """The server that the installation grows onto."""
    folder = tmp_path / "new"
    folder.mkdir()
    with RedisServer(folder, "--appendonly", "yes") as server:
        yield server
