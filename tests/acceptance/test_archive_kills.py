"""Workers and PostgreSQL are killed while callbacks end: all that ended is in the archive, and nothing twice."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.acceptance.stack import Stack, wait_until
from tests.conftest import postgres_server

ROUNDS, OF_A_ROUND = 8, 60


@pytest.fixture
def postgres() -> Iterator[Any]:
    """A PostgreSQL server of this test's own."""
    with postgres_server() as server:
        yield server


def kill(pid: int) -> None:
    """SIGKILL; returns when the process is gone."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid), what="its end")


def test_kills(stack: Stack, postgres: Any) -> None:
    """Callbacks go on while the archive is away; what a killed worker had told it and not forgotten is there once."""
    stack.environment["DISPATCHER_ARCHIVE_URL"] = postgres.get_uri()
    stack.environment["DISPATCHER_LEASE_SECONDS"] = "15"
    stack.add_workspace("acme", "zeckta", f"{stack.listen()}/hooks")
    chance, ids = random.Random(7), list[str]()
    for number in range(ROUNDS):
        worker = stack.start_worker().wait_ready()
        ids += stack.enqueue(OF_A_ROUND, first=number * OF_A_ROUND)
        time.sleep(chance.random())
        if number % 2:
            kill(postgres.get_pid())
        worker.kill()
        if number % 2:
            postgres.ensure_postgres_running()
    stack.start_worker().wait_ready()
    wait_until(lambda: all(stack.state(one) == "delivered" for one in ids), 60, "all delivered")
    wait_until(lambda: stack.redis.xlen("dispatcher:ended") == 0, 60, "an empty backlog")
    kept = [json.loads(one)["eventId"] for one in stack.cli("history").stdout.splitlines()]
    assert len(ids) == ROUNDS * OF_A_ROUND
    assert sorted(ids) == sorted(kept)
