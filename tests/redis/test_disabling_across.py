"""A receiver of a workspace that is spread over several partitions is gone only if all of them say so; on real servers."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from config.settings import Settings
from dispatcher.health import Health
from dispatcher.model import iso
from dispatcher.rules.decide import health_of
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import Attempt, Delivered, EndpointHealth, Failed
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.across.workspaces import WorkspacesAcross
from dispatcher.store.audit import Audit, Who
from dispatcher.store.grown_servers import GrownServers
from dispatcher.store.keys import endpoint_id, keys_of
from dispatcher.store.replies import Settled, Settlement, ToClaim, ToSettle
from dispatcher.store.servers import PlainServers, Servers
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.worker import disabling
from dispatcher.worker.alerts import Alerts
from dispatcher.worker.disabling import ASKED, Disabler
from dispatcher.worker.metrics import Metrics
from tasks import across_wiring, engine_wiring, wiring
from tasks.redis_server import RedisServer
from tests.world import START_MS, World, callback

COUNT = 4
DAY = 86_400_000
OWN, CRM = "acme https://a.example:443", "acme.crm https://crm.example:443"


class Scene:
    """acme, which is spread over some of four partitions, has its default subscription and crm; a worker's disablers of all of them."""

    def __init__(self, urls: list[str], width: int = 2, previous: str | None = None) -> None:
        self.runner = asyncio.Runner()
        self.now = START_MS
        self.servers = self.runner.run(self._servers(urls, previous))
        settings = Settings(_env_file=None, redis_url=" ".join(urls), broker_url=urls[0], partitions=COUNT)
        self.worlds = [self._world(n) for n in self.servers.partitioning.all]
        self.parts = [self.worlds[n] for n in self.servers.partitioning.all_of("acme", width)]
        """The partitions of acme, its home first."""
        across = Partitions(self.servers, needs_all=True)
        self.workspaces = WorkspacesAcross(across, lambda *of: wiring.workspaces(settings, *of))
        self.subscriptions, self.receivers = across_wiring.receivers(
            settings, self.servers, lambda n: self.worlds[n].ledger
        )
        self.run(self.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1, width=width))
        self.run(self.subscriptions.add("acme", "crm", "https://crm.example/hooks", now_ms=1))
        self.alerts = Alerts("w")

    async def _servers(self, urls: list[str], previous: str | None) -> Servers:
        plain = PlainServers(urls, keys_of("dispatcher", COUNT))
        return GrownServers(plain, previous, "dispatcher") if previous else plain

    def _world(self, number: int) -> World:
        servers = self.servers
        call = servers.wire(number).call
        world = World(servers.client(number), keys=servers.keys[number], call=call, runner=self.runner)
        world.ledger = type(world.ledger)(
            call, world.keys, options=world.ledger.options, clock=lambda: self.now
        )
        world.lead()
        return world

    def run(self, coroutine: Any) -> Any:
        """Its result."""
        return self.runner.run(coroutine)

    def at(self, days: float) -> None:
        """So many days have passed."""
        self.now = START_MS + round(days * DAY)
        for one in self.worlds:
            one.now = self.now

    def accept(self, part: int, id_: str, endpoint: str = OWN) -> None:
        """A callback is accepted in the n-th of acme's partitions."""
        self.parts[part].accept(callback(id_, endpoint=endpoint, message=f"of-{id_}", timestamp_ms=self.now))

    def answer(self, part: int, status: int, endpoint: str = OWN) -> None:
        """A callback of the n-th of acme's partitions is answered for good; then its disabler looks at that, as in a turn."""
        world, id_ = self.parts[part], f"e{self.now}-{part}-{status}"
        self.accept(part, id_, endpoint)
        claims = {one.event_id: one.claim for one in world.claim(endpoint).callbacks}
        error = None if status == 200 else f"http_{status}"
        attempt = Attempt(self.now, 5, status, error)
        one = Settlement(id_, claims[id_], Failed() if error else Delivered(), attempt, health_of(attempt))
        [settled] = self.run(world.ledger.settle([ToSettle(endpoint_id(endpoint), [one])]))
        assert isinstance(settled, Settled)
        if settled.failing_since_ms:
            name = EndpointName.parse(endpoint)
            self.look(part, lambda disabler: disabler.look_at(name, settled, [one]))

    def look(self, part: int, act: Callable[[Disabler], None]) -> None:
        """Has the disabler of the n-th of acme's partitions do something, and waits for it."""
        world = self.parts[part]

        async def run() -> None:
            audit = Audit(world.ledger._call, world.keys, "", Who("worker", "w"))
            cache = WorkspaceCache(self.workspaces._at(world.keys.partition))
            disabler = Disabler(
                self.subscriptions, cache, world.ledger, self.alerts, audit, parts=self.receivers
            )
            act(disabler)
            await disabler.ended()

        self.run(run())

    def reason(self, subscription: str = "") -> str | None:
        """Why it is disabled."""
        receiver = self.run(self.workspaces.get("acme")).receiver(subscription)
        return receiver.disabled and str(receiver.disabled.reason)

    def close(self) -> None:
        """Closes all connections."""
        self.run(self.servers.aclose())
        self.runner.close()


