"""What reads all endpoints, workspaces or counters: complete however many there are, and no command reads them all."""

import json
from collections import Counter

import pytest

from dispatcher.store.endpoints import READ_AT_ONCE
from dispatcher.store.keys import endpoint_id
from dispatcher.store.sealing import SecretBox
from dispatcher.store.stats import PAGE
from dispatcher.store.subscriptions import Subscriptions
from dispatcher.store.workspaces import Workspaces
from tests.command import command
from tests.world import World, callback

COUNT = 2 * READ_AT_ONCE + 100
HOUR_MS = 3_600_000


@pytest.fixture
def workspaces(world: World) -> Workspaces:
    """Workspaces with readable secrets."""
    return Workspaces(world.client, world.keys, SecretBox())


def calls(world: World) -> Counter[str]:
    """How often each command ran so far."""
    stats = world.call("info", "commandstats")
    return Counter({name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()})


def many_endpoints(world: World) -> list[str]:
    """Has a callback wait for each of COUNT endpoints, every tenth of workspace `b`; returns the endpoints' names."""
    names = [f"{'a' if n % 10 else 'b'} https://{n}.example:443" for n in range(COUNT)]
    world.accept(*(callback(f"e{n}", endpoint=name, message=f"m{n}") for n, name in enumerate(names)))
    return names


def test_all_endpoints_are_read_a_page_at_a_time(world: World) -> None:
    """All endpoints are found, each once, and no command returns all of their ids."""
    names, before = many_endpoints(world), calls(world)
    found = world.run(world.endpoints.all())
    assert sorted(map(endpoint_id, names)) == sorted(one.id for one in found)
    assert (calls(world) - before)["zscan"] >= 2


def test_who_waits_is_read_a_page_at_a_time(world: World, workspaces: Workspaces) -> None:
    """A workspace's endpoints that have waiting callbacks are found among many in a few round trips."""
    names = many_endpoints(world)
    assert {endpoint_id(name): 1 for name in names if name.startswith("b ")} == world.run(
        workspaces.waiting("b")
    )
    assert {} == world.run(workspaces.waiting("c"))


def test_what_waits_for_each_subscription_is_one_scan(
    world: World, workspaces: Workspaces, redis_url: str
) -> None:
    """However many subscriptions a workspace has, `subscription list` goes through the endpoints once."""
    url = "https://0.example/"
    world.run(workspaces.add("a", "zeckta", url, now_ms=world.now))
    for number in range(8):
        world.run(Subscriptions(workspaces).add("a", f"s{number}", url, now_ms=world.now))
    many_endpoints(world)
    world.accept(callback("x.s3", endpoint="a.s3 https://0.example:443", message="x"))
    before = calls(world)
    shown = json.loads(command(redis_url, "subscription", "list", "a", "--json").stdout)
    waiting = {one["subscription"]: one["waiting"] for one in shown}
    assert waiting == {"default": COUNT - COUNT // 10, "s3": 1} | {f"s{n}": 0 for n in range(8) if n != 3}
    assert (calls(world) - before)["zscan"] <= -(-(COUNT + 1) // READ_AT_ONCE) + 1


def test_all_workspaces_are_read(world: World, workspaces: Workspaces) -> None:
    """All workspaces are read, sorted by name; one whose record is gone is left out."""
    names = sorted(f"w{n}" for n in range(READ_AT_ONCE + 2))
    made = [
        world.run(workspaces.add(name, "zeckta", "https://a.example/hooks", now_ms=world.now))
        for name in names
    ]
    world.call("delete", world.keys.workspace(names[0]))
    assert made[1:] == world.run(workspaces.all())


def test_counters_are_read_a_page_at_a_time(world: World) -> None:
    """An hour's counters of many workspaces are all read, but not in one command."""
    count = 3 * PAGE
    for ago in (0, 1):
        key = world.keys.stats("hour", world.now // HOUR_MS - ago)
        world.call("hset", key, mapping={f"w{n} delivered": n + 1 for n in range(count)})
        world.call("pexpire", key, HOUR_MS)
    before = calls(world)
    found = world.run(world.stats.workspaces(world.now, 2))
    assert {f"w{n}": 2 * (n + 1) for n in range(count)} == {
        name: one.counts["delivered"] for name, one in found.items()
    }
    ran = calls(world) - before
    assert ran["hgetall"] == 0
    assert ran["hscan"] >= 2 * 3


def test_many_callbacks_of_one_message_are_forgotten_at_once(world: World) -> None:
    """Their message's list is written once, not once for each of them."""
    ids = [f"e{n}" for n in range(100)]
    world.accept(*map(callback, ids))
    world.deliver_all()
    before = calls(world)
    assert 99 == world.run(world.ledger.forget("acme", [*ids[1:], ids[1]]))
    assert 1 == (calls(world) - before)["set"]
    assert ["e0"] == [one.event_id for one in world.run(world.callbacks.of_message("acme", "m1"))]


def test_many_of_one_time_read_no_other(world: World) -> None:
    """In the order `latest` a status of the same time as those that wait does not look at each of them."""
    world.call("hset", world.keys.workspace("acme"), "ordering", "latest")
    costs = []
    for first in (0, 100):
        before = calls(world)
        world.accept(*(callback(f"e{n}", timestamp_ms=world.now) for n in range(first, first + 100)))
        costs.append(sum((calls(world) - before).values()))
    assert costs[1] <= costs[0]
    assert 200 == len(world.deliver_all())
