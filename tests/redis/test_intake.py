"""Intake on a real server: what is valid is accepted in order, the rest is kept with its reason."""

import asyncio
import contextlib
import json
from collections.abc import Iterable, Sequence

import pytest

from dispatcher.connection import connect_async
from dispatcher.dialects import zeckta
from dispatcher.intake import Intake
from dispatcher.keys import Keys
from dispatcher.ledger import Ledger, Room
from dispatcher.lookup import Lookup, RejectedEntry
from dispatcher.replies import Claim, Hint
from dispatcher.secrets import SecretBox
from dispatcher.status_api.record import Recorder
from dispatcher.watch import RedisWatch
from dispatcher.wire import Wire
from dispatcher.workspaces import WorkspaceCache, Workspaces

KEYS = Keys()


def line(number: int = 1, **fields: object) -> bytes:
    """A valid status change, but for `fields`."""
    message = {"uuid": f"m{number}", "src": "ACME", "dest": "+233200000001"}
    change = {
        "eventId": f"e{number}",
        "workspace": "acme",
        "status": "SENT",
        "timestamp": "2026-06-09T13:04:57Z",
        "message": message,
        **fields,
    }
    return json.dumps({name: value for name, value in change.items() if value is not ...}).encode()


class Reader:
    """An intake on a connection of its own."""

    def __init__(self, url: str, recorder: Recorder | None = None) -> None:
        self.client = connect_async(url)
        self.wire, self.reading = Wire(self.client), Wire(self.client)
        self.ledger = Ledger(self.wire.call, KEYS, url)
        self.workspaces = Workspaces(self.client, KEYS, SecretBox())
        self.hints: list[Hint] = []
        cache = WorkspaceCache(self.workspaces)
        self.intake = Intake(
            self.reading.call, self.ledger, cache, RedisWatch(), self, recorder=recorder, url=url
        )

    def hint(self, hints: Iterable[Hint]) -> None:
        """Remembers what is to be served."""
        self.hints += hints

    def give_precedence(self, behind: bool) -> None:
        """There are no turns here."""

    def reserve(self, count: int, workspaces: Iterable[str]) -> Room:
        """There are no slots here."""
        return Room()

    def take_up(self, claims: Sequence[tuple[str, Claim]], reserved: int) -> None:
        """Nothing was reserved, so there is nothing."""
        assert ([], 0) == (claims, reserved)

    async def close(self) -> None:
        """Closes the connections."""
        await self.wire.close()
        await self.reading.close()
        await self.client.aclose()

    async def drain(self) -> None:
        """Runs until nothing is on the queue."""
        task = asyncio.create_task(self.intake.run())
        async with asyncio.timeout(20):
            while not task.done() and await self.client.xlen(KEYS.events):
                await asyncio.sleep(0.01)
        self.intake.stop()
        await task

    async def crash(self, task: "asyncio.Task[None]") -> None:
        """Ends the intake as a kill would: its lease stays, what it read stays pending."""
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await self.close()


async def drained(
    url: str, lines: Sequence[bytes | dict[str, bytes]]
) -> tuple[list[str], list[RejectedEntry]]:
    """Enqueues, reads, and gives the accepted eventIds in order and what was rejected, oldest first."""
    reader = Reader(url)
    try:
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        for one in lines:
            await reader.client.xadd(KEYS.events, {"event": one} if isinstance(one, bytes) else one)
        await reader.drain()
        rejected = await Lookup(reader.client, KEYS).rejected()
        return await accepted(reader), rejected[::-1]
    finally:
        await reader.close()


async def accepted(reader: Reader) -> list[str]:
    """EventIds in the order of acceptance (all of one endpoint, due when accepted; ties by name)."""
    lanes = [key async for key in reader.client.scan_iter(f"{KEYS.root}lane:*")]
    return [member.decode() for lane in lanes for member in await reader.client.zrange(lane, 0, -1)]


