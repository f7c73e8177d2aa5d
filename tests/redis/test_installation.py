"""Figures of the whole installation, as metrics show them."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from dispatcher.model import iso
from dispatcher.rules.outcomes import EndpointHealth, Retry
from dispatcher.store.endpoints import Endpoints
from dispatcher.store.installation import Installation
from dispatcher.store.keys import endpoint_id
from tests.redis.test_subscriptions import CRM, OWN, Customer, change
from tests.world import World, callback

A, B, STOPPED = "acme https://a.example:443", "acme https://b.example:443", "acme https://c.example:443"
HELD = ("due", "expiring", "expiring_held")
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
    endpoints = world.run(Endpoints(client, world.keys).all())
    rejected = world.run(world.rejected.counts())
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


def test_a_pause_makes_nothing_late(world: World) -> None:
    """What waits for the end of a Retry-After is not late; once that is over it is, from then on."""
    world.accept(callback("e0", endpoint=A, message="m0"))
    world.claim(A)
    world.settle(
        "e0", 1, Retry(1000), endpoint=A, error="http_503", health=EndpointHealth.DOWN, retry_after_ms=60_000
    )
    world.accept(callback("e1", endpoint=A, message="m1"))
    world.now += 30_000
    found = _figures(world)
    assert ({"paused": 1}, 0.0) == (found["endpoints"], found["due"])
    world.now += 37_000
    assert 7.0 == _figures(world)["due"]


def test_what_a_paused_subscription_holds(world: World) -> None:
    """It is not late, and what of it expires within an hour is counted, until the subscription is resumed."""
    customer = Customer(world)
    customer.tell(change())
    world.run(customer.subscriptions.pause("acme", "crm"))
    world.deliver_all(OWN)
    world.now += 172_800_000 - 1_800_000
    world.run(world.ledger.wake())
    assert [0.0, 1, 1] == [_figures(world)[name] for name in HELD]
    world.run(customer.subscriptions.resume("acme", "crm", world.ledger))
    assert [171_000.0, 1, 0] == [_figures(world)[name] for name in HELD]


def test_what_was_down_before_it_was_paused(world: World) -> None:
    """An endpoint that does not answer is not said to be down while its subscription is paused, and is again when it is resumed."""
    customer = Customer(world)
    world.accept(*(callback(f"e{n}.crm", endpoint=CRM, message=f"m{n}") for n in range(11)))
    for _ in range(10):
        (one,) = world.claim(CRM, count=1).callbacks
        world.settle(
            one.event_id, one.claim, Retry(0), endpoint=CRM, error="timeout", health=EndpointHealth.DOWN
        )
    world.now += 7_200_000
    assert 7200.0 == _figures(world)["down"]
    world.run(customer.subscriptions.pause("acme", "crm"))
    world.run(world.ledger.wake())
    assert 0.0 == _figures(world)["down"]
    world.run(customer.subscriptions.resume("acme", "crm", world.ledger))
    assert 7200.0 == _figures(world)["down"]


def test_what_was_paused_before_it_was_noted(world: World) -> None:
    """The record of an endpoint whose subscription an earlier version paused is brought up to date by a sweep."""
    customer = Customer(world)
    customer.tell(change())
    world.run(customer.subscriptions.pause("acme", "crm"))
    world.now += 9000
    world.run(world.ledger.wake())
    world.call("hdel", world.keys.endpoint(endpoint_id(CRM)), "held")
    world.deliver_all(OWN)
    assert 9.0 == _figures(world)["due"]
    world.run(world.ledger.sweep("0", 1000))
    assert 0.0 == _figures(world)["due"]


def test_what_a_stop_holds(world: World) -> None:
    """What expires within an hour is counted as held if the operator stopped its endpoint, also a damaged entry does not hide it."""
    world.accept(*(callback(f"e{n}", endpoint=one, message=f"m{n}") for n, one in enumerate((A, B, STOPPED))))
    world.run(world.ledger.stop(endpoint_id(STOPPED)))
    world.now += 172_800_000 - 1000
    kept = world.call("getset", world.keys.event("acme", "e0"), "damaged")
    found = _figures(world)
    world.call("set", world.keys.event("acme", "e0"), kept)
    assert [3, 1] == [found["expiring"], found["expiring_held"]]


def test_what_an_outage_lets_expire(world: World) -> None:
    """What expires within an hour counts as an outage's if its own endpoint has been down for more than an hour."""
    world.ledger.options = replace(world.ledger.options, breaker_failures=1)
    world.accept(callback("e0", endpoint=A), callback("e1", endpoint=B, message="m1", ttl_ms=9_000_000))
    world.accept(callback("e2", endpoint=B, message="m2"))
    world.claim(B)
    world.settle("e1", 1, Retry(60_000), endpoint=B, error="connect", health=EndpointHealth.DOWN)
    world.now += 3_600_000
    short = callback("short", endpoint=A, message="m3", timestamp_ms=world.now, ttl_ms=3_000_000)
    assert ["accepted"] == world.accept(short)[1]
    assert [1, 0] == [_figures(world)[name] for name in ("expiring", "expiring_down")]
    world.now += 1_800_001
    assert [2, 1] == [_figures(world)[name] for name in ("expiring", "expiring_down")]


@pytest.fixture
def as_exporter(world: World) -> Iterator[redis.asyncio.Redis]:
    """A client with the Redis user that the runbook makes for the exporter."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    (line,) = re.findall(r"^ACL SETUSER dispatcher-exporter (.*)$", text, re.M)
    world.call("execute_command", "ACL SETUSER", "exporter", *line.replace("PASSWORD", "x").split())
    pool = world.client.connection_pool
    kwargs = {**pool.connection_kwargs, "username": "exporter", "password": "x"}
    client = redis.asyncio.Redis.from_pool(
        redis.asyncio.ConnectionPool(connection_class=pool.connection_class, **kwargs)
    )
    yield client
    world.run(client.aclose())
    world.call("execute_command", "ACL DELUSER", "exporter")


def test_the_exporters_user_on_an_empty_redis(world: World, as_exporter: redis.asyncio.Redis) -> None:
    """It may ask whether there is anything, before any worker has begun."""
    world.call("delete", world.keys.format)
    assert world.run(Installation(as_exporter, world.keys).is_empty())
    world.call("zadd", world.keys.endpoints, {"e": 1})
    assert not world.run(Installation(as_exporter, world.keys).is_empty())


def test_the_exporters_user_counts_what_is_held(world: World, as_exporter: redis.asyncio.Redis) -> None:
    """It may read what it takes to know that nothing is late, and that something held expires."""
    world.now = round(time.time() * 1000) - 10_000
    customer = Customer(world)
    world.run(customer.subscriptions.pause("acme", "crm"))
    customer.tell(change(timestamp=iso(world.now), ttlSeconds=600))
    world.deliver_all(OWN)
    endpoints = world.run(Endpoints(as_exporter, world.keys).all())
    found = world.run(Installation(as_exporter, world.keys).figures(endpoints, {}))
    assert [0.0, 1, 1] == [found[name] for name in HELD]
