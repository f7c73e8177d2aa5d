"""A script that breaks off at any of its writes leaves what its repetition completes: nothing is lost, nothing is stuck."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from dispatcher.errors import EndpointBroken, RedisUnavailable
from dispatcher.rules.callback import Claimed
from dispatcher.rules.outcomes import Attempt, Delivered, EndpointHealth, Failed, Outcome, Released, Retry
from dispatcher.store.arguments import WITH_ARCHIVE, WITH_MESSAGES, Room, ToAccept
from dispatcher.store.connection import connect_async
from dispatcher.store.functions import library
from dispatcher.store.keys import endpoint_id
from dispatcher.store.message_record import lists_of
from dispatcher.store.messages_to_archive import Leaving
from dispatcher.store.replies import Settlement, ToSettle
from dispatcher.store.script_text import NAMES, sha, source
from dispatcher.store.stored_callback import Waiting
from dispatcher.store.wire import Wire
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.recorder import Recorder
from tests.leaks import leaked_keys
from tests.messages import change, tell
from tests.world import TOKEN, World, callback

A, B, C = (f"acme https://{host}.example:443" for host in "abc")
URL, OTHER_URL = "https://a.example/hooks", "https://c.example/hooks"
WRITES = re.compile(
    r"'(SET|DEL|HSET|HDEL|HINCRBY|PEXPIRE|PERSIST|APPEND|MSET|Z(?:ADD|REM|REMRANGEBYSCORE)|RPUSH|LREM|X(?:ADD|ACK|DEL|GROUP)|RENAME)'"
)
BREAKS = """
local writes, broken_at, breaking = 0, %d, %s
local function breaking_call(command, ...)
  if breaking[command] then
    writes = writes + 1
    if writes == broken_at then error('NOPERM broken off', 0) end
  end
  return redis.call(command, ...)
end
"""
CALLS = "redis.call", "breaking_call"
LIBRARY, LIBRARY_TEXT = library()
LASTS_MS, EIGHT_DAYS_MS = 10**9, 691_200_000
MOVING = (b"waiting", b"hinted_until", b"p95", b"seen", b"last_failure")
"""Fields of an endpoint that are compared at the end, or are figures that a lost run may lack."""

LEFT_BEHIND = ("stats:", "ended:", "chain:", "rejected", "endpoint:", "forwarded")
"""Keys that get their time to live, or go, when they are next written: they may stay where nobody repeats a script. So may a
wrong count of what waits, until the endpoint's next end."""

QUEUED = {b"event": b"x"}

Operation = Callable[[], Any]


class BreakingWorld(World):
    """Runs scripts that break off at their n-th write, while `break_at` says so."""

    def __init__(self, url: str) -> None:
        client = connect_async(url)
        wire = Wire(client)
        super().__init__(client, wire)
        self.break_at = 0
        self._call, self.ledger._scripts._call = wire.call, self._send

    async def _send(self, command: str, script: str, *args: Any) -> Any:
        name = next((one for one in NAMES if script in (sha(one), f"{LIBRARY}_{one}")), None)
        if not self.break_at or not name:
            return await self._call(command, script, *args)
        table = "{ " + ", ".join(f"{one} = 1" for one in sorted(set(WRITES.findall(source(name))))) + " }"
        breaks = BREAKS % (self.break_at, table)
        if command == "EVALSHA":
            return await self._call("EVAL", breaks + source(name).replace(*CALLS), *args)
        first, rest = LIBRARY_TEXT.replace(LIBRARY, "broken").split("\n", 1)
        await self._call("FUNCTION", "LOAD", "REPLACE", f"{first}\n{breaks}{rest.replace(*CALLS)}")
        return await self._call("FCALL", f"broken_{name}", *args)

    def dump(self) -> dict[str, Any]:
        """All that is in Redis, but for counters and what moves with time."""
        found = {}
        for raw in self.call("keys", "*"):
            key = raw.decode().removeprefix(self.keys.root)
            if not key.startswith(("stats:", "schedule", "rejected-counts")):
                found[key] = self._content(raw), self.call("pttl", raw) > 0
        return found

    def _content(self, key: bytes) -> Any:
        match self.call("type", key):
            case b"string":
                return self.call("get", key)
            case b"hash":
                fields = self.call("hgetall", key)
                if key.endswith(
                    b"fingerprints"
                ):  # a break may leave the count, which is an estimate, too low
                    return [re.sub(rb" \d+ ", b" ", table, count=1) for table in fields.values()]
                return {n: v for n, v in fields.items() if n not in MOVING}
            case b"list":
                return self.call("lrange", key, 0, -1)
            case b"zset":
                return self.call("zrange", key, 0, -1, withscores=True)
            case b"set":
                return self.call("smembers", key)
            case b"stream":
                fields = [{n: v for n, v in f.items() if n != b"entry"} for _, f in self.call("xrange", key)]
                return [one for one in fields if one != QUEUED]  # each call of `accept` has new entries
        raise AssertionError(key)

    def sweep(self) -> None:
        """Looks at everything."""
        cursor = "0"
        while (cursor := self.run(self.ledger.sweep(cursor, 1000)).cursor) != "0":
            pass


