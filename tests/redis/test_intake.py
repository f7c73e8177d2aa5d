"""Intake on a real server: what is valid is accepted in order, the rest is kept with its reason."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from dispatcher.errors import AlreadyExists, PreviousUnavailable, RedisUnavailable
from dispatcher.rules.dialects import zeckta
from dispatcher.store.arguments import Room
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import Keys
from dispatcher.store.ledger import Ledger
from dispatcher.store.queue import Queue, QueueEntry
from dispatcher.store.rejected import Rejected, RejectedEntry
from dispatcher.store.replies import Claim, Hint
from dispatcher.store.sealing import SecretBox
from dispatcher.store.wire import Wire
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.store.workspaces import Workspaces
from dispatcher.worker import prepare, put_off
from dispatcher.worker.intake import MAX_DEATHS, Intake
from dispatcher.worker.outages import Outages
from dispatcher.worker.recorder import Recorder
from dispatcher.worker.redis_watch import RedisWatch

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
        queue = Queue(self.reading.call, KEYS, url)
        self.intake = Intake(queue, self.ledger, cache, RedisWatch(), self, recorder=recorder)

    def hint(self, hints: Iterable[Hint]) -> None:
        """Remembers what is to be served."""
        self.hints += hints

    def set_intake_behind(self, behind: bool, partition: int = 0) -> None:
        """There are no turns here."""

    def reserve(self, count: int, workspaces: Iterable[str]) -> Room:
        """There are no slots here."""
        return Room()

    def serve_claims(self, claims: Sequence[tuple[str, Claim]], reserved: int, partition: int = 0) -> None:
        """Nothing was reserved, so there is nothing."""
        assert ([], 0) == (claims, reserved)

    async def close(self) -> None:
        """Closes the connections."""
        await self.wire.close()
        await self.reading.close()
        await self.client.aclose()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[None]"]:
        """Runs while the block does; what it has in hand is accepted at the end."""
        task = asyncio.create_task(self.intake.run())
        try:
            yield task
        finally:
            self.intake.stop()
            await task

    async def drain(self) -> None:
        """Runs until nothing is on the queue."""
        async with self.running() as task, asyncio.timeout(20):
            while not task.done() and await self.client.xlen(KEYS.events):
                await asyncio.sleep(0.01)

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
        rejected = await Rejected(reader.client, KEYS).newest()
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
    "far ahead": (line(timestamp="2126-06-09T13:04:57Z"), "days ahead; at most 1 h"),
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


async def taken_by_another(client: Any, key: str, *lines: bytes) -> None:
    """Puts entries on the queue; another reads the first of each two, as a leader that lost its lease might."""
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        async with client.pipeline(transaction=True) as pipe:
            pipe.xadd(key, {"event": first})
            pipe.xreadgroup("workers", "intake", {key: ">"})
            pipe.xadd(key, {"event": second})
            await pipe.execute()


def test_what_another_has_read_is_not_overtaken(redis_url: str) -> None:
    """Entries that a leader before reads late are accepted by the leader before those that came after them."""

    async def work() -> list[str]:
        reader = Reader(redis_url)
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        async with reader.running():
            while not reader.intake.leading:
                await asyncio.sleep(0.01)
            message = {"uuid": "m1", "src": "ACME", "dest": "+233200000001"}
            await taken_by_another(reader.client, KEYS.events, *(line(n, message=message) for n in range(40)))
            while await reader.client.xlen(KEYS.events):
                await asyncio.sleep(0.01)
        (chain,) = [key async for key in reader.client.scan_iter(f"{KEYS.root}chain:*")]
        found = [member.decode() for member in await reader.client.lrange(chain, 0, -1)]
        await reader.close()
        return found

    assert [f"e{n}" for n in range(40)] == asyncio.run(asyncio.wait_for(work(), 20))


def test_entries_that_nobody_will_read(redis_url: str) -> None:
    """What an operator has the group skip holds up nothing, and is looked for once."""

    async def work() -> list[str]:
        reader = Reader(redis_url)
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        async with reader.running():
            await reader.client.xadd(KEYS.events, {"event": line(1)})
            while not await accepted(reader):
                await asyncio.sleep(0.01)
            async with reader.client.pipeline(transaction=True) as pipe:
                pipe.xadd(KEYS.events, {"event": line(2)})
                pipe.execute_command("XGROUP", "SETID", KEYS.events, "workers", "$")
                await pipe.execute()
            for number in range(3, 23):
                await reader.client.xadd(KEYS.events, {"event": line(number)})
                await asyncio.sleep(0.02)
            while await reader.client.xlen(KEYS.events) > 1:
                await asyncio.sleep(0.01)
        found = await accepted(reader)
        await reader.close()
        return found

    with capture_logs() as logs:
        found = asyncio.run(asyncio.wait_for(work(), 20))
    assert {f"e{n}" for n in (1, *range(3, 23))} == set(found)
    assert 1 == sum(one["event"] == "intake.read_elsewhere" for one in logs)


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
        found = await accepted(reader), await Rejected(reader.client, KEYS).newest()
        await reader.close()
        return found

    ids, (rejected,) = asyncio.run(work())
    assert (["e2", "e3"], "poisoned", line(1).decode()) == (ids, rejected.reason, rejected.raw)


def test_deleted_and_still_counted_as_read(redis_url: str) -> None:
    """An entry that is gone, as accept leaves it if Redis loses the last of its writes, counts as read no longer."""

    async def work() -> tuple[int, int, list[str]]:
        reader = Reader(redis_url)
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        await reader.ledger.lead("dead", 100)
        entry = await reader.client.xadd(KEYS.events, {"event": line(1)})
        await reader.client.xreadgroup("workers", "intake", {KEYS.events: ">"})
        await reader.client.xdel(KEYS.events, entry)
        await reader.client.xadd(KEYS.events, {"event": line(2)})
        await reader.drain()
        pending = (await reader.client.xpending(KEYS.events, "workers"))["pending"]
        found = pending, await reader.client.xlen(KEYS.rejected), await accepted(reader)
        await reader.close()
        return found

    assert (0, 0, ["e2"]) == asyncio.run(work())


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
        async with reader.running():
            while not reader.intake.leading:
                await asyncio.sleep(0.01)
            await reader.client.delete(KEYS.events)
            await reader.client.xadd(KEYS.events, {"event": line(1)})
            while not await accepted(reader):
                await asyncio.sleep(0.01)
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
            raise ModuleNotFoundError("No module named 'dispatcher.rules.dialects.zeckta'")
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
        async with reader.running():
            while await reader.client.xlen(KEYS.events) > 20:
                await asyncio.sleep(0.01)
            assert 20 == await reader.client.xlen(KEYS.events), "the other workspace's was accepted"
            await asyncio.sleep(1.5)  # it is tried again meanwhile
            away = False
            while await reader.client.xlen(KEYS.events):
                await asyncio.sleep(0.01)
        (chain,) = [key async for key in reader.client.scan_iter(f"{KEYS.root}chain:*")]
        found = [member.decode() for member in await reader.client.lrange(chain, 0, -1)]
        rejected = await Rejected(reader.client, KEYS).newest()
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
            async with leader.running():
                while not leader.intake.leading or not len(leader.intake._put_off):
                    await asyncio.sleep(0.01)
            await leader.close()
        away = False
        await reader.drain()
        found = await accepted(reader), await Rejected(reader.client, KEYS).newest()
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
        async with reader.running():
            while await reader.client.xlen(KEYS.events) > 10:
                await asyncio.sleep(0.01)
            first = rendered.count("acme")
            reader.ledger.accept = accept  # type: ignore[method-assign]
            while await reader.client.xlen(KEYS.events):
                await asyncio.sleep(0.01)
        found = set(await accepted(reader))
        await reader.close()
        return found, first

    found, acme = asyncio.run(asyncio.wait_for(work(), 20))
    assert {f"e{n}" for n in range(30)} == found
    assert 20 == acme, "none of them was rendered twice"


def of_one_message(number: int, **fields: object) -> bytes:
    """A status change of a message that has many."""
    return line(number, message={"uuid": "m", "src": "A", "dest": "+1"}, **fields)


def change_of(entry: QueueEntry) -> str:
    """The eventId of an entry that `line` made."""
    return str(json.loads(entry.fields[1])["eventId"])


async def until(is_so: Callable[[], Awaitable[object]], seconds: float = 20) -> None:
    """Waits for it."""
    async with asyncio.timeout(seconds):
        while not await is_so():
            await asyncio.sleep(0.01)


async def enqueue(reader: Reader, lines: Iterable[bytes]) -> None:
    """Puts many on the queue."""
    pipe = reader.client.pipeline(transaction=False)
    for one in lines:
        pipe.xadd(KEYS.events, {"event": one})
    await pipe.execute()


class Leading:
    """An intake that leads while the block runs; `acme` and `bad` are workspaces."""

    def __init__(self, url: str) -> None:
        self.reader = Reader(url)

    async def __aenter__(self) -> Reader:
        for workspace in ("acme", "bad"):
            with contextlib.suppress(AlreadyExists):
                await self.reader.workspaces.add(workspace, "zeckta", "https://a.example/hooks", now_ms=1)
        self._task = asyncio.create_task(self.reader.intake.run())
        await until(lambda: _true(self.reader.intake.leading))
        return self.reader

    async def __aexit__(self, *_: object) -> None:
        self.reader.intake.stop()
        await self._task
        await self.reader.close()


async def _true(value: object) -> object:
    return value


def break_bad(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[bool]:
    """Rendering raises this for the workspace `bad` as long as the list has something."""
    real, breaks = prepare.fan_out, [True]

    def render(change: object, workspace: object, *args: object) -> object:
        if breaks and workspace.id == "bad":  # type: ignore[attr-defined]
            raise error
        return real(change, workspace, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare, "fan_out", render)
    return breaks


def test_lead_that_was_lost_unnoticed(redis_url: str) -> None:
    """A leader that slept while another one led, read and died reads again what that one had, before anything later."""

    async def work() -> bytes:
        async with Leading(redis_url) as reader:
            real, asleep = reader.ledger.lead, asyncio.Event()

            async def sleeping(*args: object, **options: object) -> int | None:
                await asleep.wait()
                return await real(*args, **options)  # type: ignore[arg-type]

            reader.ledger.lead = sleeping  # type: ignore[method-assign,assignment]
            await asyncio.sleep(2.2)  # it has read for the last time
            await reader.client.delete(KEYS.intake)
            await reader.client.xadd(KEYS.events, {"event": of_one_message(1)})
            await reader.client.xreadgroup("workers", "intake", {KEYS.events: ">"})  # the other one, dead now
            await reader.client.xadd(KEYS.events, {"event": of_one_message(2)})
            reader.ledger.lead = real  # type: ignore[method-assign]
            asleep.set()
            await until(lambda: reader.client.exists(KEYS.event("acme", "e2")))
            return bytes(await reader.client.get(KEYS.message("acme", "m")) or b"")

    assert b"e1 e2" == asyncio.run(work())


def test_what_a_late_reader_took(redis_url: str) -> None:
    """An entry that somebody who had lost the lead took from the leader is not left where nobody sees it."""

    async def work() -> None:
        async with Leading(redis_url) as reader:
            pipe = reader.client.pipeline(transaction=True)  # or the leader would be given it
            pipe.xadd(KEYS.events, {"event": line(1)})
            pipe.xreadgroup("workers", "intake", {KEYS.events: ">"})
            _, taken = await pipe.execute()
            assert taken
            await until(lambda: reader.client.exists(KEYS.event("acme", "e1")))

    asyncio.run(work())


def test_read_under_another_name(redis_url: str) -> None:
    """What was read or claimed by hand, under another consumer's name, is accepted by the next leader, in its place."""

    async def work() -> bytes:
        reader = Reader(redis_url)
        await reader.client.xgroup_create(KEYS.events, "workers", "0", mkstream=True)
        await enqueue(reader, [of_one_message(number) for number in range(5)])
        await reader.client.xreadgroup("workers", "intake", {KEYS.events: ">"}, count=2)
        await reader.client.xreadgroup("workers", "by-hand", {KEYS.events: ">"}, count=2)
        await reader.close()
        async with Leading(redis_url) as leader:
            await until(lambda: leader.client.exists(KEYS.event("acme", "e4")))
            return bytes(await leader.client.get(KEYS.message("acme", "m")) or b"")

    assert b"e0 e1 e2 e3 e4" == asyncio.run(work())


