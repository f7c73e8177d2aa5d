"""Workers, Redis and PostgreSQL are killed while callbacks end: all that ended is in the archive, and nothing twice."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import psycopg
import pytest

from dispatcher.model import iso
from tests.acceptance.stack import Stack, wait_until
from tests.acceptance.test_archive import with_archive
from tests.conftest import postgres_server

ROUNDS, OF_A_ROUND = int(os.environ.get("ARCHIVE_KILLS", "9")), 60
VICTIMS = ("worker", "PostgreSQL", "Redis")
NOW = iso(time.time() * 1000)
OVER = {"timestamp": NOW, "status": "DELIVERED"}


@pytest.fixture
def postgres() -> Iterator[Any]:
    """A PostgreSQL server of this test's own."""
    with postgres_server() as server:
        yield server


def kill(pid: int) -> None:
    """SIGKILL; returns when the process is gone."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid), what="its end")


@pytest.mark.timeout(120 + 15 * ROUNDS)
def test_kills(stack: Stack, postgres: Any) -> None:
    """Callbacks go on while the archive is away; each is delivered, is in the archive once, and is refused when it comes again.
    Each message is in the archive once, and has left Redis.

    What a killed worker had told the archive and Redis still has is told again. ARCHIVE_KILLS=100 makes it long.
    """
    with_archive(stack, postgres.get_uri())
    stack.environment["DISPATCHER_LEASE_SECONDS"] = "15"
    stack.add_workspace("acme", "zeckta", f"{stack.listen()}/hooks")
    chance, ids = random.Random(7), list[str]()
    worker = stack.start_worker().wait_ready()
    for number in range(ROUNDS):
        ids += stack.enqueue(OF_A_ROUND, first=number * OF_A_ROUND, **OVER)
        again = chance.randrange(number + 1)
        stack.enqueue(OF_A_ROUND, first=again * OF_A_ROUND, **OVER)
        time.sleep(chance.random() * 1.5)
        victim = VICTIMS[number % len(VICTIMS)]
        if victim == "worker":
            worker.kill()
            worker = stack.start_worker().wait_ready()
        elif victim == "PostgreSQL":
            kill(postgres.get_pid())
            time.sleep(chance.random())
            postgres.ensure_postgres_running()
        else:
            stack.server.kill()
            time.sleep(chance.random())
            stack.server.start()
    wait_until(lambda: stack.redis.xlen("dispatcher:events") == 0, 120, "an empty queue")
    wait_until(lambda: not stack.redis.keys("dispatcher:event:*"), 120, "a Redis without entries")
    wait_until(
        lambda: stack.redis.xlen("dispatcher:ended") == 0, 60, "nothing noted for the archive any more"
    )
    kept = [json.loads(one)["eventId"] for one in stack.cli("history").stdout.splitlines()]
    assert len(ids) == ROUNDS * OF_A_ROUND
    assert sorted(ids) == sorted(kept)
    assert set(ids) == {one.event_id for one in stack.received}
    wait_until(lambda: not stack.redis.keys("dispatcher:status*"), 120, "a Redis without messages")
    with psycopg.connect(postgres.get_uri()) as connection:
        messages = connection.execute("SELECT message_id, status FROM dispatcher.messages").fetchall()
    assert sorted((f"m{n}", "DELIVERED") for n in range(len(ids))) == sorted(messages)
    before = len(stack.received)
    stack.enqueue(len(ids), **OVER)
    wait_until(lambda: stack.redis.xlen("dispatcher:events") == 0, 120, "an empty queue")
    assert before == len(stack.received)
    for one in ids[:5]:
        stack.enqueue(1, first=10**6, eventId=one, timestamp=NOW)
    wait_until(lambda: stack.redis.xlen("dispatcher:events") == 0, 60, "an empty queue")
    assert [("conflict", one) for one in ids[:5][::-1]] == [
        (one["reason"], one["eventId"]) for one in stack.cli_json("rejected", "list")
    ]
    assert worker.process.poll() is None
