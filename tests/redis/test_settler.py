"""The settler on real Redis: what goes out together, and what of it is whose."""

import asyncio
from dataclasses import replace
from pathlib import Path

from dispatcher.errors import EndpointBroken, RedisUnavailable
from dispatcher.rules.outcomes import Attempt, Delivered, EndpointHealth, State
from dispatcher.store.arguments import Room, ToAccept
from dispatcher.store.connection import connect_async
from dispatcher.store.entry import read_entry
from dispatcher.store.keys import endpoint_id
from dispatcher.store.replies import Hint, Settled, Settlement, ToSettle
from dispatcher.store.wire import Wire
from dispatcher.worker.claimer import Claimer
from dispatcher.worker.settler import AT_ONCE, Settler
from dispatcher.worker.slots import Slots
from dispatcher.worker.turn import Turn
from tasks.redis_server import RedisServer
from tests.fakes import FakeWorker, until
from tests.world import TOKEN, World, callback


def claimed(world: World, endpoints: int) -> dict[str, list[Settlement]]:
    """One callback of each endpoint in hand; what there is to record of it."""
    names = [f"acme https://{n}.example:443" for n in range(endpoints)]
    batch = [("1-1", callback(f"e{n}", endpoint=name, message=f"m{n}")) for n, name in enumerate(names)]
    accepted = world.run(world.ledger.accept(TOKEN, {}, [], ToAccept(batch), Room(endpoints)))
    assert endpoints == len(accepted.claims)
    attempt = Attempt(world.now, 5, 200)
    return {
        endpoint: [
            Settlement(one.event_id, one.claim, Delivered(), attempt, EndpointHealth.UP)
            for one in claim.callbacks
        ]
        for endpoint, claim in accepted.claims
    }


def settle(world: World, asked: dict[str, list[Settlement]]) -> list[Settled | BaseException]:
    """All at the same moment."""
    settler = Settler(world.ledger)

    async def run() -> list[Settled | BaseException]:
        return await asyncio.gather(*(settler.settle(*one) for one in asked.items()), return_exceptions=True)

    return world.run(run())


