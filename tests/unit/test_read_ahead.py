"""Reading ahead, without Redis: what runs at the same time, and that nothing that was read is lost or overtaken.

The test decides when each read, preparation and acceptance ends, and how.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import NotLeader, RedisFull, RedisUnavailable
from dispatcher.store.queue import QueueEntry
from dispatcher.worker.batch import Batch
from dispatcher.worker.read_ahead import READ_AHEAD_FROM, ReadAhead

MANY, FEW = READ_AHEAD_FROM, READ_AHEAD_FROM - 1

Stage = Literal["read", "prepare", "take"]


class Line:
    """A queue without end, and a ReadAhead whose three stages wait until the test lets them end."""

    def __init__(self, *, behind: bool = False) -> None:
        self.read_entries: list[QueueEntry] = []
        self.taken: list[QueueEntry] = []
        self.under_way: dict[Stage, tuple[Any, asyncio.Future[Any]]] = {}
        """For each stage what it works on, and what it waits for."""
        self.stages_after_take: list[set[str]] = []
        """The stages under way when the loop ran a callback that a take had scheduled."""
        self.goes_on = True
        self.ahead = ReadAhead(self._read, self._prepare, self._take)
        self.ahead.behind = behind

    async def _wait(self, stage: Stage, about: Any = None) -> Any:
        assert stage not in self.under_way, f"two at once: {stage}"
        waits = asyncio.get_running_loop().create_future()
        self.under_way[stage] = about, waits
        try:
            return await waits
        finally:
            del self.under_way[stage]

    async def _read(self) -> list[QueueEntry]:
        return self._next(await self._wait("read"))

    def _next(self, count: int) -> list[QueueEntry]:
        first = len(self.read_entries)
        entries = [QueueEntry(f"1-{number}", []) for number in range(first, first + count)]
        self.read_entries += entries
        return entries

    async def _prepare(self, entries: Sequence[QueueEntry]) -> Batch:
        await self._wait("prepare", entries)
        return Batch(rendered=[(entry, "acme") for entry in entries])

    async def _take(self, entries: list[QueueEntry], batch: Batch | None) -> None:
        assert entries == self.ahead.held[: len(entries)], "the oldest that is held"
        assert batch is None or [(entry, "acme") for entry in entries] == batch.rendered
        await self._wait("take", (entries, batch))
        self.taken += entries
        asyncio.get_running_loop().call_soon(lambda: self.stages_after_take.append(self.stages))

    async def start(self, count: int) -> None:
        """Reads a first batch and begins to take it."""
        self.run = asyncio.create_task(self.ahead.run(self._next(count), lambda: self.goes_on))
        await self.settled()

    async def end(self, stage: Stage, result: object = None) -> None:
        """Lets a stage end: a read with the number of its entries, any with an exception of some class."""
        _, waits = self.under_way[stage]
        if isinstance(result, type):
            waits.set_exception(result("on purpose"))
        else:
            waits.set_result(result)
        await self.settled()

    async def settled(self) -> None:
        """Lets everything continue that can; checks that what was read is held or taken, in order."""
        for _ in range(20):
            await asyncio.sleep(0)
        assert self.read_entries == [*self.taken, *self.ahead.held]

    async def ended(self, *, held: int = 0) -> None:
        """Checks that `run` has ended, with that many entries held, and that no task is left."""
        assert self.run.done()
        assert ({}, {asyncio.current_task()}) == (self.under_way, asyncio.all_tasks())
        assert held == len(self.ahead.held)

    @property
    def stages(self) -> set[str]:
        """The stages under way."""
        return set(self.under_way)

    @property
    def batch(self) -> Batch | None:
        """The prepared batch that is being taken; None if it could not be prepared."""
        batch: Batch | None = self.under_way["take"][0][1]
        return batch


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_the_next_batch_is_read_and_prepared_meanwhile() -> None:
    """While a batch is taken, the next one is read and then prepared; the one after it is not read yet."""

    async def work() -> None:
        line = Line()
        await line.start(MANY)
        assert {"take", "read"} == line.stages
        await line.end("read", MANY)
        assert {"take", "prepare"} == line.stages
        await line.end("prepare")
        assert {"take"} == line.stages
        await line.end("take")
        assert {"take", "read"} == line.stages
        assert line.batch, "prepared"
        await line.end("read", 0)
        await line.end("prepare")
        await line.end("take")
        await line.ended()

    run(work())


def test_two_batches_are_read_ahead_while_behind() -> None:
    """While intake is behind, the batch after the next one is read while that one is prepared; no third one is."""

    async def work() -> None:
        line = Line(behind=True)
        await line.start(MANY)
        await line.end("read", MANY)
        assert {"take", "prepare", "read"} == line.stages
        await line.end("read", MANY)
        await line.end("prepare")
        assert {"take"} == line.stages
        assert 3 * MANY == len(line.ahead.held)
        await line.end("take")
        assert {"take", "prepare", "read"} == line.stages, "the third is prepared, a fourth read"

    run(work())


def test_behind_ends() -> None:
    """When intake has caught up, what was read already is taken, and one batch at a time is read ahead again."""

    async def work() -> None:
        line = Line(behind=True)
        await line.start(MANY)
        await line.end("read", MANY)
        line.ahead.behind = False
        await line.end("read", MANY)
        await line.end("prepare")
        await line.end("take")
        assert {"take", "prepare"} == line.stages
        await line.end("prepare")
        await line.end("take")
        assert {"take", "read"} == line.stages

    run(work())


@pytest.mark.parametrize(("count", "goes_on"), [(FEW, True), (MANY, False)])
def test_nothing_is_read_ahead(count: int, goes_on: bool) -> None:
    """Nothing is read ahead of a small batch, or when it is time to stop; the current batch is taken."""

    async def work() -> None:
        line = Line()
        line.goes_on = goes_on
        await line.start(count)
        assert {"take"} == line.stages
        await line.end("take")
        await line.ended()

    run(work())


def test_an_empty_read() -> None:
    """After an empty read nothing more is read, even while intake is behind, and `run` ends."""

    async def work() -> None:
        line = Line(behind=True)
        await line.start(MANY)
        await line.end("read", 0)
        assert {"take", "prepare"} == line.stages
        await line.end("prepare")
        await line.end("take")
        await line.ended()

    run(work())


def test_time_is_up_meanwhile() -> None:
    """When it is time to stop, entries that are being read are still taken, and then `run` ends."""

    async def work() -> None:
        line = Line(behind=True)
        await line.start(MANY)
        await line.end("read", MANY)
        line.goes_on = False
        for stage in ("read", "prepare", "take", "prepare", "take", "take"):
            await line.end(stage, MANY)  # type: ignore[arg-type]
        await line.ended()
        assert 3 * MANY == len(line.taken)

    run(work())


def test_no_pause_between_two_batches() -> None:
    """A prepared batch goes to Redis before callbacks that the one before it scheduled, so that Redis does not wait."""

    async def work() -> None:
        line = Line()
        await line.start(MANY)
        await line.end("read", MANY)
        await line.end("prepare")
        await line.end("take")
        assert [{"take"}] == line.stages_after_take

    run(work())


def test_prepare_fails() -> None:
    """A batch that could not be prepared ahead is held and taken unprepared, and `take` meets the error."""

    async def work() -> None:
        line = Line()
        await line.start(MANY)
        await line.end("read", FEW)
        await line.end("prepare", MemoryError)
        await line.end("take")
        assert line.batch is None
        await line.end("take")
        await line.ended()
        assert MANY + FEW == len(line.taken)

    run(work())


def test_read_fails_while_a_batch_is_taken() -> None:
    """If a read fails while a batch is taken, the batch is taken; then the error is raised, and nothing is held."""

    async def work() -> None:
        line = Line()
        await line.start(MANY)
        await line.end("read", RedisUnavailable)
        assert {"take"} == line.stages
        assert not line.run.done()
        await line.end("take")
        await line.ended()
        with pytest.raises(RedisUnavailable):
            await line.run
        assert MANY == len(line.taken)

    run(work())


REFUSALS = NotLeader, RedisUnavailable, RedisFull, KeyError


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("behind", [False, True])
def test_take_fails(refusal: type[Exception], behind: bool) -> None:
    """If a batch is refused, entries that were read meanwhile or are being read are held behind it."""

    async def work() -> None:
        line = Line(behind=behind)
        await line.start(MANY)
        await line.end("read", MANY)
        await line.end("take", refusal)
        assert not line.run.done()
        await line.end("prepare")
        if behind:
            assert {"read"} == line.stages
            await line.end("read", FEW)
        await line.ended(held=2 * MANY + (FEW if behind else 0))
        assert refusal is type(line.run.exception())

    run(work())


def test_take_fails_before_the_read_ends() -> None:
    """The entries of a read that is under way when a batch is refused are held behind that batch."""

    async def work() -> None:
        line = Line()
        await line.start(MANY)
        await line.end("take", RedisFull)
        await line.end("read", MANY)
        await line.end("prepare")
        await line.ended(held=2 * MANY)
        assert RedisFull is type(line.run.exception())

    run(work())


@pytest.mark.parametrize("further", [False, True])
def test_take_and_read_fail(further: bool) -> None:
    """If take and read both fail, the read's error is raised: its reply may be lost, and must be read again."""

    async def work() -> None:
        line = Line(behind=further)
        await line.start(MANY)
        if further:
            await line.end("read", MANY)
            await line.end("prepare")
        await line.end("take", RedisFull)
        await line.end("read", RedisUnavailable)
        await line.ended(held=2 * MANY if further else MANY)
        assert RedisUnavailable is type(line.run.exception())

    run(work())


