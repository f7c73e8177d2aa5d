"""Workers and Redis that die, for real."""

import asyncio
import os
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web

from tests.acceptance.stack import Stack, change, wait_until

THREADLESS = """
import os, threading

start = threading.Thread.start

def start_unless(self):
    if self.name == os.environ["THREADLESS"]:
        raise RuntimeError("can't start new thread")
    start(self)

threading.Thread.start = start_unless
"""
"""On the path of a worker: one thread cannot be started, as without memory for its stack."""


def test_kill_with_posts_in_flight(stack: Stack) -> None:
    """After a kill every callback is delivered, at most those in flight twice, with one `worker_lost` attempt."""
    killed = asyncio.Event()

    async def answer(_request: web.Request, number: int) -> web.Response:
        if number == 1 and not killed.is_set():
            await asyncio.sleep(60)
        return web.Response()

    stack.answer = answer
    stack.add_workspace()
    first = stack.start_worker(DISPATCHER_MAX_CONCURRENCY="2").wait_ready()
    event_ids = stack.enqueue(10)
    wait_until(lambda: sum(stack.state(e) == "sending" for e in event_ids) == 2)
    in_flight = [e for e in event_ids if stack.state(e) == "sending"]
    first.kill()
    killed.set()
    stack.start_worker()
    assert {"delivered": 10} == stack.wait_ended(event_ids)
    errors = {e: [a["error"] for a in stack.event(e)["attempts"]] for e in event_ids}
    assert {e: ["worker_lost", None] if e in in_flight else [None] for e in event_ids} == errors


def test_term_with_posts_in_flight(stack: Stack) -> None:
    """TERM: posts in flight end and are recorded, nothing is posted twice, and the exit code is 0."""
    arrived: list[int] = []

    async def answer(_request: web.Request, number: int) -> web.Response:
        arrived.append(number)
        await asyncio.sleep(1)
        return web.Response()

    stack.answer = answer
    stack.add_workspace()
    first = stack.start_worker().wait_ready()
    event_ids = stack.enqueue(6)
    wait_until(lambda: len(arrived) == 2)
    assert 0 == first.terminate()
    assert [] == stack.redis.keys("dispatcher:leased:*")
    assert {"delivered", "pending"} == {stack.state(event_id) for event_id in event_ids}
    second = stack.start_worker()
    assert {"delivered": 6} == stack.wait_ended(event_ids)
    assert dict.fromkeys(event_ids, 1) == Counter(received.event_id for received in stack.received)
    assert [] == second.lines("callback.worker_lost")


def test_intake_is_taken_over(stack: Stack) -> None:
    """When the worker that leads intake is killed, another one takes over; nothing is lost, order is kept."""
    stack.add_workspace()
    workers = [stack.start_worker().wait_ready() for _ in range(2)]
    (leader,) = wait_until(lambda: [w for w in workers if w.lines("intake.leading")])
    leader.kill()
    message = change(1)["message"]
    statuses = ("SUBMITTED", "SENT", "DELIVERED")
    event_ids = [stack.enqueue(status=status, message=message)[0] for status in statuses]
    assert {"delivered": 3} == stack.wait_ended(event_ids)
    assert event_ids == [received.event_id for received in stack.received]


def test_redis_away_and_back(stack: Stack) -> None:
    """While Redis is away a worker waits and says so once; it goes on when Redis is back, with all that was accepted."""

    async def answer(_request: web.Request, number: int) -> web.Response:
        return web.Response(status=503 if number == 1 else 200)

    stack.answer = answer
    stack.add_workspace()
    worker = stack.start_worker(DISPATCHER_BACKOFF_BASE_SECONDS="1").wait_ready()
    (before,) = stack.enqueue()
    wait_until(lambda: stack.state(before) == "retrying")
    stack.server.stop()
    wait_until(lambda: worker.lines("redis.away"))
    away = stack.cli("event", "show", before, "--workspace", "acme")
    assert (3, 1) == (away.returncode, len(away.stderr.splitlines()))
    stack.server.start()
    (after,) = stack.enqueue(first=1)
    assert {"delivered": 2} == stack.wait_ended([before, after], seconds=60)
    assert worker.process.poll() is None
    wait_until(lambda: worker.lines("redis.back"))
    assert (1, 1) == (len(worker.lines("redis.away")), len(worker.lines("redis.back")))


@pytest.mark.parametrize("name", ["engine", "ending"])
def test_no_thread_is_left(stack: Stack, name: str) -> None:
    """A worker that gets no thread at its start ends, with what it had begun, and a line that says so."""
    stack.add_workspace()
    folder = stack.folder / "threadless"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(THREADLESS)
    path = os.pathsep.join(filter(None, [str(folder), stack.environment.get("PYTHONPATH", "")]))
    worker = stack.start_worker(PYTHONPATH=path, THREADLESS=name)
    assert 70 == worker.process.wait(30), worker.log
    (line,) = worker.lines("worker.not_started")
    assert "can't start new thread" == line["problem"]
    assert "Traceback" not in worker.log
    assert [] == stack.redis.zrange("dispatcher:workers", 0, -1)


def test_entry_that_kills_its_reader(stack: Stack) -> None:
    """An entry on which three workers died is rejected unread; the entries beside it are delivered."""
    stack.add_workspace()
    event_ids = [f"e{number}" for number in range(5)]
    for event_id in event_ids:
        stack.enqueue(first=int(event_id[1:]), eventId=event_id)
    deadly = Path(__file__).parent / "deadly"
    path = os.pathsep.join(filter(None, [str(deadly), stack.environment.get("PYTHONPATH", "")]))
    for _ in range(3):
        worker = stack.start_worker(PYTHONPATH=path, DEADLY_EVENT_ID="e2")
        assert 99 == worker.process.wait(30), worker.log
    stack.start_worker(PYTHONPATH=path, DEADLY_EVENT_ID="e2")
    assert {"delivered": 4} == stack.wait_ended([e for e in event_ids if e != "e2"])
    (rejected,) = wait_until(lambda: stack.cli_json("rejected", "list", "--reveal"))
    assert ("poisoned", True) == (rejected["reason"], '"eventId":"e2"' in rejected["raw"])
