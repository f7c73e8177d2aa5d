"""Registries: a worker stores its heartbeat in three, and reads one of them while that knows enough."""

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from dispatcher.errors import RedisUnavailable
from dispatcher.rules.ownership import ALIVE_MS, RECENT_MS, alive
from dispatcher.store import members
from dispatcher.store.keys import keys_of
from dispatcher.store.ledger import Ledger
from dispatcher.store.members import Registry, registries
from dispatcher.store.script_text import sha
from dispatcher.store.servers import PlainServers

COUNT = 16
SECOND_MS = 1000


class Place:
    """A registry, and how often it was read."""

    def __init__(self, servers: PlainServers, partition: int) -> None:
        self.readings = 0
        self.keys = servers.keys[partition]
        self._servers, self._partition = servers, partition

    def ledger(self, installation: "Installed", worker: str) -> Ledger:
        """A worker's."""

        async def call(*command: Any) -> Any:
            self.readings += command[1] == sha("members")
            if (worker, self) in installation.cut or ("", self) in installation.cut:
                raise ConnectionError("away")
            if self in installation.silent:
                await asyncio.sleep(60)
            return await self._servers.wire(self._partition).call(*command)

        return Ledger(call, self.keys, clock=lambda: installation.now)

    async def forget(self) -> None:
        """Loses all that it knew."""
        client = self._servers.client(self._partition)
        async for key in client.scan_iter(f"{self.keys.prefix}:*"):
            await client.delete(key)


class Installed:
    """Three registries, and workers by name."""

    def __init__(self, url: str) -> None:
        self.servers = PlainServers([url], keys_of("dispatcher", COUNT))
        self.now = 1_800_000_000_000
        self.places = [Place(self.servers, one) for one in registries(COUNT)]
        self.cut: set[tuple[str, Place]] = set()
        """Which worker does not reach which registry; no name: none does."""
        self.silent: set[Place] = set()
        self.workers: dict[str, Registry] = {}

    def join(self, *names: str) -> None:
        """Workers that read the first registry, as long as that suffices."""
        for name in names:
            self.workers[name] = Registry([one.ledger(self, name) for one in self.places], name)

    async def look(self, *names: str, after_ms: int = SECOND_MS) -> dict[str, set[str]]:
        """Some workers, or all, read and store one after the other; whom each found alive, besides itself."""
        found = {}
        self.now += after_ms
        for name in names or self.workers:
            ages = (await self.workers[name].read()).ages_ms
            found[name] = alive({one: -age for one, age in ages.items()}, 0) - {name}
            await self.workers[name].store('{"owns": "3"}')
        return found

    def readings(self) -> list[int]:
        """How often each registry was read since this was asked last."""
        found = [one.readings for one in self.places]
        for one in self.places:
            one.readings = 0
        return found


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """A loop for a test."""
    with asyncio.Runner() as made:
        yield made


