"""No command has more arguments than a proxy before Redis lets through, however long the lists are that it is for."""

import asyncio
import inspect
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from unittest.mock import Mock

import hiredis
import pytest

from dispatcher import Dispatcher
from dispatcher.errors import NotLeader
from dispatcher.rules.decide import Policy
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import Delivered
from dispatcher.store.arguments import NOT_ARCHIVED, OF_EACH_RECORD, Id
from dispatcher.store.callbacks import Callbacks, Place
from dispatcher.store.command_parts import MOST_ARGUMENTS, MOST_LISTED, in_parts
from dispatcher.store.endpoints import Endpoints
from dispatcher.store.installation import Installation
from dispatcher.store.keys import endpoint_id
from dispatcher.store.ledger import Ledger
from dispatcher.store.messages import Messages
from dispatcher.store.queue import CONSUMER, GROUP, Queue, QueueEntry
from dispatcher.store.rejected import Rejected
from dispatcher.store.replies import Hint, Settlement
from dispatcher.store.stats import Stats
from dispatcher.store.stored_callback import Waiting
from dispatcher.store.subscriptions import Subscriptions
from dispatcher.store.traces import Traces
from dispatcher.worker.batch import Batch
from dispatcher.worker.claimer import AT_ONCE, Claimer
from dispatcher.worker.recorder import Recorder
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.settler import Settler
from dispatcher.worker.slots import Slots
from dispatcher.worker.tail import Tail
from dispatcher.worker.turn import Turn, TurnParts
from tests.redis.test_intake import KEYS, Reader, line
from tests.world import START_MS, TOKEN, World, callback

MANY = 5000
IDS = [f"e{n}" for n in range(MANY)]
STREAM_IDS = [f"{n}-1" for n in range(1, MANY + 1)]
ENDPOINT = endpoint_id("acme https://a.example:443")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """Each command that was sent: its name, or its script's, and how many arguments it had."""
    found: list[tuple[str, int]] = []
    pack = hiredis.pack_command

    def counted(command: tuple[object, ...]) -> bytes:
        found.append((str(command[0]), len(command)))
        return pack(command)  # type: ignore[arg-type]  # its stub says one

    monkeypatch.setattr(hiredis, "pack_command", counted)
    yield found
    assert found, "nothing was counted"
    assert max(count for _, count in found) <= MOST_ARGUMENTS


Use = Callable[[World], Awaitable[object]]


def traces(world: World) -> Traces:
    """What erases in a world's only partition."""
    return Traces(Place(world.client, world.keys, ""))


LISTS: dict[Callable[..., object], Use] = {
    Ledger.reject: lambda world: world.ledger.reject(
        TOKEN, [(id_, "invalid", "why", "acme", "e") for id_ in STREAM_IDS]
    ),
    Ledger.forwarded: lambda world: world.ledger.forwarded(TOKEN, STREAM_IDS),
    Ledger.cancel: lambda world: world.ledger.cancel(ENDPOINT, [*map(Waiting, IDS)]),
    Ledger.forget: lambda world: world.ledger.forget("acme", IDS),
    Ledger.erase: lambda world: world.ledger.erase("acme", IDS),
    Ledger.unlist: lambda world: world.ledger.unlist("acme", [(id_, "record", "") for id_ in IDS]),
    Traces.entries: lambda world: traces(world).entries("acme", IDS),
    Traces.records: lambda world: traces(world).records("acme", IDS),
    Traces.remove_rejected: lambda world: traces(world).remove_rejected(STREAM_IDS),
    Traces.leave_queue: lambda world: traces(world).leave_queue(STREAM_IDS),
    Traces.remove: lambda world: traces(world).remove(IDS),
    Ledger.move: lambda world: world.ledger.move(
        "acme", "https://a.example/", "https://b.example/", "acme https://b.example:443", [*map(Waiting, IDS)]
    ),
    Ledger.requeue: lambda world: world.ledger.requeue(STREAM_IDS),
    Stats.endpoint_days: lambda world: Stats(world.client, world.keys).endpoint_days(
        [EndpointName("acme", f"https://{id_}.example:443") for id_ in IDS], START_MS
    ),
    Ledger.retry: lambda world: world.ledger.retry(ENDPOINT, [(id_, 1.0) for id_ in IDS]),
    Ledger.mend: lambda world: world.ledger.mend(IDS),
    Rejected.remove: lambda world: world.rejected.remove(STREAM_IDS),
    Queue.claim: lambda world: Queue(world.client.execute_command, world.keys).claim(STREAM_IDS),
    Callbacks.known: lambda world: world.callbacks.known([("acme", id_) for id_ in IDS]),
    Callbacks.order: lambda world: world.callbacks.order("acme", IDS),
    Messages.get_many: lambda world: Messages(world.client.execute_command, world.keys).get_many("acme", IDS),
    Messages.of_channels: lambda world: Messages(world.client.execute_command, world.keys).of_channels(
        "acme", ["SMS", "RCS"], IDS
    ),
    Messages.of_customer: lambda world: Messages(world.client.execute_command, world.keys).of_customer(
        "acme", "SMS", IDS
    ),
}
"""What sends a list, and a use of it with one of MANY."""