def attempt(world: World, error: str | None = None) -> Attempt:
    return Attempt(world.now, 5, None if error else 200, error, answer=b"no" if error else b"")


def settlement(world: World, one: Claimed, outcome: Outcome, error: str | None = None) -> Settlement:
    made = None if isinstance(outcome, Released) else attempt(world, error)
    return Settlement(one.event_id, one.claim, outcome, made)


def order(world: World, ordering: str) -> None:
    world.call("hset", world.keys.workspace("acme"), "ordering", ordering)


def accept_batch(world: World) -> Operation:
    """Two of one message, one alone, one conflict, one known, one that causes no callback."""
    world.accept(callback("known", message="m0", endpoint=B), callback("taken", message="m9", endpoint=B))
    entries = [world.call("xadd", world.keys.events, {"event": f"x{n}"}).decode() for n in range(6)]
    world.call("xreadgroup", "workers", "intake", {world.keys.events: ">"})
    made = [
        callback("e1", endpoint=A, message="m1", timestamp_ms=world.now + 2),
        callback("e2", endpoint=A, message="m1", timestamp_ms=world.now + 3),
        callback("e3", endpoint=B, message="m3"),
        callback("known", endpoint=B, message="m0"),
        callback("taken", endpoint=B, message="m9", digest="x"),
    ]

    def run() -> None:
        batch = ToAccept(zip(entries, made, strict=False))
        world.run(world.ledger.accept(TOKEN, {}, [(entries[5], "acme")], batch, Room()))

    return run


def accept_first(world: World) -> Operation:
    return accept_batch(world)


def accept_latest(world: World) -> Operation:
    order(world, "latest")
    return accept_batch(world)


def accept_strict(world: World) -> Operation:
    order(world, "strict")
    return accept_batch(world)


def accept_an_older_one(world: World) -> Operation:
    order(world, "latest")
    world.accept(callback("new", timestamp_ms=world.now + 5))
    return lambda: world.accept(callback("old", timestamp_ms=world.now + 1))


def settle_with(outcome: Outcome, error: str | None = None, ordering: str = "first_attempt") -> Any:
    def prepare(world: World) -> Operation:
        order(world, ordering)
        world.accept(
            callback("e1", timestamp_ms=world.now),
            callback("e2", timestamp_ms=world.now - 1),
            callback("e3", message="m2"),
        )
        asked = ToSettle(
            endpoint_id(A), [settlement(world, one, outcome, error) for one in world.claim(A, 2).callbacks]
        )

        def run() -> None:
            [settled] = world.run(world.ledger.settle([asked]))
            if isinstance(settled, EndpointBroken):
                raise RedisUnavailable(str(settled))

        return run

    return prepare


def expire(world: World) -> Operation:
    world.accept(callback("e1", ttl_ms=10), callback("e2", ttl_ms=20), callback("e3", message="m2"))
    world.now += 30
    return lambda: world.run(world.ledger.expire())


def cancel(world: World) -> Operation:
    world.accept(callback("e1"), callback("e2"), callback("e3", message="m2"))
    return lambda: world.run(world.ledger.cancel(endpoint_id(A), [Waiting("e1"), Waiting("e3")]))


def move(world: World) -> Operation:
    world.accept(callback("e1"), callback("e2"), callback("e3", message="m2"))
    return lambda: world.run(
        world.ledger.move("acme", URL, OTHER_URL, C, [*map(Waiting, ("e1", "e2", "e3"))])
    )


def move_latest(world: World) -> Operation:
    order(world, "latest")
    return move(world)


def fail_one(world: World) -> None:
    world.accept(callback("e1"))
    [one] = world.claim(A).callbacks
    world.run(world.ledger.settle([ToSettle(endpoint_id(A), [settlement(world, one, Failed(), "http_410")])]))


def replay(world: World) -> Operation:
    fail_one(world)
    return lambda: world.run(world.ledger.replay("acme", "e1"))


def replay_latest(world: World) -> Operation:
    order(world, "latest")
    return replay(world)