Open = Callable[..., Scene]


@pytest.fixture
def opened(two_urls: list[str]) -> Iterator[Open]:
    """Opens a scene on two servers."""
    found: list[Scene] = []

    def open_(**how: Any) -> Scene:
        found.append(Scene(two_urls, **how))
        return found[-1]

    yield open_
    for one in found:
        one.close()


@pytest.mark.parametrize(
    ("status", "days", "text"),
    [(410, 1.5, "it answered 410 to every attempt"), (500, 6, "every attempt failed")],
)
def test_a_success_elsewhere(opened: Open, status: int, days: float, text: str) -> None:
    """A quiet partition that saw only failures disables nothing while another one's callbacks are accepted; all failing, it does."""
    scene = opened()
    scene.answer(0, status)
    scene.at(days / 2)
    scene.answer(1, 200)
    scene.at(days)
    scene.answer(1, 200)
    scene.answer(0, status)
    assert scene.reason() is None
    scene.at(days + 0.1)
    scene.answer(1, status)  # it fails there from now on
    scene.answer(0, status)
    assert scene.reason() is None
    scene.at(2 * days + 0.2)
    scene.answer(0, status)
    assert f"{text} since {iso(START_MS + round((days + 0.1) * DAY))}" == scene.reason()


def test_another_failure_elsewhere(opened: Open) -> None:
    """What answers 410 in one partition and fails otherwise in another one is not gone; after days of that it is failing."""
    scene = opened()
    for days in (0, 1.5):
        scene.at(days)
        scene.answer(1, 500)
        scene.answer(0, 410)
    assert scene.reason() is None
    scene.at(5.1)
    scene.answer(1, 500)
    assert f"every attempt failed since {iso(START_MS)}" == scene.reason()


def test_one_that_says_nothing(opened: Open) -> None:
    """A partition without a record says nothing, nor one that has only accepted, or had its last success before all that."""
    scene = opened(width=3)
    scene.answer(1, 200)
    scene.at(0.5)
    scene.answer(0, 500)
    scene.at(5.6)
    scene.accept(2, "waits")
    scene.answer(0, 500)
    assert f"every attempt failed since {iso(START_MS + DAY // 2)}" == scene.reason()


def test_a_resumed_one(opened: Open) -> None:
    """`subscription resume` forgets the failures of all partitions: the next one disables nothing."""
    scene = opened()
    for days in (0, 6):
        scene.at(days)
        scene.answer(1, 500)
    assert scene.reason()
    scene.run(scene.subscriptions.resume("acme", "default", scene.parts[0].ledger))
    scene.at(6.5)
    scene.answer(1, 500)
    assert scene.reason() is None


def test_the_previous_redis(opened: Open, second_server: RedisServer) -> None:
    """After growth the previous Redis is one more part of each workspace: it asks the others, and is asked."""
    scene = opened(width=1, previous=f"{second_server.url}?db=5")
    assert 2 == len(scene.parts)
    for asks, knows, at in ((0, 1, 0), (1, 0, 20)):
        scene.at(at)
        scene.answer(asks, 500)
        scene.at(at + 6)
        scene.answer(knows, 200)
        scene.answer(asks, 500)
        assert scene.reason() is None
        scene.answer(asks, 200)
    scene.at(40)
    scene.answer(1, 500)
    scene.at(46)
    scene.answer(1, 500)
    assert scene.reason()


def test_one_that_is_away(opened: Open, second_server: RedisServer) -> None:
    """While a partition does not answer nothing is disabled, and the log says so; after its return the next failure disables."""
    scene = opened()
    assert [0, 1] == [one.keys.partition for one in scene.parts]  # the second one is on that server
    scene.answer(0, 500)
    scene.at(6)
    second_server.kill()
    with capture_logs() as logged:
        scene.answer(0, 500)
    [line] = [one for one in logged if one["event"] == "subscription.not_disabled"]
    assert ("acme", "tried again after its next failure") == (line["workspace"], line["action"])
    assert scene.reason() is None
    second_server.start()
    scene.run(asyncio.sleep(1.1))  # so long a server counts as away
    scene.at(6.1)
    scene.answer(0, 500)
    assert scene.reason()


