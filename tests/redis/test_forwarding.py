"""What is put on any partition's queue comes to the right one: in order, nothing lost, nothing doubled."""

import asyncio
import random
from functools import partial

from structlog.testing import capture_logs

from dispatcher.store.rejected import Rejected
from tests.partitioned import URL, Installation, Partition, holds, line, until


def test_order(two_urls: list[str]) -> None:
    """What came to a stranger's queue is accepted at home in its order; no key there stays for ever, and none is doubled."""

    async def work() -> None:
        async with Installation(two_urls) as its:
            zero, one = its.partitions
            [mine], [theirs] = its.named(0), its.named(1)
            await zero.add(mine)
            await one.add(theirs)
            await zero.enqueue(line(n, workspace, "m") for n in range(700) for workspace in (mine, theirs))
            await until(its.is_empty)
            expected = [f"e{n}" for n in range(700)]
            assert expected == await zero.accepted(mine, "m")
            assert expected == await one.accepted(theirs, "m")
            assert [] == await zero.accepted(theirs, "m")
            assert (700, 0) == (zero.metrics.forwarded, one.metrics.forwarded)
            assert 0 < await one.client.pttl(one.keys.forwarded)
            await until(lambda: one.has_counted(700))
            assert {"accepted": 700} == +one.metrics.taken
            assert zero.cache.reads.count(theirs) <= 2, "two batches that are prepared at once"

    asyncio.run(work())


def test_what_another_has_read_is_not_overtaken(two_urls: list[str]) -> None:
    """Entries for elsewhere that a leader before reads late are forwarded before those that came after them."""

    async def work() -> None:
        async with Installation(two_urls) as its:
            zero, one = its.partitions
            [theirs] = its.named(1)
            await one.add(theirs)
            await until(lambda: holds(zero.intake.leading))
            for n in range(0, 40, 2):
                async with zero.client.pipeline(transaction=True) as pipe:
                    pipe.xadd(zero.keys.events, {"event": line(n, theirs, "m")})
                    pipe.xreadgroup("workers", "intake", {zero.keys.events: ">"})
                    pipe.xadd(zero.keys.events, {"event": line(n + 1, theirs, "m")})
                    await pipe.execute()
            await until(its.is_empty)
            assert [f"e{n}" for n in range(40)] == await one.accepted(theirs, "m")

    asyncio.run(work())


def test_bad_entries_stay(two_urls: list[str]) -> None:
    """What cannot be parsed is rejected where it is; an unknown workspace is rejected at its home."""

    async def work() -> None:
        async with Installation(two_urls) as its:
            zero, one = its.partitions
            [theirs] = its.named(1)
            await zero.enqueue([b"{", line(1, theirs), b"[]"])
            await until(its.is_empty)
            await until(lambda: Rejected(one.client, one.keys).newest())
            reasons = [[r.reason for r in await Rejected(p.client, p.keys).newest()] for p in (zero, one)]
            assert [["invalid", "invalid"], ["unknown_workspace"]] == reasons
            assert 0 == await one.queued()

    asyncio.run(work())


def test_width(two_urls: list[str]) -> None:
    """A wide workspace's entries come to the partition of their message from wherever they are, in at most two steps."""

    async def work() -> None:
        widths = {f"w{n}": 3 for n in range(1000)}
        async with Installation(two_urls, 4, widths) as its:
            [wide] = its.named(0)
            for part in its.partitions[:3]:
                await part.add(wide)
            messages = its.messages_of(wide, 3)
            assert {0, 1, 2} == set(messages)
            expected: dict[int, list[str]] = {0: [], 1: [], 2: []}
            for start in range(4):
                for place, message in messages.items():
                    expected[place].append(f"e{start}{place}")
                    await its.partitions[start].enqueue([line(f"{start}{place}", wide, message)])
                    await until(partial(_took, its.partitions[place], wide, message, expected[place]))
            # of the three messages each part takes one and sends two home, a stranger sends all home; home sends on
            # two of its own, one of each part's and two of the stranger's
            assert [2 + 1 + 1 + 2, 2, 2, 3] == [one.metrics.forwarded for one in its.partitions]

    asyncio.run(work())


