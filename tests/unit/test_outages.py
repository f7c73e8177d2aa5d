"""What is logged of servers that do not answer, or refuse partitions: when it begins, and when it is over."""

import asyncio
from typing import Any

from structlog.testing import capture_logs

from dispatcher.errors import RedisUnavailable
from dispatcher.store.keys import keys_of
from dispatcher.store.servers import PlainServers
from dispatcher.worker.outages import (
    FLAPPING_STEADY_SECONDS,
    GATHER_SECONDS,
    MAX_REASONS,
    RECENT_SECONDS,
    STEADY_SECONDS,
    Outages,
)

MOVING = RedisUnavailable("a is moving slot 5", "is moving slot 5")


class Scene:
    """Partition n lies on server n modulo 2, until a test says otherwise; time passes as it says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.servers = {n: f"server{n % 2}" for n in range(8)}
        self.outages = Outages(self._server, clock=lambda: self.now)

    def _server(self, partition: int) -> str:
        if partition not in self.servers:
            raise RedisUnavailable("no server of it is known")
        return self.servers[partition]

    def passes(self, seconds: float, *, works: tuple[int, ...] = (), fails: tuple[int, ...] = ()) -> None:
        """In each half of a second all of these work, then all of those fail."""
        for _ in range(round(seconds * 2)):
            self.now += 0.5
            for one in works:
                self.outages.watch(one).worked()
            for one in fails:
                self.outages.watch(one).failed(MOVING)


def told(lines: list[Any]) -> list[tuple[object, ...]]:
    """Events, servers and partitions."""
    return [(line["event"], line["server"], line["partitions"]) for line in lines]


def test_one_partition_is_refused() -> None:
    """Others of its server are served, and of its own calls some too: one line says when it begins, one when it is over."""
    scene = Scene()
    with capture_logs() as logged:
        scene.passes(300, works=(1, 3, 5), fails=(3,))
        assert [("redis.away", "server1", [3])] == told(logged)
        assert {3} == scene.outages.away()
        scene.passes(STEADY_SECONDS + 1, works=(1, 3, 5))
    assert [("redis.away", "server1", [3]), ("redis.back", "server1", [3])] == told(logged)
    assert "a is moving slot 5" == logged[0]["problem"]
    assert not scene.outages.away()


def test_a_server_is_away() -> None:
    """One line names all partitions that did not get an answer, and one says that all are back, not before."""
    scene = Scene()
    with capture_logs() as logged:
        scene.passes(60, works=(0, 2), fails=(1, 3, 5, 7))
        scene.passes(60, works=(0, 1, 2, 3, 5), fails=(7,))
        assert [("redis.away", "server1", [1, 3, 5, 7])] == told(logged)
        scene.passes(STEADY_SECONDS + 1, works=(7,))
    assert ("redis.back", "server1", [1, 3, 5, 7]) == told(logged)[-1]
    assert 2 == len(logged)


def test_a_replica_takes_over() -> None:
    """What was away is back though its partitions are on another server now, or were on none for a while."""
    scene = Scene()
    with capture_logs() as logged:
        scene.passes(2, fails=(1, 3))
        del scene.servers[3]
        scene.passes(2, fails=(1, 3))
        scene.servers |= {1: "server2", 3: "server2"}
        scene.passes(STEADY_SECONDS + 1, works=(1, 3))
    assert [("redis.away", "server1", [1, 3]), ("redis.back", "server1", [1, 3])] == told(logged)


def test_no_server_is_known() -> None:
    """It is said that it is unknown."""
    scene = Scene()
    scene.servers.clear()
    with capture_logs() as logged:
        scene.passes(2, fails=(1,))
    assert [("redis.away", "unknown", [1])] == told(logged)


def test_a_short_failure_is_logged_too() -> None:
    """Also if nothing fails any more when it is: once it began and once it is over."""
    scene = Scene()
    with capture_logs() as logged:
        scene.outages.failed(1, MOVING)
        assert [] == logged, f"others may fail within {GATHER_SECONDS} s"
        scene.passes(STEADY_SECONDS + 1, works=(1,))
    assert ["redis.away", "redis.back"] == [line["event"] for line in logged]


def test_what_flaps() -> None:
    """A server that is away every 20 s, for an hour, has no more than a line a minute, and is back in the end."""
    scene = Scene()
    with capture_logs() as logged:
        for _ in range(180):
            scene.passes(10, fails=(1,))
            scene.passes(10, works=(1,))
        assert len(logged) <= 60
        scene.passes(FLAPPING_STEADY_SECONDS + 1, works=(1,))
        assert ["redis.away", "redis.back"] * (len(logged) // 2) == [line["event"] for line in logged]
        before = len(logged)
        scene.passes(RECENT_SECONDS)
        scene.passes(1, fails=(1,))
        scene.passes(STEADY_SECONDS + 1, works=(1,))
    assert 2 == len(logged) - before, "it is as if it had never been away"


def test_other_reasons() -> None:
    """Each reason is logged once, up to five."""
    scene = Scene()
    with capture_logs() as logged:
        for number in range(20):
            scene.outages.failed(1, RedisUnavailable(f"slot {number}", f"is moving slot {number}"))
            scene.now += 1
    assert [f"slot {number}" for number in range(MAX_REASONS)] == [line["problem"] for line in logged]


def test_no_password_is_logged() -> None:
    """A server's name is what it is called in all texts: its URL without the password."""

    async def work() -> None:
        servers = PlainServers(["redis://me:secret@127.0.0.1:1/0"], keys_of("dispatcher", 2))
        outages = Outages(lambda number: servers.node(number).name)
        outages.failed(1, RedisUnavailable("away"))
        await asyncio.sleep(GATHER_SECONDS)
        outages.look()
        await servers.aclose()

    with capture_logs() as logged:
        asyncio.run(work())
    assert 1 == len(logged)
    assert "127.0.0.1:1" in logged[0]["server"]
    assert "secret" not in str(logged)
