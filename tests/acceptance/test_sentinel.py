"""A worker whose ledger and broker are both found by Sentinel."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dispatcher import Dispatcher
from dispatcher.errors import RedisUnavailable
from dispatcher.store.connection import connect
from tasks.receiver import answer_ok
from tests.acceptance.stack import Stack, change, wait_until
from tests.sentinels import PASSWORD, SENTINEL_PASSWORD, Sentinels

COUNT = 400


@pytest.fixture
def sentinels(server_program: str, tmp_path: Path) -> Iterator[Sentinels]:
    """A primary, its replica and two sentinels."""
    folder = tmp_path / "sentinels"
    folder.mkdir()
    with Sentinels(server_program, folder) as sentinels:
        yield sentinels


@pytest.fixture
def stack(stack: Stack, sentinels: Sentinels) -> Stack:
    """A stack on them."""
    stack.environment["DISPATCHER_REDIS_URL"] = sentinels.url
    stack.redis.close()
    stack.redis = connect(sentinels.url)
    return stack


def enqueue(url: str, first: int) -> list[str]:
    """Enqueues changes, again and again until Redis confirms them."""
    changes = [change(number) for number in range(first, first + COUNT)]
    with Dispatcher.from_url(url) as dispatcher:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with suppress(RedisUnavailable):
                return dispatcher.enqueue_many(changes)
            time.sleep(0.2)
    raise AssertionError("no primary within 30 s")


def test_the_primary_is_killed_while_callbacks_go(stack: Stack, sentinels: Sentinels) -> None:
    """Everything is delivered, by the same worker, and what is enqueued during the fail-over too."""

    async def slowly(request: web.Request, number: int) -> web.Response:
        await asyncio.sleep(0.1)
        return await answer_ok(request, number)

    stack.answer = slowly
    stack.add_workspace()
    worker = stack.start_worker().wait_ready()
    event_ids = enqueue(sentinels.url, 0)
    assert 1 == stack.redis.wait(1, 10_000)  # what a replica does not have is lost with its primary
    wait_until(lambda: len(stack.received) > COUNT / 10, what="callbacks go")
    assert len(stack.received) < COUNT
    sentinels.kill(sentinels.primary())
    event_ids += enqueue(sentinels.url, COUNT)
    wait_until(lambda: {"delivered": 2 * COUNT} == states(stack, event_ids), 60, "all delivered")
    assert set(event_ids) == {one.event_id for one in stack.received}
    assert worker.process.poll() is None
    assert 0 == worker.terminate()
    assert [] == [one for one in (PASSWORD, SENTINEL_PASSWORD) if one in worker.log]


def states(stack: Stack, event_ids: list[str]) -> dict[str, int]:
    """How many callbacks are in which state; empty while no primary answers."""
    found: dict[str, int] = {}
    with suppress(Exception):
        for event_id in event_ids:
            state = stack.state(event_id)
            found[state] = found.get(state, 0) + 1
    return found


def test_commands(stack: Stack, sentinels: Sentinels) -> None:
    """`config` names the topology, `check` finds ledger and broker, `check --live` a worker; after a fail-over as well."""
    stack.start_worker().wait_ready()
    shown = stack.cli_json("config")
    assert "the primary main, found through 2 sentinels; 1 partition" == shown["topology"]
    assert "topology: the primary main" in stack.cli("config").stdout

    def all_well() -> bool:
        found: list[dict[str, Any]] = stack.cli_json("check")
        by_subject = {one["subject"]: one for one in found}
        assert ("ok", "none, on this machine") == (
            by_subject["celery encryption"]["verdict"],
            by_subject["celery encryption"]["detail"],
        )
        return "ok" == by_subject["celery"]["verdict"] == by_subject["writes"]["verdict"]

    assert all_well()
    assert 0 == stack.cli("check", "--live").returncode
    sentinels.fail_over()
    assert all_well()
    wait_until(lambda: 0 == stack.cli("check", "--live").returncode, what="live")
    stack.environment["DISPATCHER_REDIS_URL"] = sentinels.url_of(name="other")
    refused = stack.cli("stats")
    assert (3, 1) == (refused.returncode, len(refused.stderr.splitlines()))
    assert "the sentinels know no primary of this name" in refused.stderr
    assert [] == [one for one in (PASSWORD, SENTINEL_PASSWORD) if one in refused.stderr]
