"""Subscriptions at their limits: many callbacks at once, records that are kept too long or not long enough."""

import asyncio
from typing import Any

import pytest

from dispatcher.errors import RedisUnavailable
from dispatcher.rules.outcomes import Failed, State
from dispatcher.rules.render import RenderOptions, fan_out
from dispatcher.store.arguments import OF_EACH_CALLBACK, Room, ToAccept
from dispatcher.store.keys import endpoint_id
from dispatcher.store.queue import CONSUMER, GROUP, QueueEntry
from dispatcher.store.replies import Accepted
from dispatcher.store.subscriptions import Subscriptions
from dispatcher.worker.batch import Batch
from dispatcher.worker.recorder import Recorder
from tests.redis.test_broken_off import BreakingWorld
from tests.redis.test_intake import KEYS, Reader, line
from tests.redis.test_subscriptions import CRM, OWN, Customer, change
from tests.world import TOKEN, World, callback


def test_a_batch_of_seventeen_each(redis_url: str) -> None:
    """A full batch of a workspace with sixteen subscriptions is accepted in parts, each subscription's in order."""

    async def work() -> tuple[list[list[str]], int]:
        reader = Reader(redis_url, Recorder(60_000))
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        for number in range(16):
            url = f"https://s{number}.example/hooks"
            await Subscriptions(reader.workspaces).add("acme", f"s{number}", url, now_ms=1)
        message = {"uuid": "m1", "src": "ACME", "dest": "+233200000001"}
        pipe = reader.client.pipeline()
        for number in range(140):
            pipe.xadd(KEYS.events, {"event": line(number, message=message)})
        await pipe.execute()
        await reader.drain()
        chains = [key async for key in reader.client.scan_iter(f"{KEYS.root}chain:*")]
        found = [await reader.client.lrange(chain, 0, -1) for chain in chains]
        waiting = await reader.client.zcard(KEYS.expiries)
        await reader.close()
        return [[one.decode().partition(".")[0] for one in chain] for chain in found], waiting

    chains, waiting = asyncio.run(work())
    assert waiting == 140 * 17
    assert chains == [[f"e{number}" for number in range(140)]] * 17


class Parts:
    """A batch of 150 status changes of acme and other, accepted in parts, while the key of one of acme's endpoints is damaged."""

    def __init__(self, url: str, damaged: str, *, is_mended: bool) -> None:
        self.reader = Reader(url, Recorder(60_000))
        self.damaged = KEYS.endpoint(endpoint_id(f"acme.{damaged} https://{damaged}.example:443"))
        self.is_mended = is_mended
        self.told: dict[str, str] = {}
        """The message of each queue entry of acme, in order."""

    async def accept(self) -> tuple[list[str], dict[str, int], int]:
        """The entries that wait, how many callbacks are in each lane, and how many entries are on the queue."""
        reader = self.reader
        await self._add_workspaces()
        assert await reader.ledger.lead(reader.intake.token, 60_000) is not None
        entries = [await self._enqueue(number) for number in range(150)]
        await reader.client.xreadgroup(GROUP, CONSUMER, {KEYS.events: ">"}, count=1000)
        batch = await reader.intake._preparer.prepare(entries)
        assert len(batch.parts) > 2
        real = reader.ledger.accept

        async def accept(*args: Any) -> Accepted:
            accepted = await real(*args)
            if self.is_mended:
                await reader.client.delete(self.damaged)
            return accepted

        reader.ledger.accept = accept  # type: ignore[method-assign]
        await reader.intake._acceptor.accept(batch)
        waits = [id_ for later in batch.later.values() for id_ in later.ids]
        lanes = [key async for key in reader.client.scan_iter(f"{KEYS.root}lane:*")]
        sizes = {key.decode(): await reader.client.zcard(key) for key in lanes}
        left = await reader.client.xlen(KEYS.events)
        await reader.close()
        return waits, sizes, left

    async def _add_workspaces(self) -> None:
        subscriptions = Subscriptions(self.reader.workspaces)
        for workspace in "acme", "other":
            await self.reader.workspaces.add(workspace, "zeckta", "https://a.example/hooks", now_ms=1)
            for number in range(14):
                url = f"https://s{number}.example/hooks"
                await subscriptions.add(workspace, f"s{number}", url, now_ms=1)
        delivered = ["MESSAGE_DELIVERED"]
        await subscriptions.add("acme", "billing", "https://billing.example/", now_ms=1, events=delivered)
        await subscriptions.add("acme", "zeta", "https://zeta.example/", now_ms=1)
        await self.reader.client.set(self.damaged, "damaged")

    async def _enqueue(self, number: int) -> QueueEntry:
        workspace, uuid = "other" if number % 2 else "acme", f"m{number % 100}"
        message = {"uuid": uuid, "src": "ACME", "dest": "+233200000001"}
        status = "SENT" if number else "DELIVERED"
        raw = line(number, workspace=workspace, message=message, status=status)
        id_ = (await self.reader.client.xadd(KEYS.events, {"event": raw})).decode()
        if workspace == "acme":
            self.told[id_] = uuid
        return QueueEntry(id_, [b"event", raw])