def scripts(world: World) -> int:
    """How many were run so far."""
    stats = world.call("info", "commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("evalsha", "fcall"))


def test_one_call_for_all(world: World) -> None:
    """Results of one moment are recorded in one call."""
    settle(world, {endpoint_id("acme https://0.example:443"): []})  # Redis knows the script
    asked = claimed(world, 10)
    before = scripts(world)
    settled = settle(world, asked)
    assert [[True]] * 10 == [one.counted for one in settled if isinstance(one, Settled)]
    assert 1 == scripts(world) - before
    assert all(world.event(f"e{n}").state is State.DELIVERED for n in range(10))


def test_not_too_many_in_one_call(world: World) -> None:
    """Redis is not held up by a call that never ends: the first takes its most, one beside it the first that are enough."""
    settle(world, {endpoint_id("acme https://0.example:443"): []})
    asked = claimed(world, 2 * AT_ONCE)
    before = scripts(world)
    settle(world, asked)
    assert 3 == scripts(world) - before


def test_what_breaks_is_one_endpoints(world: World) -> None:
    """Where a script breaks on one endpoint's keys, the others' results are recorded all the same."""
    asked = claimed(world, 3)
    key = world.keys.endpoint(endpoint_id("acme https://1.example:443"))
    told: list[str] = []
    world.ledger.on_broken = lambda problem, endpoints: told.extend([problem, *endpoints])
    world.call("delete", key)
    world.call("set", key, "no hash", px=1000)
    settled = world.run(world.ledger.settle([ToSettle(*one) for one in asked.items()]))
    assert isinstance(settled[1], EndpointBroken)
    assert "WRONGTYPE" in str(settled[1])
    assert told == [str(settled[1]), endpoint_id("acme https://1.example:443")]
    assert [[True], [True]] == [one.counted for one in settled if isinstance(one, Settled)]
    assert ["delivered", "sending", "delivered"] == [
        read_entry(world.call("get", world.keys.event("acme", f"e{n}"))).state for n in range(3)
    ]


def test_one_endpoint_twice_in_a_call(world: World) -> None:
    """A turn and the waker may both have something to record of an endpoint; its figures are right all the same."""
    world.accept(*(callback(f"e{n}", message=f"m{n}") for n in range(3)), claim=3)
    [(endpoint, claim)] = world.claims
    attempt = Attempt(world.now, 5, 200)
    asked = [
        ToSettle(endpoint, [Settlement(one.event_id, one.claim, Delivered(), attempt, EndpointHealth.UP)], 3)
        for one in claim.callbacks
    ]
    first, second = world.run(world.ledger.settle(asked))
    assert (1, 0) == (len(first.claim.callbacks) if first.claim else 0, 1 if second.claim else 0)
    [found] = [one for one in world.run(world.endpoints.all()) if one.id == endpoint]
    assert (1, 1) == (found.waiting, found.in_flight)


def test_redis_comes_back(server_program: None, tmp_path: Path) -> None:
    """What is to be recorded while Redis is away is recorded when it is back; a claim is not asked for then."""
    server = RedisServer(tmp_path, "--appendonly", "yes")
    server.start()
    client = connect_async(server.url)
    world = World(client, Wire(client))
    world.lead()
    asked = claimed(world, 2)
    server.stop()

    async def run() -> list[Settled]:
        settler = Settler(world.ledger)
        tasks = [asyncio.create_task(settler.settle(*one, 5)) for one in asked.items()]
        await asyncio.sleep(0.3)
        assert not any(task.done() for task in tasks)
        server.start()
        return await asyncio.gather(*tasks)

    assert [[True], [True]] == [one.counted for one in world.run(run())]
    world.close()
    server.stop()


class WatchedSlots(Slots):
    """Remembers how many were taken each time."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.takes: list[int] = []

    def take(self, endpoint: str, workspace: str, wanted: int) -> int:
        """Takes some."""
        self.takes.append(super().take(endpoint, workspace, wanted))
        return self.takes[-1]


def test_slots_while_redis_is_away(server_program: None, tmp_path: Path) -> None:
    """A turn whose result cannot be recorded now keeps no slot for its next claim: another server's endpoints have it."""
    server = RedisServer(tmp_path, "--appendonly", "yes")
    server.start()
    client = connect_async(server.url)
    world = World(client, Wire(client))
    world.lead()
    world.accept(callback("e0"), claim=1)
    [(endpoint, claim)] = world.claims
    server.stop()

    async def run() -> None:
        worker, slots = FakeWorker(), WatchedSlots(1)
        parts = replace(
            worker.parts,
            ledger=world.ledger,
            claimer=Claimer(world.ledger),
            settler=Settler(world.ledger),
            slots=slots,
        )
        slots.hold(endpoint, "acme", 1)
        turn = asyncio.create_task(Turn(Hint(endpoint, "acme"), parts, claim).run())
        await until(lambda: slots.takes == [1] and not slots.taken, "the slot of the next claim is free")
        assert 1 == slots.take("another", "bolt", 1)
        assert not turn.done()
        server.start()
        await turn
        slots.give_back("another", "bolt", 1)
        assert 0 == slots.taken

    world.run(run())
    assert world.event("e0").state is State.DELIVERED
    world.close()
    server.stop()


def test_redis_stays_away(server_program: None, tmp_path: Path) -> None:
    """After as long as a lease lasts nobody waits any more."""
    server = RedisServer(tmp_path)
    server.start()
    client = connect_async(server.url)
    world = World(client, Wire(client), lease_ms=300)
    world.lead()
    asked = claimed(world, 2)
    server.stop()
    assert all(isinstance(one, RedisUnavailable) for one in settle(world, asked))
    world.close()


def test_broken_endpoint_is_recorded_when_it_is_mended(world: World) -> None:
    """Results of an endpoint whose key is broken are sent again until they are recorded; the others' go first."""
    asked = claimed(world, 2)
    leased = world.keys.leased(endpoint_id("acme https://1.example:443"))
    before = world.call("zrange", leased, 0, -1, withscores=True)
    world.call("set", leased, "no zset")

    async def run() -> list[Settled]:
        settler = Settler(world.ledger)
        first, second = [asyncio.create_task(settler.settle(*one)) for one in asked.items()]
        await first
        assert not second.done()
        await world.client.delete(leased)
        await world.client.zadd(leased, dict(before))
        return [await first, await second]

    assert [[True], [True]] == [one.counted for one in world.run(run())]
    assert all(world.event(f"e{n}").state is State.DELIVERED for n in range(2))
