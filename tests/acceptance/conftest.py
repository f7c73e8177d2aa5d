"""A stack of real parts for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.stack import Stack, running_stack


@pytest.fixture
def stack(server_program: None, tmp_path: Path) -> Iterator[Stack]:
    """Redis and a receiver; workers are started by the test."""
    with running_stack(tmp_path) as stack:
        yield stack