def replay_as_copy(world: World) -> Operation:
    fail_one(world)
    return lambda: world.run(world.ledger.replay("acme", "e1", copy="copy"))


def forget(world: World) -> Operation:
    fail_one(world)
    return lambda: world.run(world.ledger.forget("acme", ["e1"]))


def expedite(world: World) -> Operation:
    world.accept(callback("e1"))
    [one] = world.claim(A).callbacks
    again = settlement(world, one, Retry(60_000), "http_500")
    world.run(world.ledger.settle([ToSettle(endpoint_id(A), [again])]))
    return lambda: world.run(world.ledger.expedite(endpoint_id(A)))


def retry(world: World) -> Operation:
    """A pause ends, and two that wait for their next attempt are due."""
    world.accept(callback("e1"), callback("e2", message="m2"))
    for one in world.claim(A).callbacks:
        again = settlement(world, one, Retry(60_000), "http_503")
        world.run(
            world.ledger.settle(
                [
                    ToSettle(
                        endpoint_id(A), [replace(again, health=EndpointHealth.DOWN, retry_after_ms=40_000)]
                    )
                ]
            )
        )
    later = [(event_id, world.now + 60_000) for event_id in ("e1", "e2")]
    return lambda: world.run(world.ledger.retry(endpoint_id(A), later))


def stop_and_go(world: World) -> Operation:
    world.accept(callback("e1"))

    def run() -> None:
        world.run(world.ledger.stop(endpoint_id(A)))
        world.run(world.ledger.stop(endpoint_id(A), resume=True))

    return run


def reject(world: World) -> Operation:
    entries = [world.call("xadd", world.keys.events, {"event": f"x{n}"}).decode() for n in range(2)]
    world.call("xreadgroup", "workers", "intake", {world.keys.events: ">"})
    rejected = [(entry, "invalid", "why", "acme", "e") for entry in entries]
    return lambda: world.run(world.ledger.reject(TOKEN, rejected))


def forward(world: World) -> Operation:
    """Two new ones, one known, one to forget."""
    known, gone = ("1-1 k", b"known"), ("0-1 g", b"gone")
    world.run(world.ledger.forward(3, [gone, known]))
    entries = [("1-0 a", b"a"), known, ("1-2 b", b"b")]
    return lambda: world.run(world.ledger.forward(3, entries, ["0-1 g"]))


def forwarded(world: World) -> Operation:
    entries = world.enqueued(2)
    world.call("xreadgroup", "workers", "intake", {world.keys.events: ">"})
    return lambda: world.run(world.ledger.forwarded(TOKEN, entries))


def retire(world: World) -> Operation:
    """Of one that was delivered and one that failed, as the archive has them."""
    world.call("set", world.keys.format, WITH_ARCHIVE)
    fail_one(world)
    world.accept(callback("e2", endpoint=A, message="m2"))
    [one] = world.claim(A).callbacks
    world.settle("e2", one.claim, Delivered(), endpoint=A)
    ids = [("acme", "e1"), ("acme", "e2")]
    entries = [(id_, world.call("get", world.keys.event(*id_))) for id_ in ids]
    return lambda: world.run(world.ledger.retire(TOKEN, entries, ()))


def retire_messages(world: World) -> Operation:
    """Of one that is over and one that may get another status, each with lists that lead to it."""
    world.call("set", world.keys.format, WITH_MESSAGES)
    leaving = []
    for uuid, what in (("m1", "over"), ("m2", "open")):
        made = change("DELIVERED", uuid, at_ms=world.now, reference={"key": "order 7"})
        world.run(tell(world.ledger, Recorder(604_800_000, Metrics()), [made], "namirial"))
        record = world.call("get", world.keys.status("acme", uuid))
        leaving.append(Leaving("acme", uuid, record, what, lists_of(record)))
    return lambda: world.run(world.ledger.retire_messages(TOKEN, leaving))


SCENES: Sequence[tuple[str, Callable[[World], Operation]]] = [
    ("accept", accept_first),
    ("accept latest", accept_latest),
    ("accept strict", accept_strict),
    ("accept superseded", accept_an_older_one),
    ("settle delivered", settle_with(Delivered())),
    ("settle failed", settle_with(Failed(), "http_410")),
    ("settle retry", settle_with(Retry(0), "http_500")),
    ("settle retry latest", settle_with(Retry(0), "http_500", "latest")),
    ("settle retry strict", settle_with(Retry(0), "http_500", "strict")),
    ("settle released", settle_with(Released())),
    ("expire", expire),
    ("cancel", cancel),
    ("move", move),
    ("move latest", move_latest),
    ("replay", replay),
    ("replay latest", replay_latest),
    ("replay copy", replay_as_copy),
    ("forget", forget),
    ("expedite", expedite),
    ("retry", retry),
    ("stop", stop_and_go),
    ("reject", reject),
    ("forward", forward),
    ("forwarded", forwarded),
    ("retire", retire),
    ("retire messages", retire_messages),
]


