"""Whose turn it is to open a connection, and when a step of a handshake is done."""

import asyncio
import itertools
import threading
import time

import pytest

from dispatcher.sending.handshakes import Handshakes


def test_workspaces_in_turn() -> None:
    """A workspace that opens many connections does not hold up another one, which opens one."""

    async def scene() -> None:
        handshakes, begun = Handshakes(), []

        async def opens(workspace: str) -> None:
            await handshakes.turn(workspace)
            begun.append(workspace)

        await asyncio.gather(*(opens("many") for _ in range(10)), opens("one"))
        assert begun.index("one") <= 2
        assert len(begun) == 11

    asyncio.run(scene())


def test_one_step_in_a_turn_of_the_loop() -> None:
    """Between two steps of handshakes the loop looks at everything else; steps go before new connections."""

    async def scene() -> None:
        now = itertools.count(0.0, 0.001)
        handshakes, done = Handshakes(lambda: next(now)), list[str]()
        others = ["opened" for _ in range(3)]

        async def opens() -> None:
            await handshakes.turn("acme")
            done.append("opened")

        opening = [asyncio.create_task(opens()) for _ in others]
        steps = [asyncio.create_task(handshakes.step(lambda: done.append("step"), "")) for _ in range(5)]
        seen = []
        while not all(step.done() for step in steps):
            await asyncio.sleep(0)
            seen.append(done.count("step"))
        assert max(after - before for before, after in itertools.pairwise(seen)) == 1
        await asyncio.gather(*opening)
        assert done == ["opened", *["step"] * 5, "opened", "opened"]

    asyncio.run(scene())


def test_what_is_cancelled_has_no_turn() -> None:
    """A request that no longer waits, and a handshake that was given up, take no turn from others."""

    async def scene() -> None:
        handshakes, done = Handshakes(), list[str]()
        before = [asyncio.create_task(handshakes.step(lambda: None, "")) for _ in range(5)]
        given_up = [
            asyncio.create_task(handshakes.step(lambda: done.append("step"), "")),
            asyncio.create_task(handshakes.turn("acme")),
        ]
        wanted = asyncio.create_task(handshakes.turn("acme"))
        await asyncio.sleep(0)
        for one in given_up:
            one.cancel()
        await asyncio.gather(wanted, *before)
        assert [True, True] == [one.cancelled() for one in given_up]
        assert done == []

    asyncio.run(scene())


def test_a_step_that_fails_raises_where_it_is_awaited() -> None:
    """The error of a step is its handshake's; the next step is done all the same."""

    async def scene() -> None:
        handshakes = Handshakes()

        def fails() -> None:
            raise OSError("no")

        failed = asyncio.create_task(handshakes.step(fails, ""))
        await handshakes.step(lambda: None, "")
        with pytest.raises(OSError, match="no"):
            await failed

    asyncio.run(scene())


def test_steps_that_take_no_time_hold_up_no_new_connection() -> None:
    """Servers that send their part of a handshake byte by byte do not keep others from being connected to."""

    async def scene() -> None:
        handshakes = Handshakes(lambda: 0.0)

        async def drips() -> None:
            while True:
                await handshakes.step(lambda: None, "")

        dripping = [asyncio.create_task(drips()) for _ in range(20)]
        opened = [asyncio.create_task(handshakes.turn("acme")) for _ in range(10)]
        for _ in range(100):
            await asyncio.sleep(0)
        assert all(one.done() for one in opened)
        for one in dripping:
            one.cancel()
        await asyncio.gather(*dripping, return_exceptions=True)

    asyncio.run(scene())


def test_a_busy_loop_does_more_steps_in_a_turn() -> None:
    """If all else takes 10 ms of each turn of the loop, five steps more are done in it."""

    async def scene() -> None:
        now = itertools.count(0.0, 0.01)
        handshakes, done = Handshakes(lambda: next(now)), list[int]()
        steps = [asyncio.create_task(handshakes.step(lambda n=n: done.append(n), "")) for n in range(12)]
        seen = []
        while not all(step.done() for step in steps):
            await asyncio.sleep(0)
            seen.append(len(done))
        assert max(after - before for before, after in itertools.pairwise(seen)) == 6
        assert done == list(range(12))

    asyncio.run(scene())


def test_a_server_with_costly_steps_has_its_next_ones_in_a_thread() -> None:
    """One server's choice of a key exchange does not take the loop from others again and again."""

    async def scene() -> None:
        handshakes, threads = Handshakes(), dict[str, list[bool]]()

        def work(server: str, seconds: float) -> None:
            end = time.thread_time() + seconds
            while time.thread_time() < end:
                pass
            threads.setdefault(server, []).append(threading.current_thread() is threading.main_thread())

        for _ in range(2):
            await handshakes.step(lambda: work("costly", 0.03), "costly")
            await handshakes.step(lambda: work("usual", 0.001), "usual")
        assert {"costly": [True, False], "usual": [True, True]} == threads
        with pytest.raises(OSError, match="refused"):
            await handshakes.step(refuses, "costly")

    def refuses() -> None:
        raise OSError("refused")

    asyncio.run(scene())


def test_costly_steps_are_done_one_at_a_time_also_if_they_are_given_up() -> None:
    """Who gives up waiting starts no other step beside the one that is under way, and leaves none behind that nobody wants."""

    async def scene() -> None:
        handshakes, begun, goes_on = Handshakes(), list[int](), threading.Event()
        handshakes._costly["costly"] = None

        def work(number: int) -> None:
            begun.append(number)
            goes_on.wait(10)

        waiting = [
            asyncio.create_task(handshakes.step(lambda n=number: work(n), "costly")) for number in range(4)
        ]
        while not begun:
            await asyncio.sleep(0.001)
        for one in waiting[:3]:
            one.cancel()
        await asyncio.wait(waiting[:3])
        assert [0] == begun
        goes_on.set()
        await waiting[3]
        assert [0, 3] == begun

    asyncio.run(scene())


def test_few_costly_servers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has many names takes no memory by that."""
    monkeypatch.setattr("dispatcher.sending.handshakes.COSTLY_SECONDS", -1.0)
    monkeypatch.setattr("dispatcher.sending.handshakes.MOST_COSTLY", 2)

    async def scene() -> None:
        handshakes = Handshakes()
        for number in range(5):
            await handshakes.step(lambda: None, f"server-{number}")
        assert ["server-3", "server-4"] == [*handshakes._costly]

    asyncio.run(scene())
