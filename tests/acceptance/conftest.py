"""A stack of real parts for each test."""

from collections.abc import Generator, Iterator
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


LOG_LINES = 40
"""Of each process's log, where a test failed."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the processes of a stack said last belongs to a failure."""
    report = yield
    if report.failed and report.when == "call":
        for one in getattr(item, "funcargs", {}).values():
            for worker in one.workers if isinstance(one, Stack) else ():
                end = "\n".join(worker.log.splitlines()[-LOG_LINES:])
                report.sections.append((f"the end of {worker.log_path.name}", end))
    return report