BAD = {
    "malformed JSON": (b'{"workspace":', "not valid JSON"),
    "an array": (b"[]", "must be a JSON object"),
    "not UTF-8": (b'{"workspace":"\xff"}', "not valid UTF-8"),
    "a lone surrogate": (line().replace(b"ACME", b"\\ud800"), "not valid JSON"),
    "NaN": (line().replace(b'"ACME"', b"NaN"), "not valid JSON"),
    "deep nesting": (b"[" * 30_000 + b"]" * 30_000, "nested too deeply"),
    "unknown status": (line(status="ARRIVED"), "status: must be one of SCHEDULED"),
    "missing field": (line(message={"uuid": "m1", "src": "A"}), "message.dest: is required"),
    "extra field": (line(priority=1), "priority: is not a known field"),
    "no zone": (line(timestamp="2026-06-09T13:04:57"), "timestamp: must be ISO 8601"),
    "far ahead": (line(timestamp="2126-06-09T13:04:57Z"), "h ahead; at most 1 h"),
    "dot in eventId": (line(eventId="a.b"), "eventId: must be 1 to 128 letters"),
    "CR/LF in eventId": (line(eventId="a\r\nb"), "eventId: must be 1 to 128 letters"),
    "not http": (line(callbackUrl="ftp://a.example/"), "must start with https://"),
    "http": (line(callbackUrl="http://a.example/"), "must be https"),
    "userinfo": (line(callbackUrl="https://u:p@a.example/"), "user name or password"),
    "too long": (
        line(message={"uuid": "m", "src": "A", "dest": "1", "reference": {"x": "y" * 65_536}}),
        "the limit is",
    ),
}


def test_bad_entries(redis_url: str) -> None:
    """Each bad entry is kept in `rejected` with what is wrong with it; its neighbours are accepted."""
    lines = [one for number, (raw, _) in enumerate(BAD.values()) for one in (raw, line(number))]
    ids, rejected = asyncio.run(drained(redis_url, lines))
    assert {f"e{number}" for number in range(len(BAD))} == set(ids)
    assert ["invalid"] * len(BAD) == [entry.reason for entry in rejected]
    assert [raw.decode(errors="replace")[:65_536] for raw, _ in BAD.values()] == [
        entry.raw for entry in rejected
    ]
    says = dict(zip(BAD, (entry.detail for entry in rejected), strict=True))
    assert {} == {name: says[name] for name, (_, detail) in BAD.items() if detail not in says[name]}


def test_unknown_workspace(redis_url: str) -> None:
    """A workspace nobody made is rejected by name, and is not remembered as unknown."""
    ids, rejected = asyncio.run(drained(redis_url, [line(1, workspace="nobody"), line(2)]))
    assert (["e2"], ["unknown_workspace"], "nobody", "e1") == (
        ids,
        [entry.reason for entry in rejected],
        rejected[0].workspace,
        rejected[0].event_id,
    )


def test_no_event_field(redis_url: str) -> None:
    """An entry without the field `event` is kept with all its fields."""
    ids, rejected = asyncio.run(drained(redis_url, [{"payload": b"x"}, line(1)]))
    assert (["e1"], "no_event_field", "payload x") == (ids, rejected[0].reason, rejected[0].raw)


def test_order(redis_url: str) -> None:
    """Changes of one message are accepted in the order of the queue, over many batches."""

    async def work() -> list[str]:
        reader = Reader(redis_url)
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        message = {"uuid": "m1", "src": "ACME", "dest": "+233200000001"}
        for number in range(700):
            await reader.client.xadd(KEYS.events, {"event": line(number, message=message)})
        await reader.drain()
        (chain,) = [key async for key in reader.client.scan_iter(f"{KEYS.root}chain:*")]
        found = [member.decode() for member in await reader.client.lrange(chain, 0, -1)]
        await reader.close()
        return found

    assert [f"e{number}" for number in range(700)] == asyncio.run(work())


def test_takeover(redis_url: str) -> None:
    """What a dead leader had read is accepted by the next one, before what came later."""

    async def work() -> list[str]:
        first, second = Reader(redis_url), Reader(redis_url)
        await first.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        await first.ledger.lead("dead", 300)
        for number in (1, 2):
            await first.client.xadd(KEYS.events, {"event": line(number)})
        await first.client.xreadgroup("workers", "intake", {KEYS.events: ">"})  # read, then dead
        await first.client.xadd(KEYS.events, {"event": line(3)})
        await second.drain()
        found = await accepted(second)
        for reader in (first, second):
            await reader.close()
        return found

    assert ["e1", "e2", "e3"] == asyncio.run(work())