BOUNDED_BY_CALLERS = {
    Ledger.accept: "Batch.part_for",
    Ledger.claim: "Claimer",
    Ledger.settle: "Settler and Turn",
    Ledger.retire: "Archiver._retire",
    Ledger.retire_messages: "MessageArchiver.take",
    Ledger.forward: "Forwarder (test_forwarder.py)",
    Callbacks.ended: "a command per workspace",
    Endpoints.with_states: "a command per endpoint",
    Endpoints.states: "a command per endpoint",
    Endpoints.with_answers: "a command per endpoint",
    Installation.figures: "sends none",
    Installation.expiring_of: "sends none",
    Stats.sums: "a list of numbers of minutes, which add up to a day",
    Stats.windows: "three windows",
}


@pytest.mark.parametrize("use", LISTS.values(), ids=[one.__qualname__ for one in LISTS])
def test_a_list_is_divided(world: World, sent: list[tuple[str, int]], use: Use) -> None:
    """However long a list is, no command has too many arguments, and all of the list is sent."""
    world.lead()
    world.accept(callback("e1"))  # so that its endpoint is known
    sent.clear()
    world.run(_awaited(use(world)))
    assert sum(count for _, count in sent) >= MANY


async def _awaited(used: Awaitable[object]) -> None:
    await used


@pytest.mark.parametrize(
    "of", [Ledger, Rejected, Queue, Callbacks, Endpoints, Messages, Installation, Stats, Traces]
)
def test_every_list_is_known(of: type) -> None:
    """A new method that is given a list stands in one of the two tables here."""
    known = {*LISTS, *BOUNDED_BY_CALLERS}
    given = {
        f
        for name, f in vars(of).items()
        if inspect.isfunction(f) and not name.startswith("_") and _takes_a_list(f)
    }
    assert given <= known


def _takes_a_list(function: Callable[..., object]) -> bool:
    kinds = [str(one.annotation) for one in inspect.signature(function).parameters.values()]
    return any(word in kind for kind in kinds for word in ("Sequence", "Iterable", "Collection", "list["))


def test_ends_are_counted_over_all_parts(world: World) -> None:
    """What a divided call returns is of all its parts: 5,000 callbacks are cancelled, and then forgotten."""
    world.lead()
    for first in range(0, MANY, 250):
        world.accept(*(callback(id_, message=id_) for id_ in IDS[first : first + 250]))
    assert world.run(world.ledger.cancel(ENDPOINT, [*map(Waiting, IDS)])) == MANY
    assert world.run(world.ledger.forget("acme", IDS)) == MANY


