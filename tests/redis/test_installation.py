"""Figures of the whole installation, as metrics show them."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis.asyncio

from dispatcher.rules.outcomes import EndpointHealth, Retry
from dispatcher.store.installation import Installation
from dispatcher.store.keys import endpoint_id
from tests.world import World, callback

A, B, STOPPED = "acme https://a.example:443", "acme https://b.example:443", "acme https://c.example:443"
AGES = ("queued", "queue_age", "waiting", "due", "down")


class _AtTime:
    """A client whose Redis has the world's time."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def time(self) -> tuple[int, int]:
        """Seconds and microseconds."""
        return self._world.now // 1000, self._world.now % 1000 * 1000

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.client, name)


def _figures(world: World) -> dict[str, Any]:
    client: Any = _AtTime(world)
    endpoints, rejected = world.run(world.endpoints.all()), world.run(world.rejected.counts())
    return world.run(Installation(client, world.keys).figures(endpoints, rejected))


def test_nothing_waits(world: World) -> None:
    """Of an empty installation all ages are 0, and each reason of a rejection has a count."""
    found = _figures(world)
    assert [0, 0.0, 0, 0.0, 0.0] == [found[name] for name in AGES]
    assert {0} == set(found["rejected"].values())


def test_ages(world: World) -> None:
    """Each age is that of the earliest: on the queue, due at an endpoint that answers, down; a stopped endpoint has none."""
    world.ledger.options = replace(world.ledger.options, breaker_failures=1)
    world.call("xadd", world.keys.events, {"event": "x"}, id=f"{world.now - 4000}-0")
    world.accept(*(callback(f"e{n}", endpoint=one, message=f"m{n}") for n, one in enumerate((A, B, STOPPED))))
    world.run(world.ledger.stop(endpoint_id(STOPPED)))
    world.claim(B)
    world.settle("e1", 1, Retry(60_000), endpoint=B, error="connect", health=EndpointHealth.DOWN)
    world.now += 7000
    found = _figures(world)
    assert [1, 11.0, 3, 7.0, 7.0] == [found[name] for name in AGES]
    assert {"stopped": 1, "waiting": 1, "paused": 1} == found["endpoints"]


def test_the_exporters_user_on_an_empty_redis(world: World) -> None:
    """The Redis user that the runbook makes for the exporter may ask whether there is anything, before any worker has begun."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    (line,) = re.findall(r"^ACL SETUSER dispatcher-exporter (.*)$", text, re.M)
    world.call("execute_command", "ACL SETUSER", "exporter", *line.replace("PASSWORD", "x").split())
    pool = world.client.connection_pool
    as_exporter = {**pool.connection_kwargs, "username": "exporter", "password": "x"}
    client = redis.asyncio.Redis.from_pool(
        redis.asyncio.ConnectionPool(connection_class=pool.connection_class, **as_exporter)
    )
    try:
        world.call("delete", world.keys.format)
        assert world.run(Installation(client, world.keys).is_empty())
        world.call("zadd", world.keys.endpoints, {"e": 1})
        assert not world.run(Installation(client, world.keys).is_empty())
    finally:
        world.run(client.aclose())
        world.call("execute_command", "ACL DELUSER", "exporter")