def test_poisoned_entry(redis_url: str) -> None:
    """An entry on which three readers died is set aside unread; the ones beside it are accepted."""

    async def work() -> tuple[list[str], list[RejectedEntry]]:
        reader = Reader(redis_url)
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        await reader.ledger.lead("dead", 100)
        for number in (1, 2, 3):
            await reader.client.xadd(KEYS.events, {"event": line(number)})
        await reader.client.xreadgroup("workers", "intake", {KEYS.events: ">"})
        for _ in range(2):  # two more readers die on the first one
            await reader.client.xreadgroup("workers", "intake", {KEYS.events: "0"}, count=1)
        await reader.drain()
        found = await accepted(reader), await Lookup(reader.client, KEYS).rejected()
        await reader.close()
        return found

    ids, (rejected,) = asyncio.run(work())
    assert (["e2", "e3"], "poisoned", line(1).decode()) == (ids, rejected.reason, rejected.raw)


def test_two_readers_one_leads(redis_url: str) -> None:
    """Of two intakes one leads; when it stops the other goes on at once."""

    async def work() -> list[str]:
        readers = [Reader(redis_url), Reader(redis_url)]
        await readers[0].workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        tasks = [asyncio.create_task(reader.intake.run()) for reader in readers]
        while not any(reader.intake.leading for reader in readers):
            await asyncio.sleep(0.01)
        leader = 0 if readers[0].intake.leading else 1
        assert not readers[1 - leader].intake.leading
        readers[leader].intake.stop()
        await tasks[leader]
        await readers[0].client.xadd(KEYS.events, {"event": line(1)})
        while not await accepted(readers[0]):
            await asyncio.sleep(0.01)
        readers[1 - leader].intake.stop()
        await tasks[1 - leader]
        found = await accepted(readers[0])
        for reader in readers:
            await reader.close()
        return found

    assert ["e1"] == asyncio.run(asyncio.wait_for(work(), 20))


def test_stream_deleted(redis_url: str) -> None:
    """When the stream is deleted under it, intake makes its group again and goes on."""

    async def work() -> list[str]:
        reader = Reader(redis_url)
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        task = asyncio.create_task(reader.intake.run())
        while not reader.intake.leading:
            await asyncio.sleep(0.01)
        await reader.client.delete(KEYS.events)
        await reader.client.xadd(KEYS.events, {"event": line(1)})
        while not await accepted(reader):
            await asyncio.sleep(0.01)
        reader.intake.stop()
        await task
        found = await accepted(reader)
        await reader.close()
        return found

    assert ["e1"] == asyncio.run(asyncio.wait_for(work(), 20))