def all_ended(world: BreakingWorld, *tolerated: str) -> None:
    """Workers deliver what is left: everything comes to its end, and nothing stays behind but what is tolerated."""
    for _ in range(6):
        world.now += world.ledger.options.lease_ms
        world.run(world.ledger.expire())
        for lost in world.run(world.ledger.wake()).lost:
            world.settle(
                lost.event_id,
                lost.claim,
                Retry(0),
                endpoint=lost.endpoint_name,
                error="worker_lost",
                losses=1,
            )
        world.deliver_all(A, B, C)
    world.now += EIGHT_DAYS_MS
    world.run(world.ledger.expire())
    assert [0, 0] == [world.call("zcard", key) for key in (world.keys.expiries, world.keys.schedule)]
    for endpoint in () if tolerated == LEFT_BEHIND else (A, B, C):
        assert b"0" == (world.call("hget", world.keys.endpoint(endpoint_id(endpoint)), "waiting") or b"0")
    assert [] == [
        key for key in leaked_keys(world) if not key.startswith(tuple(world.keys.root + k for k in tolerated))
    ]


def breaks(world: BreakingWorld, operation: Operation, number: int) -> bool:
    """Whether an operation breaks off at its n-th write, which fails."""
    world.break_at = number
    try:
        operation()
    except RedisUnavailable:
        return True
    finally:
        world.break_at = 0
    return False


def fresh(redis_url: str) -> BreakingWorld:
    world = BreakingWorld(redis_url)
    world.call("flushall")
    world.lead(lease_ms=LASTS_MS)
    return world


@pytest.mark.parametrize(("name", "prepare"), SCENES, ids=[name for name, _ in SCENES])
def test_repeated_after_a_break(name: str, prepare: Callable[[World], Operation], redis_url: str) -> None:
    """Whichever write of a script fails, the same call once more leaves what it would have left in one go."""
    world = fresh(redis_url)
    prepare(world)()
    expected = world.dump()
    all_ended(world)
    ended = world.dump()
    world.close()
    for number in range(1, 200):
        world = fresh(redis_url)
        operation = prepare(world)
        was_broken = breaks(world, operation, number)
        if was_broken:
            operation()
        found = world.dump()
        assert expected == found, f"broken at write {number}"
        all_ended(world, "stats:")
        assert ended == world.dump(), f"broken at write {number}, at the end"
        world.close()
        if not was_broken:
            break
    assert number > 2


@pytest.mark.parametrize(("name", "prepare"), SCENES, ids=[name for name, _ in SCENES])
def test_not_repeated_after_a_break(name: str, prepare: Callable[[World], Operation], redis_url: str) -> None:
    """Where nobody repeats it, the sweep finds what is pending and nowhere; what intake has to repeat is on the queue."""
    for number in range(1, 200):
        world = fresh(redis_url)
        operation = prepare(world)
        was_broken = breaks(world, operation, number)
        if was_broken and name.startswith("accept"):
            operation()  # intake does, as long as the entries are there
        world.sweep()
        all_ended(world, *LEFT_BEHIND)
        world.close()
        if not was_broken:
            break


def test_a_move_that_broke_off_sends_nothing_to_the_url_before(redis_url: str) -> None:
    """What is at the new endpoint has its new URL, also where the move is not repeated."""
    for number in range(1, 200):
        world = fresh(redis_url)
        operation = move(world)
        was_broken = breaks(world, operation, number)
        urls = {one.url for one in world.claim(C).callbacks}
        assert urls <= {OTHER_URL}, f"broken at write {number}"
        world.close()
        if not was_broken:
            break


def test_what_stays_on_the_queue_is_read_again(redis_url: str) -> None:
    """Whichever write of accept fails, or is lost with power, an entry that is still there counts as read and not done."""
    for number in range(1, 200):
        world = fresh(redis_url)
        entries, events = world.enqueued(2), world.keys.events
        world.call("xreadgroup", "workers", "intake", {events: ">"})
        accept = partial(world.accept, callback("e1"), callback("e2", message="m2"), entries=entries)
        was_broken = breaks(world, accept, number)
        pending = world.call("xpending_range", events, "workers", "-", "+", 10)
        assert {one for one, _ in world.call("xrange", events)} <= {one["message_id"] for one in pending}
        world.close()
        if not was_broken:
            break
    assert number > 2