def test_one_goes_before_it_hears(
    opened: Open, second_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is disabled at home while another partition is away is told at once, and copied there once that answers."""
    monkeypatch.setattr(disabling, "REPEAT_SECONDS", 0.1)
    scene = opened()
    home, other = scene.parts
    scene.accept(0, "w0")
    home.call("zadd", home.keys.lane(endpoint_id(OWN)), {"w0": scene.now + DAY})
    second_server.kill()

    async def run() -> None:
        audit = Audit(home.ledger._call, home.keys, "", Who("worker", "w"))
        cache = WorkspaceCache(scene.workspaces._at(home.keys.partition))
        disabler = Disabler(
            scene.subscriptions, cache, home.ledger, scene.alerts, audit, parts=scene.receivers
        )
        with capture_logs() as logged:
            disabler.disable(EndpointName.parse(OWN), ASKED)
            await disabler._tasks.ended()
        told = [one.what for one in await audit.latest(10, "acme")]
        assert ["subscription.disable"] == told
        assert 1 == sum(one["event"] == "subscription.disabled" for one in logged)
        second_server.start()
        state = other.keys.workspace("acme")
        with redis.Redis.from_url(second_server.url) as client:
            async with asyncio.timeout(20):
                while client.hget(state, "state") != b"disabled":
                    await asyncio.sleep(0.05)
        await disabler._repeats.ended()
        await disabler.ended()

    scene.run(run())
    assert ASKED == scene.reason()
    assert 1 == len(home.claim(OWN).callbacks), "it is due, and ends"


def test_nothing_is_asked_of_one_partition(opened: Open, two_urls: list[str]) -> None:
    """A workspace with width 1 asks no other partition."""
    scene = opened(width=1)
    scene.answer(0, 500)
    scene.at(6)
    with redis.Redis.from_url(two_urls[0]) as one, redis.Redis.from_url(two_urls[1]) as two:
        for client in (one, two):
            client.config_resetstat()
        scene.answer(0, 500)
        asked = [client.info("commandstats") for client in (one, two)]
    hmget = [found.get("cmdstat_hmget", {"calls": 0})["calls"] for found in asked]
    assert scene.reason()
    assert 0 == hmget[1 - scene.parts[0].keys.partition % 2]


@pytest.mark.parametrize("endpoint", [OWN, CRM])
def test_what_waits_elsewhere_ends(opened: Open, endpoint: str) -> None:
    """What waits in other partitions is due at once too, and ends."""
    scene = opened()
    name = EndpointName.parse(endpoint)
    for part in (0, 1):
        id_ = f"w{part}" if endpoint == OWN else f"w{part}.crm"
        scene.accept(part, id_, endpoint)
        world = scene.parts[part]
        world.call("zadd", world.keys.lane(endpoint_id(endpoint)), {id_: scene.now + DAY})
    scene.look(0, lambda disabler: disabler.disable(name, ASKED))
    assert ASKED == scene.reason(name.subscription)
    assert [1, 1] == [len(one.claim(endpoint).callbacks) for one in scene.parts]


def test_a_worker(opened: Open, two_urls: list[str]) -> None:
    """A worker that looks from one partition asks the others, and disables in all."""
    scene, name = opened(), EndpointName.parse(OWN)
    other = scene.parts[1]
    record, now = other.keys.endpoint(endpoint_id(OWN)), round(time.time() * 1000)
    failed = Settlement("e1", 1, Failed(), Attempt(now, 5, 500, "http_500"), EndpointHealth.DOWN)
    settled = Settled(False, [True], "same", 0, 0, None, failing_since_ms=1)
    settings = Settings(
        _env_file=None, redis_url=" ".join(two_urls), broker_url=two_urls[0], partitions=COUNT, metrics_port=0
    )

    async def look() -> None:
        wired = engine_wiring.engine(settings, "w", 10, 10, Metrics(), Health(), lambda hints: None)
        async with wired as engine:
            part = engine._parts[scene.parts[0].keys.partition]
            await part.ledger.claim([ToClaim(endpoint_id(OWN), 1)])  # now it knows Redis's clock
            assert part.disabler
            part.disabler.look_at(name, settled, [failed])
            await part.disabler.ended()

    other.call("hset", record, mapping={"seen": now, "p95": 5})
    scene.run(look())
    assert scene.reason() is None
    other.call("hset", record, "failing", 2)
    scene.run(look())
    assert "every attempt failed since 1970-01-01T00:00:00.002Z" == scene.reason()
    states = [one.call("hget", one.keys.workspace("acme"), "state") for one in scene.parts]
    assert [b"disabled"] * 2 == states