CANCELLED_IN: dict[str, tuple[tuple[Stage, int], ...]] = {
    "take and read": (),
    "take, prepare and read": (("read", MANY),),
    "take": (("read", MANY), ("read", MANY), ("prepare", 0)),
    "read": (("take", 0),),
    "prepare and read": (("read", MANY), ("take", 0)),
}


@pytest.mark.parametrize("stages", CANCELLED_IN)
def test_cancelled(stages: str) -> None:
    """A cancelled `run` ends at once in any stage, with no task left, and holds what was read and not taken."""

    async def work() -> None:
        line = Line(behind=True)
        await line.start(MANY)
        for stage, result in CANCELLED_IN[stages]:
            await line.end(stage, result)
        assert set(stages.replace(", ", " and ").split(" and ")) == line.stages
        line.run.cancel()
        await line.settled()
        assert line.run.cancelled()
        await line.ended(held=len(line.read_entries) - len(line.taken))

    run(work())


def test_it_can_run_again() -> None:
    """After a failure, and once what was held is taken, it reads ahead as before."""

    async def work() -> None:
        line = Line(behind=True)
        await line.start(MANY)
        await line.end("read", MANY)
        await line.end("take", RedisFull)
        await line.end("prepare")
        await line.end("read", MANY)
        line.taken, line.ahead.held = list(line.read_entries), []
        await line.start(MANY)
        assert {"take", "read"} == line.stages

    run(work())