@pytest.mark.parametrize(("damaged", "left"), [("billing", 2), ("zeta", 75)])
def test_a_damaged_key_in_the_first_part(redis_url: str, damaged: str, left: int) -> None:
    """Only what goes to that endpoint waits: the later parts are accepted, of other workspaces and of the same."""
    waits, sizes, queued = asyncio.run(Parts(redis_url, damaged, is_mended=False).accept())
    of_acme = sizes[KEYS.lane(endpoint_id("acme.s3 https://s3.example:443"))]
    assert sizes[KEYS.lane(endpoint_id("other https://a.example:443"))] == 50, "and 25 behind them, in chains"
    assert (of_acme > 40, len(waits), queued) == (True, left, left)


def test_a_key_that_is_mended_between_two_parts(redis_url: str) -> None:
    """No status of a message overtakes an earlier one of it that was left on the queue."""
    parts = Parts(redis_url, "zeta", is_mended=True)
    waits, _, _ = asyncio.run(parts.accept())
    told = list(parts.told)
    behind = {id_ for id_ in told for one in waits if parts.told[id_] == parts.told[one] and id_ > one}
    assert behind <= {*waits} < {*told}


def test_a_part_without_some_entries() -> None:
    """Their callbacks, and what they say about messages, are left out; the others keep their numbers' order."""
    whole, recorder = ToAccept(), Recorder(60_000)
    for number in range(6):
        for name in ("crm", ""):
            id_, endpoint = (f"e{number}.crm", CRM) if name else (f"e{number}", OWN)
            whole.add(f"{number}-0", callback(id_, endpoint=endpoint, message=f"m{number % 3}"))
        recorder.add(whole, change(f"e{number}"), "zeckta", number + 1)
        recorder.add(whole, change(f"x{number}"), "zeckta", 0)
    assert whole.messages() == [("acme", f"m{number % 3}") for number in range(6)]
    kept = whole.without({0, 4})
    assert (kept.count, set(kept.endpoints)) == (8, {OWN, CRM})
    assert kept.messages() == [("acme", f"m{number % 3}") for number in (1, 2, 3, 5)]
    assert [number for number, _ in kept._told()] == [0, 1, 0, 2, 0, 3, 0, 0, 4, 0]
    assert whole.without(range(6)).count == 0


def test_more_than_lua_can_unpack(world: World) -> None:
    """512 status changes with 17 callbacks each, the most that intake reads at once."""
    customer = Customer(world)
    for number in range(14):
        customer.add(f"s{number}")
    batch, workspace = Batch(), customer.workspace
    for number, entry in enumerate(world.enqueued(512)):
        one = change(f"e{number}", message={"uuid": f"m{number}", "src": "A", "dest": "1"})
        rendered = fan_out(one, workspace, world.now, RenderOptions())
        part = batch.part_for(len(rendered))
        part.add_entry(entry, "acme", rendered)
        Recorder(60_000).add(part, one, "zeckta", part.entries)
    assert sum(part.count for part in batch.parts) == 512 * 16
    for part in batch.parts:
        accepted = world.run(world.ledger.accept(TOKEN, {"acme": workspace.revision}, [], part, Room()))
        assert {*accepted.words} == {"accepted"}
        assert accepted.recorded == ["recorded"] * len(accepted.words)
    assert world.call("zcard", world.keys.expiries) == 512 * 16
    world.call("flushall")


