"""What a page of a list costs, in Redis commands: it does not grow with what there is besides."""

from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import Failed, State
from dispatcher.store import rejected
from dispatcher.store.callbacks import Passed
from dispatcher.store.keys import endpoint_id
from dispatcher.store.sealing import SecretBox
from dispatcher.store.stats import Stats
from dispatcher.store.workspaces import Workspaces
from tests.world import World, callback

A, B = "acme https://a.example:443", "beta https://b.example:443"


def commands(world: World, ask: Callable[[], Awaitable[object]]) -> Counter[str]:
    """The commands that Redis ran meanwhile, without the reset of its counts (`config`, in Valkey `config|resetstat`)."""
    world.call("config_resetstat")
    world.run(ask())  # type: ignore[arg-type]
    of = world.call("info", "commandstats")
    calls = {name.removeprefix("cmdstat_"): one["calls"] for name, one in of.items()}
    return Counter({name: count for name, count in calls.items() if not name.startswith("config")})


def test_others_that_wait_are_passed_over_by_name(world: World) -> None:
    """A reader of what waits in one workspace hears how many of others were passed over, and none of them was read."""
    world.accept(*(callback(f"b{n}", endpoint=B, message=f"m{n}", ttl_ms=1000) for n in range(300)))
    world.accept(callback("e1"))
    found: list[object] = []

    async def read() -> None:
        found.extend([one async for one in world.callbacks.waiting("acme")])

    asked = commands(world, read)
    passed = [one for one in found if isinstance(one, Passed)]
    assert ["e1"] == [one.event_id for one in found if not isinstance(one, Passed)]  # type: ignore[attr-defined]
    assert 300 // 8 - len(passed) <= sum(one.number for one in passed) <= 300 // 8
    assert (1, 1) == (asked["mget"] - 1, asked["hget"]), asked
    world.deliver_all(A, B)


@pytest.mark.parametrize("each", [3, 60])
def test_the_latest_ends_of_many_workspaces(world: World, each: int) -> None:
    """A page of the latest ends of 40 workspaces costs as much, however many have ended in each."""
    names = [f"w{n:02d}" for n in range(40)]
    for number in range(each):
        world.accept(
            *(
                callback(f"e{number}", endpoint=f"{name} {A.split()[1]}", message=f"m{number}")
                for name in names
            )
        )
        world.now += 1
        for name in names:
            (one,) = world.claim(f"{name} {A.split()[1]}").callbacks
            world.settle(
                one.event_id, one.claim, Failed(), endpoint=f"{name} {A.split()[1]}", error="http_500"
            )
    found: list[tuple[str, str]] = []

    async def read() -> None:
        async for one in world.callbacks.ended(names, State.FAILED):
            found.append((one.workspace, one.event_id))
            if len(found) == 50:
                return

    asked = commands(world, read)
    expected = [(name, f"e{number}") for number in reversed(range(each)) for name in names][:50]
    assert Counter(number for _, number in expected) == Counter(number for _, number in found)
    assert asked["zrevrangebyscore"] <= 40 + 2 * 40
    assert asked["mget"] <= 4


def test_counters_of_one_endpoint(world: World) -> None:
    """Those of others are not read, and a damaged one counts as 0."""
    one, day = EndpointName.parse(A), world.now // 86_400_000
    stats = Stats(world.client, world.keys)
    for number in range(day - 9, day + 1):
        others = {f"{endpoint_id(B)} delivered": 5, **{f"x{n} delivered": 1 for n in range(2000)}}
        mine = {f"{endpoint_id(one)} delivered": 2, f"{endpoint_id(one)} failed": 1}
        world.call("hset", world.keys.stats("day", number), mapping=others | mine)
    world.call("hset", world.keys.stats("day", day), f"{endpoint_id(one)} failed", "by hand")
    days = world.run(stats.endpoint_days([one], world.now))
    assert {"delivered": 14, "failed": 6} == sum(days, Counter())
    assert {"delivered": 2} == +days[-1]
    asked = commands(world, lambda: stats.endpoint_days([one], world.now))
    assert {"hmget": 7} == asked
    for number in range(day - 9, day + 1):
        world.call("expire", world.keys.stats("day", number), 60)


def test_workspaces_of_a_page(world: World, redis_url: str) -> None:
    """Those of a page are read in one round trip, without the others; what there is not is left out."""
    known = Workspaces(world.client, world.keys, SecretBox([]), allow_http=True)
    for number in range(5):
        world.run(known.add(f"w{number}", "zeckta", "http://a.example", now_ms=1))
    found: list[str] = []

    async def read() -> None:
        found.extend(one.id for one in await known.some(["w1", "w3", "gone"]))

    asked = commands(world, read)
    assert (["w1", "w3"], 3) == (found, asked["hgetall"])


@pytest.mark.parametrize(("most", "expected"), [(None, ["r1"]), (3, []), (400, ["r1"])])
def test_rejected_entries_that_are_looked_at(
    world: World, most: int | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page with a filter looks at the newest entries alone, as many as it says."""
    monkeypatch.setattr(rejected, "READ_AT_ONCE", 3)
    about = dict.fromkeys(rejected.FIELDS, "") | {"at": world.now}
    for number in range(1, 10):
        world.call("xadd", world.keys.rejected, about | {"eventId": f"r{number}"})
    reader = rejected.Rejected(world.client, world.keys)
    found = world.run(reader.newest(5, lambda one: one.event_id == "r1", most))
    assert expected == [one.event_id for one in found]
    world.call("pexpire", world.keys.rejected, 1000)