ENDS = st.sampled_from(["read", "prepare", "take"])
RESULTS = st.sampled_from([0, 1, FEW, MANY, 2 * MANY, 2 * MANY, *REFUSALS])
STEPS = st.lists(st.tuples(ENDS, RESULTS) | st.sampled_from(["behind", "goes_on"]), max_size=60)


@given(steps=STEPS, behind=st.booleans(), cancelled=st.booleans())
def test_nothing_is_lost_or_overtaken(
    steps: list[tuple[Stage, object] | str], behind: bool, cancelled: bool
) -> None:
    """In whatever order stages end or fail, what was read was taken or is held, in order, and nothing else is."""

    async def work() -> None:
        line = Line(behind=behind)
        await line.start(MANY)
        for step in steps:
            if step == "behind":
                line.ahead.behind = not line.ahead.behind
            elif step == "goes_on":
                line.goes_on = not line.goes_on
            elif step[0] in line.under_way:
                await line.end(*step)  # type: ignore[arg-type]  # looks that all is there, in its order
        if cancelled:
            line.run.cancel()
            await line.settled()
        line.goes_on = False
        for _ in range(20):  # more than can be under way
            if line.under_way:
                await line.end(next(iter(line.under_way)), 1)
        failed = line.run.cancelled() or line.run.exception()
        await line.ended(held=len(line.ahead.held) if failed else 0)

    run(work())