@pytest.fixture
def installed(redis_url: str, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    """Three workers that have just looked twice, on registries of which they read the first."""
    monkeypatch.setattr(members, "crc32", lambda _: 0)
    made = Installed(redis_url)
    made.join("a", "b", "c")
    runner.run(made.look())
    runner.run(made.look())
    made.readings()
    yield made
    runner.run(made.servers.aclose())


ALL = {"a": {"b", "c"}, "b": {"a", "c"}, "c": {"a", "b"}}


def play(installed: Installed, runner: asyncio.Runner, story: Coroutine[Any, Any, None]) -> None:
    """Runs a story, not for long."""

    async def run() -> None:
        async with asyncio.timeout(30):
            await story

    runner.run(run())


def test_one_is_read(installed: Installed, runner: asyncio.Runner) -> None:
    """While all is well, a worker reads one registry; a new one reads all at first."""

    async def story() -> None:
        for _ in range(5):
            assert ALL == await installed.look()
        assert [15, 0, 0] == installed.readings()
        installed.join("d")
        assert {"d": {"a", "b", "c"}} == await installed.look("d", after_ms=0)
        assert [1, 1, 1] == installed.readings()
        assert {one: others | {"d"} for one, others in ALL.items()} == await installed.look("a", "b", "c")
        assert [3, 0, 0] == installed.readings()

    play(installed, runner, story())


def test_each_is_read_by_some(redis_url: str, runner: asyncio.Runner) -> None:
    """Of 60 workers that see each other each registry is read by a third or so."""
    installed = Installed(redis_url)

    async def story() -> None:
        installed.join(*(f"celery@worker-{number}" for number in range(60)))
        await installed.look()
        await installed.look()
        installed.readings()
        found = await installed.look()
        assert {59} == {len(others) for others in found.values()}
        readings = installed.readings()
        assert (60, True) == (sum(readings), min(readings) >= 10), readings
        await installed.servers.aclose()

    play(installed, runner, story())


def test_one_that_lost_its_memory(installed: Installed, runner: asyncio.Runner) -> None:
    """A registry that comes back empty hides nobody, also none that is slow to store its heartbeat there; after that it suffices again."""

    async def story() -> None:
        await installed.places[0].forget()
        assert {one: ALL[one] for one in "ab"} == await installed.look("a", "b")
        assert ALL == await installed.look()
        installed.readings()
        assert ALL == await installed.look()
        assert [3, 0, 0] == installed.readings()

    play(installed, runner, story())


def test_a_worker_that_comes_when_one_lost_its_memory(installed: Installed, runner: asyncio.Runner) -> None:
    """It sees all others, although nobody has told the registry that it would read."""

    async def story() -> None:
        await installed.places[0].forget()
        installed.join("d")
        for _ in range(3):
            assert {"d": {"a", "b", "c"}} == await installed.look("d")

    play(installed, runner, story())


def test_one_that_is_behind(installed: Installed, runner: asyncio.Runner) -> None:
    """A replica that took over and knows only old heartbeats shows nobody as dead, and nobody with what it said long ago."""

    async def story() -> None:
        place = installed.places[0]
        client = installed.servers.client(0)
        for name in installed.workers:
            await client.zadd(place.keys.workers, {name: installed.now - ALIVE_MS})
        assert {"a": {"b", "c"}} == await installed.look("a")
        members = await installed.workers["b"].read()
        assert {"a": 0, "b": SECOND_MS, "c": SECOND_MS} == members.ages_ms

    play(installed, runner, story())


def test_one_that_does_not_answer(installed: Installed, runner: asyncio.Runner) -> None:
    """Then the next is read, until the first has stored a heartbeat again."""

    async def story() -> None:
        installed.cut = {("", installed.places[0])}
        assert ALL == await installed.look()
        installed.readings()
        assert ALL == await installed.look()
        assert [0, 3, 0] == installed.readings()
        installed.cut = set()
        assert ALL == await installed.look()
        assert ALL == await installed.look()
        assert [3, 3, 0] == installed.readings()

    play(installed, runner, story())


def test_a_silent_one(installed: Installed, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen registry is waited for once, for its time; after that none waits for it to read."""
    monkeypatch.setattr(members, "BEAT_SECONDS", 0.2)

    async def story() -> None:
        installed.silent = {installed.places[0]}
        assert ALL == await installed.look()
        installed.readings()
        await installed.workers["a"].read()
        assert [0, 1, 0] == installed.readings()
        installed.silent = set(installed.places)
        for _ in range(2):
            with pytest.raises(RedisUnavailable, match="has not answered"):
                await installed.workers["a"].read()
        assert [2, 3, 3] == installed.readings()
        installed.silent = set()
        assert ALL == await installed.look()

    play(installed, runner, story())


def test_a_worker_that_does_not_reach_it(installed: Installed, runner: asyncio.Runner) -> None:
    """Who cannot store a heartbeat where others read is seen by them nevertheless, also if it never could."""

    async def story() -> None:
        installed.join("d")
        for name in "db":
            installed.cut.add((name, installed.places[0]))
            await installed.look("d", "a", "b", "c")
            for _ in range(2 * ALIVE_MS // SECOND_MS):
                assert {one: set("abcd") - {one} for one in "abcd"} == await installed.look()

    play(installed, runner, story())


def test_one_that_died(installed: Installed, runner: asyncio.Runner) -> None:
    """Whose heartbeat is not recent is looked for everywhere, until it is dead; one that ended is gone at once."""

    async def story() -> None:
        for after, known, readings in (
            (1000, {"b", "c"}, [1, 0, 0]),
            (RECENT_MS, {"b", "c"}, [1, 1, 1]),
            (3000, {"b", "c"}, [1, 1, 1]),
            (ALIVE_MS, {"c"}, [1, 1, 1]),
            (5000, {"c"}, [1, 0, 0]),
        ):
            found = await installed.look("c", "a")
            assert (after, known, readings) == (after, found["a"], [one // 2 for one in installed.readings()])
        await installed.workers["c"].leave()
        assert {"a": set()} == await installed.look("a")

    play(installed, runner, story())


def test_none_answers(installed: Installed, runner: asyncio.Runner) -> None:
    """If none does, that is said, of reading and of storing; who ends, ends nevertheless."""

    async def story() -> None:
        installed.cut = {("", one) for one in installed.places}
        with pytest.raises(RedisUnavailable):
            await installed.workers["a"].read()
        with pytest.raises(RedisUnavailable):
            await installed.workers["a"].store("{}")
        await installed.workers["a"].leave()

    play(installed, runner, story())


def test_damaged_heartbeats(installed: Installed, runner: asyncio.Runner) -> None:
    """A heartbeat that was written over by hand says nothing, and hides no other."""

    async def story() -> None:
        for text in ("no JSON", "[]", "7"):
            await installed.workers["b"].store(text)
            found = (await installed.workers["a"].read()).heartbeats
            assert ({"owns": "3"}, {}) == (found["a"], found["b"])

    play(installed, runner, story())


def test_who_watches(installed: Installed, runner: asyncio.Runner) -> None:
    """Storing says whether someone watches attempts; the first registry knows it."""

    async def story() -> None:
        assert not await installed.workers["a"].store("{}")
        await installed.servers.client(0).set(installed.places[0].keys.tail, "1", px=5000)
        assert await installed.workers["a"].store("{}")

    play(installed, runner, story())