def test_5000_rejected_entries(world: World, sent: list[tuple[str, int]]) -> None:
    """They are rejected, half of them put back on the queue and half removed, each once."""
    world.lead()
    entries = world.enqueued(MANY)
    rejected = [(id_, "invalid", "why", "acme", "e") for id_ in entries]
    assert world.run(world.ledger.reject(TOKEN, rejected)) == []
    ids = [one.id for one in world.run(world.rejected.newest(MANY))]
    assert world.run(world.ledger.requeue(ids[: MANY // 2])) == (MANY // 2, 0)
    world.run(world.rejected.remove(ids[MANY // 2 :]))
    assert world.run(world.rejected.newest(MANY)) == []
    assert world.call("xlen", world.keys.events) == MANY // 2


def test_a_turn_records_a_thousand_results(world: World, sent: list[tuple[str, int]]) -> None:
    """However many attempts of one endpoint end at the same time, their results are recorded in calls of bounded size."""
    slots = Slots(10)
    parts = TurnParts(
        world.ledger,
        Claimer(world.ledger),
        Settler(world.ledger),
        Mock(),
        Mock(),
        RedisWatch(),
        Policy(),
        slots,
        Mock(),
        Mock(spec=Tail),
    )
    turn = Turn(Hint(ENDPOINT, "acme"), parts)
    turn._finished = [Settlement(id_, 1, Delivered(), None) for id_ in IDS[:1000]]
    world.run(turn.run())
    assert parts.metrics.lease_losses == 1000, "none of them was leased"
    assert slots.taken == 0


def test_results_of_many_turns(world: World, sent: list[tuple[str, int]]) -> None:
    """Results of 200 endpoints at once, one with as many as a turn records at a time."""
    settler = Settler(world.ledger)

    async def work() -> None:
        counts = [400] + 199 * [3]
        results = [[Settlement(id_, 1, Delivered(), None) for id_ in IDS[:count]] for count in counts]
        await asyncio.gather(*(settler.settle(f"{n:032x}", some) for n, some in enumerate(results)))

    world.run(work())


def test_claims_of_many_turns(world: World, sent: list[tuple[str, int]]) -> None:
    """3,000 endpoints at once, for one callback each; every one has its answer."""
    claimer = Claimer(world.ledger)

    async def work() -> None:
        claims = await asyncio.gather(*(claimer.claim(f"{n:032x}", 1) for n in range(3000)))
        assert [[]] * 3000 == [one.callbacks for one in claims]

    world.run(work())
    assert 3000 / AT_ONCE <= len(sent)


def test_workspaces_that_a_producer_asks_for(redis_url: str, sent: list[tuple[str, int]]) -> None:
    """A producer may ask for any number of workspaces, of one partition and of several."""
    with Dispatcher.from_url(redis_url) as dispatcher:
        assert dispatcher.unknown_workspaces(IDS) == IDS


class Many:
    """2,000 status changes in one batch: of a hundred workspaces, and of one with 17 callbacks for each change."""

    def __init__(self, url: str) -> None:
        self.reader = Reader(url, Recorder(60_000))

    async def accept(self) -> None:
        """Accepts them."""
        batch = await self.prepared()
        await self.reader.intake._acceptor.accept(batch)
        assert batch.later == {}

    async def prepared(self) -> Batch:
        """Reads and renders them."""
        reader = self.reader
        await self._add_workspaces()
        assert await reader.ledger.lead(reader.intake.token, 60_000) is not None
        pipe = reader.client.pipeline()
        for number in range(2000):
            pipe.xadd(KEYS.events, {"event": self._change(number)})
        await pipe.execute()
        entries = await reader.client.xreadgroup(GROUP, CONSUMER, {KEYS.events: ">"}, count=2000)
        read = [
            QueueEntry(id_.decode(), [b"event", fields[b"event"]])
            for _, found in entries
            for id_, fields in found
        ]
        batch = await reader.intake._preparer.prepare(read)
        assert (len(batch.rendered), len(batch.skipped)) == (1800, 200)
        return batch

    async def _add_workspaces(self) -> None:
        workspaces = self.reader.workspaces
        subscriptions = Subscriptions(workspaces)
        await workspaces.add("acme", "zeckta", "https://acme.example/", now_ms=1)
        for number in range(16):
            await subscriptions.add("acme", f"s{number}", f"https://s{number}.example/", now_ms=1)
        for name in (f"w{n}" for n in range(100)):
            await workspaces.add(name, "namirial", f"https://{name}.example/", now_ms=1)

    @staticmethod
    def workspace_of(number: int) -> str:
        """The workspace of the status change with this number."""
        return "acme" if number % 10 == 0 else f"w{number % 100}"

    @staticmethod
    def _change(number: int) -> bytes:
        message = {
            "uuid": f"m{number % 100}",
            "src": "ACME",
            "dest": "+233200000001",
            "customerMessageId": f"c{number}",
            "campaignId": "campaign",
            "reference": {"key": f"r{number}"},
        }
        workspace = Many.workspace_of(number)
        status = "QUEUED" if number % 10 == 5 else "SENT"
        return line(number, workspace=workspace, message=message, status=status)


class Says:
    """An archive that knows none of what it is asked for."""

    @staticmethod
    def said(ids: Sequence[Id]) -> dict[Id, str]:
        """As RetiredCallbacks.said."""
        return dict.fromkeys(ids, NOT_ARCHIVED)

    @staticmethod
    def used(_archived: object) -> None:
        """As RetiredCallbacks.used."""


def test_what_an_archive_says_of_many(redis_url: str, sent: list[tuple[str, int]]) -> None:
    """It goes to accept with the callbacks, which are then divided into smaller parts."""

    async def work() -> None:
        many = Many(redis_url)
        batch = await many.prepared()
        ids = [one for part in batch.parts for one in part.ids()]
        batch.retired.extend((entry, of) for (entry, _), of in zip(batch.rendered, ids, strict=True))
        sent.clear()
        await many.reader.intake._acceptor._accept_retired(batch, Says(), 1)  # type: ignore[arg-type]
        assert await many.reader.client.zcard(KEYS.expiries) == 200 * 17 + 1600
        await many.reader.close()

    asyncio.run(work())


def test_2000_status_changes_in_one_batch(redis_url: str, sent: list[tuple[str, int]]) -> None:
    """All are accepted and leave the queue, and each message's callbacks wait in the order of the queue."""

    async def work() -> None:
        many = Many(redis_url)
        sent.clear()
        await many.accept()
        client = many.reader.client
        assert await client.xlen(KEYS.events) == 0
        assert await client.zcard(KEYS.expiries) == 200 * 17 + 1600
        chains = [key async for key in client.scan_iter(f"{KEYS.root}chain:*")]
        for chain in chains:
            waiting = [int(one.decode().partition(".")[0][1:]) for one in await client.lrange(chain, 0, -1)]
            assert waiting == sorted(waiting)
        await many.reader.close()

    asyncio.run(work())


def test_a_part_that_fails_leaves_those_behind_it(redis_url: str) -> None:
    """If a part is not accepted, none after it is; of each workspace those that have left were the first on the queue."""

    async def work() -> None:
        many, calls = Many(redis_url), 0
        real = many.reader.ledger.accept

        async def accept(*args: object) -> object:
            nonlocal calls
            calls += 1
            if calls == 3:
                await many.reader.client.set(KEYS.intake, "another", px=60_000)
            return await real(*args)  # type: ignore[arg-type]

        many.reader.ledger.accept = accept  # type: ignore[method-assign,assignment]
        with pytest.raises(NotLeader):
            await many.accept()
        assert calls == 3
        left = [json.loads(fields[b"event"]) for _, fields in await many.reader.client.xrange(KEYS.events)]
        assert 0 < len(left) < 2000
        workspaces = defaultdict(list)
        for number in range(2000):
            workspaces[many.workspace_of(number)].append(number)
        for name, numbers in workspaces.items():
            stay = [int(one["eventId"][1:]) for one in left if one["workspace"] == name]
            assert stay == numbers[len(numbers) - len(stay) :]
        await many.reader.close()

    asyncio.run(work())


def test_a_usual_batch_is_one_call() -> None:
    """What intake reads at once while it is not behind is not divided."""
    batch = Batch()
    for number in range(64):
        one = callback(f"e{number}", endpoint=f"w{number} https://{number}.example:443")
        batch.part_for(1).add_entry(f"1-{number}", f"w{number}", [one])
        batch.parts[-1].records += [0] * (OF_EACH_RECORD + 2 * 5)
    assert len(batch.parts) == 1


def test_parts_of_a_list() -> None:
    """A list is divided by the arguments that its values become, in order; a value that is too long is alone."""
    assert list(in_parts([])) == []
    assert [len(part) for part in in_parts(range(MOST_LISTED + 1))] == [MOST_LISTED, 1]
    sizes = [MOST_LISTED - 1, 1, 1, 2 * MOST_LISTED, 1]
    assert list(in_parts(sizes, int)) == [[MOST_LISTED - 1, 1], [1], [2 * MOST_LISTED], [1]]