def test_a_workspace_that_was_made_anew(two_urls: list[str]) -> None:
    """Status changes go where its record of now says, also where nothing but forwarding has read the one before."""

    async def work() -> None:
        async with Installation(two_urls, 2, {f"w{n}": 2 for n in range(100)}) as its:
            zero, one = its.partitions
            [wide] = its.named(0)
            for part in its.partitions:
                await part.add(wide)
            message = its.messages_of(wide, 2)[1]
            await zero.enqueue([line(1, wide, message)])
            await until(lambda: _took(one, wide, message, ["e1"]))
            for part in its.partitions:
                await part.client.delete(part.keys.workspace(wide), part.keys.workspaces)
            await zero.workspaces.add(wide, "zeckta", URL, now_ms=2)
            await zero.enqueue(line(n, wide, message) for n in (2, 3))
            await until(lambda: _took(zero, wide, message, ["e2", "e3"]))
            assert (1, 0) == (zero.metrics.forwarded, await one.queued())

    asyncio.run(work())


async def _took(part: Partition, workspace: str, message: str, expected: list[str]) -> bool:
    return await part.accepted(workspace, message) == expected and await part.has_queued(0)


def test_a_copy_that_comes_late(two_urls: list[str]) -> None:
    """What home sent to a part that has no record of the workspace waits for it as long as home has one; then it is rejected."""

    async def work() -> None:
        async with Installation(two_urls, 2, {f"w{n}": 2 for n in range(100)}) as its:
            zero, one = its.partitions
            [wide] = its.named(0)
            await zero.add(wide)
            message = its.messages_of(wide, 2)[1]
            await zero.enqueue(line(n, wide, message) for n in range(20))
            await until(lambda: holds(len(one.intake._put_off)))
            assert (0, 20) == (await zero.queued(), await one.queued())
            await one.add(wide)
            await until(its.is_empty)
            assert [f"e{n}" for n in range(20)] == await one.accepted(wide, message)
            await one.client.delete(one.keys.workspace(wide), one.keys.workspaces)
            one.cache.forget(wide)
            with capture_logs() as logs:
                await zero.enqueue([line(99, wide, message)])
                await until(lambda: holds(len(one.intake._put_off)))
            [told] = [log["problem"] for log in logs if log["event"] == "intake.put_off"]
            assert f"`dispatcher workspace update {wide} --width 2`" in told
            assert [] == await Rejected(one.client, one.keys).newest()
            await zero.client.delete(zero.keys.workspace(wide), zero.keys.workspaces)
            await until(lambda: Rejected(one.client, one.keys).newest())
            assert ["unknown_workspace"] == [r.reason for r in await Rejected(one.client, one.keys).newest()]

    asyncio.run(work())


def test_everything_at_once(two_urls: list[str]) -> None:
    """2,000 entries of narrow and wide workspaces, on any queue of four, with workers that die: each accepted once, in order."""
    rng = random.Random(11)
    narrow, wide = [f"n{n}" for n in range(12)], {f"x{n}": n % 3 + 2 for n in range(4)}
    wanted: dict[tuple[str, str], list[str]] = {}
    queue_of: dict[tuple[str, str], int] = {}

    def some_lines() -> dict[int, list[bytes]]:
        made: dict[int, list[bytes]] = {}
        for _ in range(100):
            number = sum(map(len, wanted.values()))
            key = rng.choice([*narrow, *wide]), f"m{rng.randrange(8)}"
            queue = queue_of.setdefault(key, rng.randrange(4))  # a message's changes come from one backend
            wanted.setdefault(key, []).append(f"e{number}")
            made.setdefault(queue, []).append(line(number, *key))
        return made

    async def work() -> None:
        async with Installation(two_urls, 4, wide) as its:
            for name in narrow:
                await its.home(name).add(name)
            for name, width in wide.items():
                for number in its.code.all_of(name, width):
                    await its.partitions[number].add(name)
            for step in range(20):
                for queue, lines in some_lines().items():
                    await its.partitions[queue].enqueue(lines)
                if step % 3 == 2:
                    await its.replace(rng.randrange(4))
                await asyncio.sleep(0.02)
            await until(its.is_empty, 60)
            for (name, message), expected in wanted.items():
                right = its.code.of(name, message, wide.get(name, 1))
                for one in its.partitions:
                    assert (expected if one.number == right else []) == await one.accepted(name, message)
            for one in its.partitions:
                assert 0 == one.metrics.taken["duplicate"]
                assert not await one.client.exists(one.keys.rejected)

    asyncio.run(work())
