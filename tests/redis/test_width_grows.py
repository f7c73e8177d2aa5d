"""A workspace's width grows: a message stays where it began, so that its order is kept and each event happens once."""

import asyncio
import os
import signal
import time

import pytest
from structlog.testing import capture_logs

from dispatcher.model import LONGEST_TTL_SECONDS
from dispatcher.store import known_messages
from dispatcher.store.queue import QueueEntry
from dispatcher.worker import earlier
from dispatcher.worker.batch import Fault, Later, name_of
from dispatcher.worker.router import Router
from tasks.redis_server import RedisServer
from tests.divided import stop
from tests.messages import change
from tests.partitioned import Installation, Partition, line, until

P = 4


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has just grown waits for some milliseconds."""
    monkeypatch.setattr(earlier, "SETTLE_MS", 50)


async def grow(its: Installation, width: int, *, without: int | None = None) -> None:
    """Spreads `acme` over more partitions, as the command does: its home first."""
    parts = [its.partitions[number] for number in its.code.all_of("acme", width)]
    now_ms = time.time_ns() // 1_000_000
    await parts[0].workspaces.update("acme", now_ms=now_ms, width=width)
    for part in parts[1:]:
        if part.number != without:
            await copy(parts[0], part)


async def copy(home: Partition, part: Partition) -> None:
    """Copies the record of `acme`."""
    fields = await home.client.hgetall(home.keys.workspace("acme"))
    await part.client.hset(part.keys.workspace("acme"), mapping=fields)


def moved(its: Installation, before: int, after: int, count: int) -> list[str]:
    """Messages of `acme` that belong to another partition by the width `after`, none of them to its home."""
    home = its.code.home("acme")
    names = (f"x{n}" for n in range(10_000))
    found = (
        name
        for name in names
        if its.code.of("acme", name, before) != (right := its.code.of("acme", name, after)) and right != home
    )
    return [next(found) for _ in range(count)]


async def all_accepted(its: Installation, message: str) -> dict[int, list[str]]:
    """The eventIds of a message, by the partition that accepted them."""
    found = {one.number: await one.accepted("acme", message) for one in its.partitions}
    return {number: ids for number, ids in found.items() if ids}


def test_a_message_stays_where_it_began(two_urls: list[str]) -> None:
    """Status changes of messages from before, told again or new, come to where these began; of new messages, by the new width.

    It does not matter whose queue a producer uses: home's, the one by the new width, or a stranger's.
    """

    async def work() -> None:
        async with Installation(two_urls, P) as its:
            home = its.home("acme")
            await home.add("acme")
            old, new = moved(its, 1, P, 60), moved(its, 1, P, 120)[60:]
            await home.enqueue(line(n, "acme", uuid) for n, uuid in enumerate(old))
            await until(its.is_empty)
            await grow(its, P)
            for n, uuid in enumerate(old):
                right = its.partitions[its.code.of("acme", uuid, P)]
                queues = (home, right, its.partitions[n % P])
                for further, queue in enumerate(queues):
                    await queue.enqueue([line(n, "acme", uuid), line(1000 + 10 * n + further, "acme", uuid)])
                    await queue.enqueue([line(5000 + 10 * n + further, "acme", new[n])])
            await until(its.is_empty)
            for n, uuid in enumerate(old):
                [(number, ids)] = (await all_accepted(its, uuid)).items()
                assert home.number == number
                assert (f"e{n}", 4, 4) == (ids[0], len(ids), len(set(ids)))
            for uuid in new:
                [(number, ids)] = (await all_accepted(its, uuid)).items()
                assert its.code.of("acme", uuid, P) == number != home.number
                assert (3, 3) == (len(ids), len(set(ids)))
            taken = {
                word: sum(one.metrics.taken[word] for one in its.partitions)
                for word in ("accepted", "duplicate")
            }
            assert {"accepted": 60 + 180 + 180, "duplicate": 180} == taken

    asyncio.run(work())


def test_it_grows_twice(two_urls: list[str]) -> None:
    """From one to two to four partitions: messages stay in the one that they began in, whichever of three that is."""

    async def work() -> None:
        async with Installation(two_urls, P) as its:
            home = its.home("acme")
            await home.add("acme")
            uuids = {width: [f"w{width}-{n}" for n in range(30)] for width in (1, 2, 4)}
            for width in (1, 2, 4):
                if width > 1:
                    await grow(its, width)
                await home.enqueue(line(100 * width + n, "acme", one) for n, one in enumerate(uuids[width]))
                await until(its.is_empty)
            for width, some in uuids.items():
                for n, uuid in enumerate(some):
                    for queue in its.partitions:
                        await queue.enqueue([line(100 * width + n, "acme", uuid)])
            await until(its.is_empty)
            for width, some in uuids.items():
                for n, uuid in enumerate(some):
                    expected = {its.code.of("acme", uuid, width): [f"e{100 * width + n}"]}
                    assert expected == await all_accepted(its, uuid)

    asyncio.run(work())


def test_order_while_it_grows(two_urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Status changes that come by all ways while the width grows: each message is in one partition, each event there once."""
    monkeypatch.setattr(earlier, "SETTLE_MS", 500)

    async def work() -> None:
        async with Installation(two_urls, P) as its:
            home = its.home("acme")
            await home.add("acme")
            uuids = [f"m{n}" for n in range(40)]
            for step in range(40):
                if step in (10, 20):
                    await grow(its, 2 if step == 10 else P)
                some = [line(100 * step + n, "acme", uuid) for n, uuid in enumerate(uuids)]
                await home.enqueue(some)
                for queue in its.partitions:  # told again, elsewhere
                    await queue.enqueue(some[step % 7 :: 7])
                await asyncio.sleep(0.02)
            await until(its.is_empty, 60)
            for n, uuid in enumerate(uuids):
                [(_, ids)] = (await all_accepted(its, uuid)).items()
                assert [f"e{100 * step + n}" for step in range(40)] == ids

    asyncio.run(work())