def test_parts_keep_entries_whole() -> None:
    """No status change is divided, and all stay in order, those without callbacks and those without records too."""
    batch, recorder, wanted = Batch(), Recorder(60_000), []
    for number in range(300):
        both = [callback(f"e{number}.crm", endpoint=CRM), callback(f"e{number}", endpoint=OWN)]
        for id_, callbacks in ((f"e{number}", both), (f"x{number}", [])):
            part = batch.part_for(len(callbacks))
            part.add_entry(f"{number}-{len(callbacks)}", "acme", callbacks)
            if number % 3:
                recorder.add(part, change(id_), "zeckta", part.entries if callbacks else 0)
                wanted.append(bool(callbacks))
    parts = batch.parts
    entries = [one for part in parts for one in part.arguments[::OF_EACH_CALLBACK]]
    assert entries == [f"{number}-2" for number in range(300) for _ in range(2)]
    assert [one for part in parts for one in part.skipped] == [(f"{n}-0", "acme") for n in range(300)]
    assert {part.count % 2 for part in parts} == {0}
    assert (len(parts) > 2, {*parts[0].endpoints}, {*parts[-1].endpoints}) == (True, {OWN, CRM}, {OWN, CRM})
    first, told = 0, list[bool]()
    for part in parts:
        numbers = [number for number, _ in part._told()]
        told += map(bool, numbers)
        own = [n - first + 1 for n in range(first, first + part.entries) if n % 3]
        assert [number for number in numbers if number] == own
        first += part.entries
    assert told == wanted


def test_a_paused_subscription_keeps_its_endpoint_known(world: World) -> None:
    """The record of its endpoint is renewed by what comes while it is paused, as any other's."""
    customer = Customer(world)
    customer.tell(change())
    world.run(customer.subscriptions.pause("acme", "crm"))
    record = world.keys.endpoint(endpoint_id(CRM))
    world.call("pexpire", record, 60_000)
    world.now += 7_200_000
    customer.tell(change("e2"))
    assert world.call("pttl", record) > 60_000
    world.run(customer.subscriptions.resume("acme", "crm", world.ledger))
    world.deliver_all(OWN, CRM)


def test_what_is_purged_is_accepted_again(world: World) -> None:
    """Also where the default subscription did not want it: with its last callback the status change is forgotten."""
    customer = Customer(world, url="")
    customer.add("late")
    late = "acme.late https://late.example:443"
    customer.tell(change())
    for endpoint in (CRM, late):
        [one] = world.claim(endpoint).callbacks
        world.settle(one.event_id, one.claim, Failed(), endpoint=endpoint, error="http_410")
    assert world.run(world.ledger.replay("acme", "e1")) == "fanned_out"
    assert world.run(world.ledger.forget("acme", ["e1.crm"])) == 1
    assert customer.tell(change()) == ["duplicate"]
    assert world.run(world.ledger.forget("acme", ["e1.late"])) == 1
    assert customer.states("e1") == {"e1": None}
    assert customer.tell(change()) == ["accepted"]
    assert world.deliver_all(CRM, late) == ["e1.crm", "e1.late"]


def test_the_default_url_goes_while_a_run_is_broken_off(redis_url: str) -> None:
    """Told again without it, the status change is known, and what the run had begun comes to its end."""
    for number in range(1, 40):
        world = BreakingWorld(redis_url)
        world.call("flushall")
        world.lead()
        customer = Customer(world)
        world.break_at = number
        try:
            customer.tell(change())
        except RedisUnavailable:
            broke = True
        else:
            broke = False
        world.break_at = 0
        world.run(customer.workspaces.replace_callback_url("acme", ""))
        assert customer.tell(change()) in (["accepted"], ["duplicate"])
        world.sweep()
        delivered = world.deliver_all(OWN, CRM)
        assert delivered.count("e1.crm") == 1
        assert delivered.count("e1") <= 1
        states = set(customer.states("e1", "e1.crm").values())
        assert states <= {State.DELIVERED, State.FANNED_OUT}
        world.close()
        if not broke:
            break
    assert number > 5


@pytest.mark.parametrize("name", ["acme", "acme.crm"])
def test_a_record_that_is_gone_is_restored(world: World, name: str) -> None:
    """The sweep finds its callbacks, and their subscription in their ids."""
    customer = Customer(world)
    customer.tell(change())
    endpoint = OWN if name == "acme" else CRM
    world.call("delete", world.keys.endpoint(endpoint_id(endpoint)))
    [(id_, found)] = world.run(world.ledger.sweep("0", 1000)).nameless
    workspace, _, event_id = found.partition(":")
    assert world.run(world.endpoints.restore(id_, workspace, event_id, world.now))
    assert sorted(world.deliver_all(OWN, CRM)) == ["e1", "e1.crm"]
    world.run(world.ledger.wake())