@pytest.mark.parametrize("fails", ["read again", "leading"])
def test_nobody_died_of_lost_replies(redis_url: str, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """A reader that lives has not died on an entry, whatever becomes of the replies to its reads, or of Redis after them."""

    async def work() -> tuple[list[str], list[RejectedEntry]]:
        reader = Reader(redis_url)
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        await reader.ledger.lead("dead", 100)
        await enqueue(reader, [line(1), line(2)])
        await reader.client.xreadgroup("workers", "intake", {KEYS.events: ">"})
        if fails == "read again":
            lose_replies(monkeypatch, reader.intake._queue, MAX_DEATHS + 1)
            await reader.drain()
        else:
            for _ in range(MAX_DEATHS + 1):
                await lose_lead(monkeypatch, reader)
            await reader.client.delete(KEYS.intake)
            await reader.drain()
        found = await accepted(reader), await Rejected(reader.client, KEYS).newest()
        await reader.close()
        return found

    assert (["e1", "e2"], []) == asyncio.run(asyncio.wait_for(work(), 60))


def lose_replies(monkeypatch: pytest.MonkeyPatch, queue: Queue, times: int) -> None:
    """Loses the replies to as many second reads."""
    real, lost = queue.read_again, []

    async def read_again(*args: Any) -> list[QueueEntry]:
        entries = await real(*args)
        if len(lost) < times:
            lost.append(entries)
            raise RedisUnavailable("a lost reply")
        return entries

    monkeypatch.setattr(queue, "read_again", read_again)


async def lose_lead(monkeypatch: pytest.MonkeyPatch, reader: Reader) -> None:
    """Has the intake read an entry, then lose Redis, and its lease with it, to another that reads nothing."""
    held = asyncio.Event()

    async def accept(*_args: Any) -> Any:
        held.set()
        raise RedisUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(reader.ledger, "accept", accept)
        await reader.client.delete(KEYS.intake)
        task = asyncio.create_task(reader.intake.run())
        await held.wait()
        await reader.client.set(KEYS.intake, "another", px=60_000)
        await until(lambda: _true(not reader.intake.leading))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_poisoned_entry_that_cannot_be_kept(redis_url: str) -> None:
    """It is set aside as soon as there is where to; no reader is given it meanwhile."""

    async def work() -> list[RejectedEntry]:
        reader = Reader(redis_url)
        await reader.client.xgroup_create(KEYS.events, "workers", "0", mkstream=True)
        entry = await reader.client.xadd(KEYS.events, {"event": line(1)})
        await reader.client.xreadgroup("workers", "intake", {KEYS.events: ">"})
        await reader.client.xclaim(KEYS.events, "workers", "intake", 0, [entry], retrycount=3)
        await reader.client.set(KEYS.rejected, "by hand")
        async with Leading(redis_url):
            await asyncio.sleep(0.5)
            await reader.client.delete(KEYS.rejected)
            await until(lambda: reader.client.xlen(KEYS.rejected))
        found = await Rejected(reader.client, KEYS).newest()
        await reader.close()
        return found

    (rejected,) = asyncio.run(work())
    assert ("poisoned", line(1).decode()) == (rejected.reason, rejected.raw)


def test_a_workspace_that_fails_lastingly(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of its entries wait, others' are accepted and memory does not grow; a new leader puts them off, too.

    All are accepted in their order when it is over.
    """
    breaks = break_bad(monkeypatch, ImportError("its dialect's module is away"))
    count = 3000

    async def work() -> list[str]:
        for number in (1, 2):
            async with Leading(redis_url) as reader:
                if number == 1:
                    await enqueue(reader, [of_one_message(n, workspace="bad") for n in range(count)])
                await reader.client.xadd(KEYS.events, {"event": line(number)})
                await until(lambda r=reader, n=number: r.client.exists(KEYS.event("acme", f"e{n}")))  # type: ignore[misc]
                assert (count, 1) == (await reader.client.xlen(KEYS.events), len(reader.intake._put_off))
        breaks.clear()
        async with Leading(redis_url) as reader:
            await until(lambda: _none(reader.client.xlen(KEYS.events)))
            assert 0 == await reader.client.xlen(KEYS.rejected)
            return (await reader.client.get(KEYS.message("bad", "m")) or b"").decode().split()

    assert [f"e{n}" for n in range(count)] == asyncio.run(work())


async def _none(count: Awaitable[int]) -> bool:
    return not await count


def test_entries_that_are_rejected_hold_up_nobody(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of a workspace break our code: after their tries they are rejected together, and others' are read in between."""
    break_bad(monkeypatch, ValueError("its dialect is broken"))
    count = 2000

    async def work() -> tuple[list[int], int]:
        async with Leading(redis_url) as reader:
            take, read, tries = reader.intake._take, reader.intake._read, [0]

            async def counting_take(*args: object, **options: object) -> object:
                tries[-1] += bool(options.get("trying"))
                return await take(*args, **options)  # type: ignore[arg-type]

            async def counting_read() -> object:
                tries.append(0)
                return await read()

            monkeypatch.setattr(reader.intake, "_take", counting_take)
            monkeypatch.setattr(reader.intake, "_read", counting_read)
            await enqueue(reader, [line(n, workspace="bad") for n in range(count)])
            await until(lambda: _none(reader.client.xlen(KEYS.events)))
            return tries, await reader.client.xlen(KEYS.rejected)

    tries, kept = asyncio.run(work())
    assert count == kept
    assert max(tries) <= 20, "tries between two reads"
    assert sum(tries) <= 50, "of 64 entries each"


def test_unreadable_entries_have_their_tries(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that our code cannot read are tried for some seconds, however many come, and others are accepted meanwhile."""
    real = prepare._read

    def read(entry: QueueEntry) -> object:
        if change_of(entry).startswith("e9"):
            raise ValueError("our bug")
        return real(entry)

    monkeypatch.setattr(prepare, "_read", read)

    async def work() -> tuple[int, int, int]:
        async with Leading(redis_url) as reader:
            for number in range(90, 96):
                await reader.client.xadd(KEYS.events, {"event": line(number)})
                await reader.client.xadd(KEYS.events, {"event": line(number - 90)})
                await until(lambda n=number - 90: reader.client.exists(KEYS.event("acme", f"e{n}")))  # type: ignore[misc]
            first = await reader.client.xlen(KEYS.rejected)
            await until(lambda: _none(reader.client.xlen(KEYS.events)))
            return first, await reader.client.xlen(KEYS.rejected), len(reader.intake._put_off)

    assert (0, 6, 0) == asyncio.run(work())


def test_no_memory_to_read_an_entry(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing overtakes an entry that cannot be read for what our machine lacks: nobody knows whose it is."""
    real, failed = prepare._read, [1, 2]

    def read(entry: QueueEntry) -> object:
        if failed and change_of(entry) == "e1":
            failed.pop()
            raise MemoryError
        return real(entry)

    monkeypatch.setattr(prepare, "_read", read)

    async def work() -> bytes:
        async with Leading(redis_url) as reader:
            await enqueue(reader, [of_one_message(number) for number in range(3)])
            await until(lambda: reader.client.exists(KEYS.event("acme", "e2")))
            return bytes(await reader.client.get(KEYS.message("acme", "m")) or b"")

    with capture_logs() as said:
        assert b"e0 e1 e2" == asyncio.run(work())
    assert 1 == [one["event"] for one in said].count("intake.internal_error"), (
        "once, however often it is tried"
    )


def test_full_only_while_it_is(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that was full when put-off entries were tried is not said to be full when they are accepted."""
    breaks = break_bad(monkeypatch, ImportError("away"))

    async def work() -> None:
        async with Leading(redis_url) as reader:
            await reader.client.xadd(KEYS.events, {"event": line(1, workspace="bad")})
            await until(lambda: _true(len(reader.intake._put_off)))
            await reader.client.config_set("maxmemory", 1)
            try:
                breaks.clear()
                await until(lambda: reader.client.exists(KEYS.full))
            finally:
                await reader.client.config_set("maxmemory", 0)
            await until(lambda: reader.client.exists(KEYS.event("bad", "e1")))
            await reader.client.delete(KEYS.full)
            before = time.monotonic()
            while time.monotonic() < before + 2.5:  # the lease is renewed each second
                assert not await reader.client.exists(KEYS.full)
                await asyncio.sleep(0.1)

    asyncio.run(work())


def test_nobody_died_on_what_redis_refused(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that were put off, and tried while Redis was full, are taken by the next leader, and not set aside unread."""
    breaks = break_bad(monkeypatch, OSError(24, "no descriptors"))
    monkeypatch.setattr(put_off, "FIRST_SECONDS", 0.1)
    monkeypatch.setattr(put_off, "MOST_SECONDS", 0.1)

    async def work() -> list[str]:
        async with Leading(redis_url) as reader:
            await enqueue(reader, [line(number, workspace="bad") for number in range(6)])
            await until(lambda: _true(len(reader.intake._put_off)))
            await reader.client.config_set("maxmemory", 1)
            breaks.clear()
            tries, real = [], reader.ledger.accept

            async def accept(*args: Any) -> Any:
                tries.append(args)
                return await real(*args)

            monkeypatch.setattr(reader.ledger, "accept", accept)
            await until(lambda: _true(len(tries) > MAX_DEATHS))
        async with Leading(redis_url) as reader:
            await reader.client.config_set("maxmemory", 0)
            await until(lambda: reader.client.exists(KEYS.event("bad", "e5")))
            return [entry.reason for entry in await Rejected(reader.client, KEYS).newest()]

    assert [] == asyncio.run(work())


@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_nobody_died_while_redis_was_full(redis_url: str, is_killed: bool) -> None:
    """Readers that end while Redis refuses what they read do not count as deaths, however often that happens."""

    async def met() -> None:
        reader = Reader(redis_url)
        await reader.client.delete(KEYS.intake, KEYS.full)
        task = asyncio.create_task(reader.intake.run())
        await until(lambda: reader.client.exists(KEYS.full))
        if is_killed:
            await reader.crash(task)
        else:
            reader.intake.stop()
            await task
            await reader.close()

    async def work() -> tuple[list[str], list[int]]:
        async with Leading(redis_url) as reader:
            pass
        reader = Reader(redis_url)
        await enqueue(reader, [line(1), line(2)])
        await reader.client.config_set("maxmemory", 1)
        try:
            for _ in range(MAX_DEATHS + 1):
                await met()
        finally:
            await reader.client.config_set("maxmemory", 0)
        pending = await reader.client.xpending_range(KEYS.events, "workers", "-", "+", 9)
        await reader.client.delete(KEYS.intake)
        await reader.drain()
        found = await accepted(reader)
        await reader.close()
        return found, [one["times_delivered"] for one in pending]

    assert (["e1", "e2"], [0, 0]) == asyncio.run(asyncio.wait_for(work(), 60))


def test_nobody_died_on_what_a_machine_without_memory_left(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that stops while it cannot prepare what it read has not died on it."""

    async def work() -> list[int]:
        async with Leading(redis_url) as reader:
            tries: list[bytes] = []

            def decode(raw: bytes) -> None:
                tries.append(raw)
                raise MemoryError

            monkeypatch.setattr(prepare, "status_change", decode)
            await enqueue(reader, [line(1)])
            await until(lambda: _true(tries))
        async with connect_async(redis_url) as client:
            pending = await client.xpending_range(KEYS.events, "workers", "-", "+", 9)
            return [one["times_delivered"] for one in pending]

    assert [0] == asyncio.run(work())


async def _is_read(reader: Reader, count: int) -> bool:
    return bool((await reader.client.xpending(KEYS.events, "workers"))["pending"] == count)


def test_many_workspaces_are_tried_together(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was put off of many workspaces at once is read again once, not once for each."""
    real, away = prepare.fan_out, [True]
    names = [f"w{n}" for n in range(20)]

    def render(*args: object) -> object:
        if away:
            raise ImportError("away")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare, "fan_out", render)

    async def work() -> int:
        async with Leading(redis_url) as reader:
            for name in names:
                await reader.workspaces.add(name, "zeckta", "https://a.example/hooks", now_ms=1)
            await enqueue(reader, [line(n, workspace=names[n % 20]) for n in range(2000)])
            await until(lambda: _true(len(reader.intake._put_off) == 20))
            await until(lambda: _is_read(reader, 2000))
            tried: list[int] = []
            take = reader.intake._take

            async def counting(entries: Sequence[QueueEntry], *args: object, **options: object) -> object:
                if options.get("trying"):
                    away.clear()  # for all workspaces of a try, and not in the middle of one
                    tried.append(len(entries))
                return await take(entries, *args, **options)  # type: ignore[arg-type]

            reader.intake._take = counting  # type: ignore[method-assign,assignment]
            await until(lambda: _none(reader.client.xlen(KEYS.events)))
            return sum(tried)

    assert asyncio.run(work()) < 2 * 2000


def test_order_whatever_happens(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workspaces that fail for a while, one that is changed all the time, leaders that die: each message's order stays."""
    rng, real, down = random.Random(7), prepare.fan_out, dict[str, float]()
    names = ["w0", "w1", "w2"]

    def render(change: object, workspace: object, *args: object) -> object:
        if down.get(workspace.id, 0) > time.monotonic():  # type: ignore[attr-defined]
            raise OSError("no descriptors")
        return real(change, workspace, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare, "fan_out", render)
    wanted: dict[tuple[str, str], list[str]] = {}

    def some_lines() -> Iterable[bytes]:
        for _ in range(rng.randrange(1, 150)):
            number, workspace, message = (
                sum(map(len, wanted.values())),
                rng.choice(names),
                f"m{rng.randrange(40)}",
            )
            wanted.setdefault((workspace, message), []).append(f"e{number}")
            yield line(number, workspace=workspace, message={"uuid": message, "src": "A", "dest": "+1"})

    async def change_one(reader: Reader, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            await reader.workspaces.update(
                "w1", now_ms=1, callback_url=f"https://w1.example/h{rng.randrange(9)}"
            )
            await asyncio.sleep(0.001)

    async def work() -> dict[tuple[str, str], list[str]]:
        reader, stopping = Reader(redis_url), asyncio.Event()
        for name in names:
            await reader.workspaces.add(name, "zeckta", f"https://{name}.example/hooks", now_ms=1)
        leader = Reader(redis_url)
        task = asyncio.create_task(leader.intake.run())
        changing = asyncio.create_task(change_one(reader, stopping))
        for step in range(30):
            await enqueue(reader, some_lines())
            if rng.random() < 0.3:
                down[rng.choice(names)] = time.monotonic() + rng.random()
            if step % 10 == 9:
                await leader.crash(task)
                await reader.client.delete(KEYS.intake)
                leader = Reader(redis_url)
                task = asyncio.create_task(leader.intake.run())
            await asyncio.sleep(0.05)
        stopping.set()
        await changing
        await until(lambda: _none(reader.client.xlen(KEYS.events)))
        leader.intake.stop()
        await task
        found = {key: (await reader.client.get(KEYS.message(*key)) or b"").decode().split() for key in wanted}
        await leader.close()
        await reader.close()
        return found

    assert wanted == asyncio.run(work())


@pytest.mark.parametrize("how", ["loses the lead", "gives up the lead"])
def test_who_leads_no_more_does_not_say_that_it_goes_on(redis_url: str, how: str) -> None:
    """That the previous Redis is back is logged by who has met it, not by who waits for it no longer."""
    now = 0.0
    waits = Outages(lambda _: "previous", clock=lambda: now, begins="intake.waits", ends="intake.resumed")

    async def work() -> None:
        nonlocal now
        reader = Reader(redis_url)
        reader.intake._waits = waits.watch(0)
        for _ in range(3):
            reader.intake._waits.failed(PreviousUnavailable("it is away"))
            now += 1
        if how == "loses the lead":
            reader.intake._follow()
        else:
            await reader.intake._resign()
        now += 60
        waits.look()
        await reader.close()

    with capture_logs() as logged:
        asyncio.run(work())
    assert ["intake.waits"] == [line["event"] for line in logged]
    assert not waits.away()


def test_what_is_due_earlier_than_was_known(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the next time is told of an earlier one; and of the end."""

    async def work() -> None:
        reader = Reader(redis_url)
        monkeypatch.setattr(reader.ledger, "now_ms", lambda: 0)
        for tell in (lambda: reader.intake.note_due(0), reader.intake.stop):
            reader.intake.note_due(1000)
            reader.intake._due_ms = 10**12
            waiting = asyncio.create_task(reader.intake.something_due())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            tell()
            await asyncio.wait_for(waiting, 20)
        await reader.close()

    asyncio.run(work())