@pytest.mark.parametrize("written", ["acme", r"\u0061cme"])
def test_what_is_still_on_a_queue(two_urls: list[str], monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    """What still waits on another queue comes first: later status changes of its message wait until it has left that.

    What waits there of other workspaces, or belongs there by the new width too, holds up nothing. JSON may have escapes.
    """
    monkeypatch.setattr(known_messages, "LOOKED_AT_ONCE", 7)
    monkeypatch.setattr(earlier, "SETTLE_MS", 500)

    async def work() -> None:
        async with Installation(two_urls, P, starts=False) as its:
            home = its.home("acme")
            await home.add("acme")
            first, second, third = moved(its, 1, 2, 3)
            part = its.partitions[its.code.of("acme", first, 2)]
            [other] = its.named(home.number)
            await home.add(other)
            stays = next(f"s{n}" for n in range(99) if its.code.of("acme", f"s{n}", 2) == home.number)
            of_first = line(1, "acme", first).replace(b'"acme"', f'"{written}"'.encode())
            await home.enqueue(line(n, other, f"o{n}") for n in range(10))
            await home.enqueue([line(50, "acme", stays), of_first, line(60, "acme", stays)])
            await grow(its, 2)
            await asyncio.sleep(0.1)
            await part.enqueue([line(2, "acme", first), line(3, "acme", second)])
            part.start()
            await until(lambda: part.has_queued(2))
            await asyncio.sleep(4)  # it looks at 7 entries a second
            assert 2 == await part.queued(), "they wait for what is on home's queue"
            home.start()
            await until(its.is_empty)
            assert {part.number: ["e1", "e2"]} == await all_accepted(its, first), (
                "home had not accepted it yet"
            )
            assert {part.number: ["e3"]} == await all_accepted(its, second)
            await home.crash()
            its.partitions[home.number] = its.new(home.number)
            await its.partitions[home.number].enqueue([line(70, other, "o1"), line(51, "acme", stays)])
            await part.enqueue([line(4, "acme", third)])
            await until(lambda: part.has_queued(0))
            assert {part.number: ["e4"]} == await all_accepted(its, third)

    asyncio.run(work())


def test_a_part_without_the_new_width(two_urls: list[str]) -> None:
    """A change that has not come to all partitions: what depends on that waits, the log says what to do, and others go on."""

    async def work() -> None:
        async with Installation(two_urls, P) as its:
            home = its.home("acme")
            await home.add("acme")
            await grow(its, 2)
            part = its.partitions[its.code.all_of("acme", 2)[1]]
            uuid = next(one for one in moved(its, 2, P, 30) if its.code.of("acme", one, 2) == part.number)
            await grow(its, P, without=part.number)
            [other] = its.named(home.number)
            await home.add(other)
            with capture_logs() as logs:
                await home.enqueue([line(1, "acme", uuid), line(2, other, "m2")])
                await until(lambda: home.has_queued(1))
                await asyncio.sleep(1)
                assert 1 == await home.queued()
            assert ["e2"] == await home.accepted(other, "m2")
            assert [] == [one for one in logs if one["log_level"] == "error"], "it may be over in a moment"
            monkeypatch = pytest.MonkeyPatch()
            with monkeypatch.context() as patched, capture_logs() as logs:
                patched.setattr(earlier, "SOON_MS", 0)
                await until(lambda: said(logs, "workspace update acme --width 4"))
            await copy(home, part)
            await until(its.is_empty)
            assert {its.code.of("acme", uuid, P): ["e1"]} == await all_accepted(its, uuid)

    asyncio.run(work())


async def said(logs: list[dict[str, object]], text: str) -> bool:
    """Whether it was logged that entries are put off, with this problem."""
    return any(text in str(one.get("problem")) for one in logs if one["event"] == "intake.put_off")


def test_a_partition_that_hangs(two: list[RedisServer]) -> None:
    """While the server where messages may have begun hangs, those wait, others of the same queue go on, and then all come."""

    async def work() -> None:
        async with Installation([one.url for one in two], 2) as its:
            home = its.home("acme")
            away = its.partitions[1 - home.number]
            await home.add("acme")
            old, new = moved(its, 1, 2, 2)
            await home.enqueue([line(1, "acme", old)])
            await until(its.is_empty)
            await grow(its, 2)
            await asyncio.sleep(0.1)
            [other] = its.named(away.number)
            await away.add(other)
            stop(two[home.number])
            try:
                await away.enqueue([line(2, "acme", old), line(3, "acme", new)])
                await away.enqueue(line(n, other, "m") for n in range(10, 60))
                await until(lambda: away.has_queued(2))
                assert 50 == len(await away.accepted(other, "m"))
            finally:
                go_on(two[home.number])
            await until(its.is_empty)
            assert {home.number: ["e1", "e2"]} == await all_accepted(its, old)
            assert {away.number: ["e3"]} == await all_accepted(its, new)

    asyncio.run(work())


def go_on(server: RedisServer) -> None:
    """It answers again."""
    assert server._process
    os.kill(server._process.pid, signal.SIGCONT)


def test_what_has_just_grown_waits(two_urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment no partition's answer counts, not that of the one that asks either: something may be on its way to it."""
    monkeypatch.setattr(earlier, "SETTLE_MS", 1000)

    async def work() -> None:
        async with Installation(two_urls, P, starts=False) as its:
            home = its.home("acme")
            await home.add("acme")
            await home.workspaces.update("acme", now_ms=5000, width=P)
            [uuid] = moved(its, 1, P, 1)
            right = its.code.of("acme", uuid, P)
            record = await home.workspaces.get("acme")
            assert record
            router, one = home.routing.router, change(workspace="acme", uuid=uuid)
            asked = router.asked(QueueEntry("1-0", [b"event", b"{}"]), one, record, 6000)
            assert asked
            now = 5999
            asks = home.routing.earlier(lambda: now)
            [waits] = await asks.places([asked])
            assert isinstance(waits, Fault)
            assert waits.is_soon_over
            assert waits.of_the_machine
            now = 6000
            assert [right] == await asks.places([asked])
            await home.client.set(home.keys.message("acme", uuid), "e1")
            assert [home.number] == await asks.places([asked])

    asyncio.run(work())


def test_it_is_over_some_time(two_urls: list[str]) -> None:
    """Once nothing of before is remembered, nobody is asked; and never where the width has not grown, or the place is the same."""

    async def work() -> None:
        async with Installation(two_urls, P, starts=False) as its:
            home = its.home("acme")
            await home.add("acme")
            [uuid] = moved(its, 1, P, 1)
            stays = next(f"s{n}" for n in range(99) if its.code.of("acme", f"s{n}", P) == home.number)
            fresh = await home.workspaces.get("acme")
            grown = await home.workspaces.update("acme", now_ms=5000, width=P)
            assert fresh
            router, entry = (
                Router(its.code, home.number, remembered_ms=60_000),
                QueueEntry("1-0", [b"event", b"{}"]),
            )
            one, two = change(workspace="acme", uuid=uuid), change(workspace="acme", uuid=stays)
            week = LONGEST_TTL_SECONDS * 1000
            assert router.asked(entry, one, grown, 5000 + 2 * week + 59_999)
            assert router.asked(entry, one, grown, 5000 + 2 * week + 60_000) is None
            assert router.asked(entry, one, fresh, 5000) is None
            assert router.asked(entry, two, grown, 5000) is None

    asyncio.run(work())


def test_nothing_overtakes_what_waits_on_an_earlier_route(two_urls: list[str]) -> None:
    """A change does not go to the partition by the new width while one of its message waits to be forwarded by the old width."""

    async def work() -> None:
        async with Installation(two_urls, P, {"acme": 2}, starts=False) as its:
            home = its.home("acme")
            await home.add("acme")
            await grow(its, P)
            await asyncio.sleep(0.1)
            uuid = next(one for one in moved(its, 2, P, 30) if its.code.of("acme", one, 2) != home.number)
            before, right = its.code.of("acme", uuid, 2), its.code.of("acme", uuid, P)
            await home.ledger.lead("t", 5000)
            second = QueueEntry("2-0", [b"event", line(2, "acme", uuid)])
            intake = home.intake
            assert [right] == [*(await intake._preparer.prepare([second])).forwarded]
            intake._put_off.add({f"acme {before}": Later(["1-0"])})
            batch = await intake._preparer.prepare([second])
            [(group, later)] = batch.later.items()
            assert ({}, ["2-0"], True) == (batch.forwarded, later.ids, group.startswith("acme ?"))
            batch = await intake._preparer.prepare([second], {f"acme {before}": False})
            assert [right] == [*batch.forwarded]

    asyncio.run(work())


def test_partitions_do_not_wait_for_each_other(two_urls: list[str]) -> None:
    """When a width has grown twice, what one partition waits for another to hand on does not wait there for the first one.

    More wait than are tried at once, and what is to be handed on is behind them. Then a message's changes come in order.
    """

    async def work() -> None:
        async with Installation(two_urls, P, starts=False) as its:
            home = its.home("acme")
            await home.add("acme")
            await grow(its, 2)
            part = its.partitions[its.code.all_of("acme", 2)[1]]

            def of(second: int, third: int, count: int) -> list[str]:
                names = (f"{second}-{third}-{n}" for n in range(10_000))
                found = (
                    one
                    for one in names
                    if (second, third) == (its.code.of("acme", one, 2), its.code.of("acme", one, 3))
                )
                return [next(found) for _ in range(count)]

            third = its.code.all_of("acme", 3)[2]
            ask_home, ask_part = of(part.number, part.number, 100), of(part.number, home.number, 100)
            [at_part, at_home] = of(part.number, third, 2)
            told = [(part, uuid) for uuid in [*ask_home, at_part]] + [
                (home, uuid) for uuid in [*ask_part, at_home]
            ]
            for step in range(2):
                for number, (queue, uuid) in enumerate(told):
                    await queue.enqueue([line(1000 * step + number, "acme", uuid)])
            await asyncio.sleep(0.2)
            await grow(its, 3)
            await asyncio.sleep(0.2)
            for one in its.partitions:
                one.start()
            await until(its.is_empty, 60)
            for number, (_, uuid) in enumerate(told):
                [ids] = (await all_accepted(its, uuid)).values()
                assert [f"e{number}", f"e{1000 + number}"] == ids

    asyncio.run(work())


def test_what_was_forwarded_by_the_width_before(two_urls: list[str]) -> None:
    """An entry that home put on a part's queue, and could not take off its own, is not put on another one's after a growth."""

    async def work() -> None:
        async with Installation(two_urls, P, starts=False) as its:
            home = its.home("acme")
            await home.add("acme")
            await grow(its, 2)
            part = its.partitions[its.code.all_of("acme", 2)[1]]
            uuid = next(one for one in moved(its, 2, P, 30) if its.code.of("acme", one, 2) == part.number)
            await home.enqueue([line(1, "acme", uuid)])
            [(id_, fields)] = await home.client.xrange(home.keys.events)
            entry = QueueEntry(id_.decode(), [one for pair in fields.items() for one in pair])
            await asyncio.sleep(0.2)
            await grow(its, P)
            await asyncio.sleep(0.2)  # later than what is looked for on the queue
            await home.ledgers[part.number].forward(home.number, [(name_of(entry), line(1, "acme", uuid))])
            home.start()
            await until(lambda: home.has_queued(0))
            for one in its.partitions:
                if one is not home:
                    one.start()
            await until(its.is_empty)
            assert {part.number: ["e1"]} == await all_accepted(its, uuid)

    asyncio.run(work())
