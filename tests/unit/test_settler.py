"""The settler on a server that is away: what it still claims."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from dispatcher.errors import EndpointBroken, RedisUnavailable
from dispatcher.rules.outcomes import Released
from dispatcher.store.arguments import LedgerOptions
from dispatcher.store.replies import Settled, Settlement, ToSettle
from dispatcher.worker.settler import AT_ONCE, ENOUGH, Settler
from tests.fakes import Gate, quiet, until

DONE = Settled(False, [True], "same", 0, 0)


class Ledger:
    """Remembers the claims of each call; `raises` and `broken` say what becomes of it."""

    def __init__(self) -> None:
        self.options = LedgerOptions()
        self.gate = Gate()
        self.raises: Exception | None = None
        self.broken: set[str] = set()
        self.claims: list[list[int]] = []

    async def settle(self, asked: Sequence[ToSettle]) -> list[Settled | EndpointBroken]:
        """One call."""
        self.claims.append([one.claim for one in asked])
        await self.gate.passed()
        if self.raises:
            raise self.raises
        return [EndpointBroken("broken") if one.endpoint in self.broken else DONE for one in asked]


class Scene:
    """A settler whose requests each want to claim one callback."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        ledger: Any = self.ledger
        self.settler = Settler(ledger)
        self.unclaimed: list[str] = []

    def settle(self, *endpoints: str) -> "list[asyncio.Task[Settled]]":
        """One result of each."""
        return [asyncio.create_task(self._settle(endpoint)) for endpoint in endpoints]

    async def _settle(self, endpoint: str) -> Settled:
        settlements = [Settlement("e", 1, Released(), None)]
        return await self.settler.settle(endpoint, settlements, 1, lambda: self.unclaimed.append(endpoint))


@pytest.fixture
def runner() -> Any:
    """Where the stories run."""
    with asyncio.Runner() as runner:
        yield runner


def test_what_waits_behind_a_call_that_fails(runner: asyncio.Runner) -> None:
    """None that waits for the next call claims when one fails, and none that comes until one succeeds: each is told once.

    What is under way by then in the other call fails too, and is told as well.
    """

    async def story() -> None:
        scene = Scene()
        ledger = scene.ledger
        ledger.gate.shut()
        ledger.raises = RedisUnavailable("away")
        first = scene.settle("a")
        await until(lambda: ledger.gate.waiting, "the first call")
        names = [f"b{n}" for n in range(2 * AT_ONCE)]
        behind = scene.settle(*names)
        await quiet()
        assert ([], [[1], [1] * ENOUGH]) == (scene.unclaimed, ledger.claims)
        ledger.gate.open()
        ledger.gate.shut()
        await until(lambda: len(ledger.claims) > 2, "the next call")
        assert sorted(["a", *names]) == sorted(scene.unclaimed)
        late = scene.settle("c")
        await quiet()
        assert "c" == scene.unclaimed[-1]
        ledger.raises = None
        ledger.gate.open()
        await asyncio.gather(*first, *behind, *late)
        assert 0 == sum(map(sum, ledger.claims[2:]))
        assert 2 + 2 * AT_ONCE == len(scene.unclaimed)
        await asyncio.gather(*scene.settle("d"))
        assert [1] == ledger.claims[-1]

    runner.run(story())


def test_calls_under_way(runner: asyncio.Runner) -> None:
    """While a call is under way little waits for its reply, much goes out in a second one, and nothing in a third."""

    async def story() -> None:
        scene = Scene()
        scene.ledger.gate.shut()
        tasks = scene.settle("a")
        await quiet()
        tasks += scene.settle(*(f"b{n}" for n in range(ENOUGH - 1)))
        await quiet()
        assert [1] == [*map(len, scene.ledger.claims)]
        tasks += scene.settle("c")
        await quiet()
        assert [1, ENOUGH] == [*map(len, scene.ledger.claims)]
        tasks += scene.settle(*(f"d{n}" for n in range(2 * ENOUGH)))
        await quiet()
        assert [1, ENOUGH] == [*map(len, scene.ledger.claims)]
        scene.ledger.gate.open()
        await asyncio.gather(*tasks)
        assert [1, ENOUGH, 2 * ENOUGH] == [*map(len, scene.ledger.claims)]

    runner.run(story())


def test_an_error_of_ours(runner: asyncio.Runner) -> None:
    """What comes after it is sent, and who waited has the error."""

    async def story() -> None:
        scene = Scene()
        scene.ledger.raises = RedisUnavailable("away")
        scene.unclaimed = None  # type: ignore[assignment]  # telling it raises
        with pytest.raises(AttributeError):
            await asyncio.gather(*scene.settle("a"))
        scene.ledger.raises, scene.unclaimed = None, []
        await asyncio.gather(*scene.settle("b"))

    runner.run(story())


def test_what_breaks_does_not_claim(runner: asyncio.Runner) -> None:
    """An endpoint whose keys are broken claims nothing when its result is sent again; the others claim as ever."""

    async def story() -> None:
        scene = Scene()
        scene.ledger.broken = {"a"}
        [broken, fine] = scene.settle("a", "b")
        await fine
        assert ["a"] == scene.unclaimed
        scene.ledger.broken = set()
        await broken
        assert [[1, 1], [0]] == [scene.ledger.claims[0], scene.ledger.claims[-1]]

    runner.run(story())


def test_what_succeeds_is_not_told(runner: asyncio.Runner) -> None:
    """A request whose call succeeds claims in it."""

    async def story() -> None:
        scene = Scene()
        await asyncio.gather(*scene.settle("a", "b"))
        assert ([], [[1, 1]]) == (scene.unclaimed, scene.ledger.claims)

    runner.run(story())