def test_our_own_exception(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in a dialect costs the entry it happens on, which is kept, and no other."""
    body = zeckta.body

    def broken(change: object, event_type: str, now_ms: int) -> object:
        if change.event_id == "e2":  # type: ignore[attr-defined]
            raise KeyError("segments")
        return body(change, event_type, now_ms)  # type: ignore[arg-type]

    monkeypatch.setattr(zeckta, "body", broken)
    ids, rejected = asyncio.run(drained(redis_url, [line(1), line(2), line(3)]))
    assert (["e1", "e3"], ["internal_error"]) == (ids, [entry.reason for entry in rejected])


def test_full_redis(redis_url: str) -> None:
    """When Redis is full the queue waits, and goes on when there is room."""

    async def work() -> list[str]:
        reader = Reader(redis_url)
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        await reader.client.xadd(KEYS.events, {"event": line(1)})
        await reader.client.config_set("maxmemory", "1")
        try:
            task = asyncio.create_task(reader.intake.run())
            while not await reader.client.exists(KEYS.full):
                await asyncio.sleep(0.01)
            assert [] == await accepted(reader)
        finally:
            await reader.client.config_set("maxmemory", "0")
        while not await accepted(reader):
            await asyncio.sleep(0.01)
        reader.intake.stop()
        await task
        found = await accepted(reader)
        await reader.close()
        return found

    assert ["e1"] == asyncio.run(asyncio.wait_for(work(), 20))


def test_a_module_that_is_away_for_a_while(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What our machine lacks is no entry's fault: all are accepted when it is back, in their order, and none is rejected."""
    body, away = zeckta.body, True

    def missing(change: object, event_type: str, now_ms: int) -> object:
        if away:
            raise ModuleNotFoundError("No module named 'dispatcher.dialects.zeckta'")
        return body(change, event_type, now_ms)  # type: ignore[arg-type]

    monkeypatch.setattr(zeckta, "body", missing)

    async def work() -> tuple[list[str], list[RejectedEntry]]:
        nonlocal away
        reader = Reader(redis_url)
        for workspace, dialect in (("acme", "zeckta"), ("beta", "qlara")):
            await reader.workspaces.add(workspace, dialect, "https://a.example/hooks", now_ms=1)
        message = {"uuid": "m", "src": "A", "dest": "+1"}
        for number in range(20):
            await reader.client.xadd(KEYS.events, {"event": line(number, message=message)})
        await reader.client.xadd(KEYS.events, {"event": line(99, workspace="beta", status="DELIVERED")})
        task = asyncio.create_task(reader.intake.run())
        while await reader.client.xlen(KEYS.events) > 20:
            await asyncio.sleep(0.01)
        assert 20 == await reader.client.xlen(KEYS.events), "the other workspace's was accepted"
        await asyncio.sleep(1.5)  # it is tried again meanwhile
        away = False
        while await reader.client.xlen(KEYS.events):
            await asyncio.sleep(0.01)
        reader.intake.stop()
        await task
        (chain,) = [key async for key in reader.client.scan_iter(f"{KEYS.root}chain:*")]
        found = [member.decode() for member in await reader.client.lrange(chain, 0, -1)]
        rejected = await Lookup(reader.client, KEYS).rejected()
        await reader.close()
        return found, rejected

    assert ([f"e{n}" for n in range(20)], []) == asyncio.run(asyncio.wait_for(work(), 30))


def test_put_off_entries_survive_their_reader(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one leader has put off the next one reads anew, however often leaders change: no reader died on it."""
    body, away = zeckta.body, True

    def missing(change: object, event_type: str, now_ms: int) -> object:
        if away:
            raise OSError(24, "Too many open files")
        return body(change, event_type, now_ms)  # type: ignore[arg-type]

    monkeypatch.setattr(zeckta, "body", missing)

    async def work() -> tuple[list[str], list[RejectedEntry]]:
        nonlocal away
        reader = Reader(redis_url)
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        await reader.client.xadd(KEYS.events, {"event": line(1)})
        for _ in range(5):
            leader = Reader(redis_url)
            task = asyncio.create_task(leader.intake.run())
            while not leader.intake.leading or not len(leader.intake._put_off):
                await asyncio.sleep(0.01)
            leader.intake.stop()
            await task
            await leader.close()
        away = False
        await reader.drain()
        found = await accepted(reader), await Lookup(reader.client, KEYS).rejected()
        await reader.close()
        return found

    assert (["e1"], []) == asyncio.run(asyncio.wait_for(work(), 30))


def test_workspace_that_never_stays_the_same(redis_url: str) -> None:
    """A workspace that is changed all the time is rendered again a few times and then put off; nobody else's entries are."""

    async def work() -> tuple[set[str], int]:
        reader = Reader(redis_url)
        for workspace in ("acme", "restless"):
            await reader.workspaces.add(workspace, "zeckta", "https://a.example/hooks", now_ms=1)
        rendered: list[str] = []
        accept = reader.ledger.accept

        async def accept_after_a_change(*args: object) -> object:
            batch = args[3]
            rendered.extend(str(one) for one in batch.arguments[1::10])  # type: ignore[attr-defined]
            await reader.client.hset(KEYS.workspace("restless"), "revision", str(len(rendered)))
            return await accept(*args)  # type: ignore[arg-type]

        reader.ledger.accept = accept_after_a_change  # type: ignore[method-assign,assignment]
        for number in range(30):
            workspace = "restless" if number % 3 == 0 else "acme"
            await reader.client.xadd(KEYS.events, {"event": line(number, workspace=workspace)})
        task = asyncio.create_task(reader.intake.run())
        while await reader.client.xlen(KEYS.events) > 10:
            await asyncio.sleep(0.01)
        first = rendered.count("acme")
        reader.ledger.accept = accept  # type: ignore[method-assign]
        while await reader.client.xlen(KEYS.events):
            await asyncio.sleep(0.01)
        reader.intake.stop()
        await task
        found = set(await accepted(reader))
        await reader.close()
        return found, first

    found, acme = asyncio.run(asyncio.wait_for(work(), 20))
    assert {f"e{n}" for n in range(30)} == found
    assert 20 == acme, "none of them was rendered twice"
