"""The counters of several partitions: the servers add them up, with few commands."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.keys import endpoint_id
from tasks import wiring
from tasks.actions import stats as of_stats
from tasks.actions import workspaces
from tasks.actions.workspaces import Wanted
from tasks.redis_server import RedisServer
from tests.divided import Installed, installed, two_servers
from tests.redis.test_across import P, fill


@pytest.fixture
def servers(server_program: str, tmp_path: Path) -> Iterator[list[RedisServer]]:
    """Two servers."""
    with two_servers(server_program, tmp_path) as started:
        yield started


@pytest.fixture
def many(servers: list[RedisServer]) -> Iterator[Installed]:
    """Eight partitions on them."""
    with installed([one.url for one in servers], P) as found:
        yield found


def test_a_whole_day(many: Installed) -> None:
    """Counters in each minute of a day, which Redis adds up in several parts, give the sums of any spans of minutes."""
    world, minute = many.worlds[3], many.now // 60_000
    for number in range(minute - 1439, minute + 1):
        world.call("hset", world.keys.stats("minute", number), mapping={"accepted": 1, "failed": 2})
        world.call("hset", world.keys.stats("hour", number // 60), "* failed", 1)
    found = many.do(lambda store: store.stats.sums(many.now, of_stats.SPANS))
    assert of_stats.SPANS == [counts["accepted"] for counts in found]
    assert {"accepted": 1440, "failed": 2880} == many.do(lambda store: store.stats.day(many.now))


def test_costs_of_counters(many: Installed, servers: list[RedisServer]) -> None:
    """The figures of a day by the minute, and of a week by the hour, are two commands for each partition; empty hours are skipped."""

    async def read(store: wiring.Store) -> None:
        await store.stats.sums(many.now, of_stats.SPANS)
        await store.stats.windows(many.now, [1, 24, 168])

    fill(many)
    counts: Counter[str] = Counter()
    for server in servers:
        with redis.Redis.from_url(server.url) as client:
            client.config_resetstat()
    many.do(read)
    for server in servers:
        with redis.Redis.from_url(server.url) as client:
            counts.update({name: one["calls"] for name, one in client.info("commandstats").items()})
    assert 2 * P == counts["cmdstat_eval"]
    assert counts["cmdstat_hlen"] <= P * (168 + 2 * 60)


def test_minutes_lie_in_hours(many: Installed) -> None:
    """What counts in a minute counts in its hour too: so minutes of an hour without counters need not be looked at."""
    fill(many)
    minutes = 0
    for world in many.worlds:
        for key in world.call("keys", f"{world.keys.root}stats:minute:*"):
            assert world.call("exists", world.keys.stats("hour", int(key.rpartition(b":")[2]) // 60))
            minutes += 1
    assert minutes


def test_the_days_of_one_endpoint(many: Installed) -> None:
    """Each day's counters of its workspace's partitions, without those of other endpoints; days without any are empty."""
    name = EndpointName.parse("acme https://a.example:443")
    home = many.worlds[many.partitioning.home("acme")]
    many.do(workspaces.add, "acme", "zeckta", Wanted("https://a.example/hooks"), None)
    today, id_ = many.now // 86_400_000, endpoint_id(name)
    home.call("hset", home.keys.stats("day", today), mapping={f"{id_} delivered": 4, "other delivered": 9})
    home.call("hset", home.keys.stats("day", today - 6), f"{id_} failed", 2)
    days = many.do(lambda store: store.stats.endpoint_days([name], many.now))
    assert 7 == len(days)
    assert (4, 0, 2) == (days[-1]["delivered"], days[-1]["failed"], days[0]["failed"])
    assert not any(sum(one.values()) for one in days[1:-1])


def test_workspaces_of_a_page(many: Installed) -> None:
    """Some workspaces, each from its home partition."""
    for name in ("acme", "bluefin", "copper"):
        many.do(workspaces.add, name, "zeckta", Wanted("https://a.example/hooks"), None)
    found = many.do(lambda store: store.workspaces.some(["copper", "acme", "gone"]))
    assert ["acme", "copper"] == sorted(one.id for one in found)
    assert [] == many.do(lambda store: store.workspaces.some([]))
