"""What turns claim together, and what becomes of it if the call fails."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from dispatcher.errors import EndpointBroken, RedisUnavailable
from dispatcher.store.replies import Claim, ToClaim
from dispatcher.worker.claimer import AT_ONCE, Claimer
from tests.fakes import Gate, claim, played, until


class Ledger:
    """Gives each endpoint a callback of its name, but `broken` ones; `error` is what a call raises."""

    def __init__(self) -> None:
        self.calls: list[list[ToClaim]] = []
        self.broken: set[str] = set()
        self.error: Exception | None = None
        self.gate = Gate()

    async def claim(self, asked: Sequence[ToClaim]) -> list[Claim | EndpointBroken]:
        """One call."""
        self.calls.append(list(asked))
        await self.gate.passed()
        if self.error:
            raise self.error
        return [EndpointBroken(f"{e} is") if e in self.broken else claim(e) for e, _ in asked]


async def outcome(claimed: Awaitable[Claim]) -> str:
    """The callback that was given, or the error."""
    try:
        return (await claimed).callbacks[0].event_id
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def play(story: Callable[[Ledger, Claimer], Awaitable[None]]) -> None:
    """Runs a story and checks that no task failed."""

    async def run() -> None:
        ledger = Ledger()
        await story(ledger, Claimer(ledger))  # type: ignore[arg-type]

    assert [] == played(run())


def test_what_is_asked_together_is_one_call() -> None:
    """What comes while that call is under way is another one, and waits for nothing."""

    async def story(ledger: Ledger, claimer: Claimer) -> None:
        ledger.gate.shut()
        first = [asyncio.create_task(outcome(claimer.claim(name, 4))) for name in "ab"]
        await until(lambda: len(ledger.calls) == 1, "the first call")
        later = asyncio.create_task(outcome(claimer.claim("c", 2)))
        await until(lambda: len(ledger.calls) == 2, "the other one")
        ledger.gate.open()
        assert ["a", "b", "c"] == [await one for one in (*first, later)]
        assert [[("a", 4), ("b", 4)], [("c", 2)]] == ledger.calls

    play(story)


@pytest.mark.parametrize(
    ("counts", "calls"),
    [
        ([AT_ONCE // 2] * 3, [2, 1]),
        ([4] * (AT_ONCE // 4 + 1), [AT_ONCE // 4, 1]),
        ([AT_ONCE + 1, 1], [1, 1]),
        ([1, AT_ONCE], [1, 1]),
    ],
)
def test_a_call_asks_for_so_many(counts: list[int], calls: list[int]) -> None:
    """Redis does nothing else during a call; what one turn asks for is not split up."""

    async def story(ledger: Ledger, claimer: Claimer) -> None:
        given = await asyncio.gather(*(outcome(claimer.claim(f"e{n}", c)) for n, c in enumerate(counts)))
        assert [f"e{n}" for n in range(len(counts))] == given
        assert calls == [len(one) for one in ledger.calls]

    play(story)


def test_a_damaged_endpoint() -> None:
    """Its turn alone is told."""

    async def story(ledger: Ledger, claimer: Claimer) -> None:
        ledger.broken = {"b"}
        given = await asyncio.gather(*(outcome(claimer.claim(name, 1)) for name in "abc"))
        assert ["a", "EndpointBroken: b is", "c"] == given
        assert 1 == len(ledger.calls)

    play(story)


@pytest.mark.parametrize("error", [RedisUnavailable("away"), KeyError("bug")])
def test_the_call_fails(error: Exception) -> None:
    """All that asked are told, and the next call is made all the same."""

    async def story(ledger: Ledger, claimer: Claimer) -> None:
        ledger.error = error
        given = await asyncio.gather(*(outcome(claimer.claim(name, 1)) for name in "ab"))
        assert [f"{type(error).__name__}: {error}"] * 2 == given
        ledger.error = None
        assert "c" == await outcome(claimer.claim("c", 1))

    play(story)


def test_an_answer_is_missing() -> None:
    """A fault of ours: who has no answer is told, and nobody waits for ever."""

    async def story(ledger: Ledger, claimer: Claimer) -> None:
        async def short(asked: Sequence[ToClaim]) -> list[Claim | EndpointBroken]:
            return [claim(asked[0].endpoint)]

        ledger.claim = short  # type: ignore[method-assign]
        given = await asyncio.gather(*(outcome(claimer.claim(name, 1)) for name in "ab"))
        assert "a" == given[0]
        assert given[1].startswith("ValueError")

    play(story)


def test_a_turn_is_cancelled() -> None:
    """The others of its call have what they asked for."""

    async def story(ledger: Ledger, claimer: Claimer) -> None:
        ledger.gate.shut()
        gone, other = [asyncio.create_task(outcome(claimer.claim(name, 1))) for name in "ab"]
        await until(lambda: ledger.calls, "the call")
        gone.cancel()
        await asyncio.wait({gone})
        ledger.gate.open()
        assert "b" == await other

    play(story)


def test_a_turn_is_cancelled_before_its_call() -> None:
    """Nothing is leased for it."""

    async def story(ledger: Ledger, claimer: Claimer) -> None:
        gone = asyncio.create_task(outcome(claimer.claim("a", 1)))
        other = asyncio.create_task(outcome(claimer.claim("b", 1)))
        asyncio.get_running_loop().call_soon(gone.cancel)
        assert "b" == await other
        assert [[("b", 1)]] == ledger.calls

    play(story)
