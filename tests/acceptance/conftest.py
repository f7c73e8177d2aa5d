"""A stack of real parts for each test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.errors import DispatcherError
from tasks.redis_server import find_server
from tests.acceptance.stack import Stack, running_stack


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Redis and a receiver; workers are started by the test."""
    try:
        find_server()
    except DispatcherError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    with running_stack(tmp_path) as stack:
        yield stack
