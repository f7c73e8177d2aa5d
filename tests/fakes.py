"""What a worker's parts are tested on without Redis and HTTP: a ledger, a settler and receivers that wait when they are told to."""

import asyncio
import gc
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from structlog.testing import capture_logs

from dispatcher.model import Status
from dispatcher.rules.callback import Claimed
from dispatcher.rules.decide import Policy
from dispatcher.rules.outcomes import Attempt
from dispatcher.rules.workspace import Workspace
from dispatcher.store.arguments import LedgerOptions
from dispatcher.store.attempt_channel import AttemptChannel
from dispatcher.store.keys import Keys
from dispatcher.store.replies import Claim, Hint, Settled, Settlement, Woken
from dispatcher.worker.alerts import Alerts
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.slots import Slots
from dispatcher.worker.tail import Tail
from dispatcher.worker.turn import TurnParts

NOW_MS = 1_800_000_000_000
ORIGIN = "https://a.example:443"


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Lets the loop run until the condition holds."""
    try:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)
    except TimeoutError:
        raise AssertionError(f"never: {what or 'the condition'}") from None


def played(story: Coroutine[Any, Any, None]) -> list[BaseException]:
    """Runs a story on a loop of its own; returns what broke tasks that nothing waits for."""
    broken: list[BaseException] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: broken.append(context["exception"]))
        async with asyncio.timeout(20):
            await story
        gc.collect()  # such a task says so when it goes

    with capture_logs() as logged:
        asyncio.run(run())
    return broken + [line["exc_info"] for line in logged if line["event"] == "task.internal_error"]


async def quiet(rounds: int = 20) -> None:
    """Lets the loop do what it can do without anything from outside."""
    for _ in range(rounds):
        await asyncio.sleep(0)


def claimed(event_id: str, number: int = 1) -> Claimed:
    """A callback as its claim of this number gives it."""
    return Claimed(
        event_id, number, number, NOW_MS + 60_000, "MESSAGE_SENT", Status.SENT, "m1", ORIGIN, b"{}"
    )


def claim(
    *event_ids: str, number: int = 1, workspace: str = "acme", more: bool = False, wait_ms: int = 0
) -> Claim:
    """What a claim gives; its lease is a long one."""
    ends_at = asyncio.get_running_loop().time() + 3600
    return Claim(more, wait_ms, workspace, ORIGIN, "r", [claimed(one, number) for one in event_ids], ends_at)


def woken(hints: Sequence[Hint] = (), lost: Sequence[Any] = (), **fields: Any) -> Woken:
    """What a wake found; there is one worker, and Redis is of this version's format."""
    return Woken(list(hints), list(lost), 0, **{"workers": 1, "format": "2"} | fields)


class Gate:
    """Calls wait at it while it is shut. `waiting`: how many do."""

    def __init__(self) -> None:
        self.waiting = 0
        self._open = asyncio.Event()
        self._open.set()

    def shut(self) -> None:
        """Calls wait from now on."""
        self._open.clear()

    def open(self) -> None:
        """All that wait go on."""
        self._open.set()

    async def passed(self) -> None:
        """Waits while it is shut."""
        self.waiting += 1
        await self._open.wait()
        self.waiting -= 1


class FakeLedger:
    """Gives what `due` has of an endpoint, and what `wakes` has; exceptions among those are raised."""

    options = LedgerOptions()

    def __init__(self) -> None:
        self.due: dict[str, list[str]] = defaultdict(list)
        self.wakes: list[Woken | BaseException] = []
        self.expiries: list[int | BaseException] = []
        self.error: Exception | None = None
        """What a claim raises."""
        self.wait_ms = 0
        """What a claim says of the next token."""
        self.gate = Gate()
        """Before a claim's reply."""
        self.wake_gate = Gate()
        """Before a wake's reply."""
        self.claims: list[tuple[str, int]] = []
        self.calls: list[str] = []
        self.heartbeats: list[str] = []

    def now_ms(self) -> int:
        """Redis's clock stands still."""
        return NOW_MS

    async def claim(self, endpoint: str, count: int) -> Claim:
        """Up to so many of what is due, as a claimer gives them."""
        self.claims.append((endpoint, count))
        await self.gate.passed()
        if self.error:
            raise self.error
        due = self.due[endpoint]
        given, self.due[endpoint] = due[:count], due[count:]
        return claim(*given, more=bool(given and self.due[endpoint]), wait_ms=self.wait_ms)

    async def expire(self, limit: int) -> int:
        """How many expired."""
        self.calls.append(f"expire {limit}")
        return _next(self.expiries, 0)

    async def wake(self, limit: int, _name: str, heartbeat: str) -> Woken:
        """What is next in `wakes`, then nothing."""
        self.calls.append(f"wake {limit}")
        self.heartbeats.append(heartbeat)
        await self.wake_gate.passed()
        return _next(self.wakes, woken())

    async def leave(self, name: str) -> None:
        """The heartbeat ends."""
        self.calls.append(f"leave {name}")
        if self.error:
            raise self.error


def _next(given: list[Any], otherwise: Any) -> Any:
    one = given.pop(0) if given else otherwise
    if isinstance(one, BaseException):
        raise one
    return one


class FakeSettler:
    """Remembers what is settled; `more`, `error` and `counted` are what it answers."""

    def __init__(self) -> None:
        self.gate = Gate()
        """Before a reply, but for what is in `answers_at_once`."""
        self.answers_at_once: set[str] = set()
        """Endpoints."""
        self.more = False
        self.counted: list[bool] | None = None
        """None: all counted."""
        self.error: Exception | None = None
        self.asked: list[tuple[str, Sequence[Settlement], int]] = []

    @property
    def event_ids(self) -> list[str]:
        """What was settled."""
        return [one.event_id for _, settlements, _ in self.asked for one in settlements]

    async def settle(
        self,
        endpoint: str,
        settlements: Sequence[Settlement],
        claim: int = 0,
        _unclaimed: Callable[[], None] | None = None,
    ) -> Settled:
        """Claims nothing in the same call."""
        self.asked.append((endpoint, settlements, claim))
        if endpoint not in self.answers_at_once:
            await self.gate.passed()
        if self.error:
            raise self.error
        counted = [True] * len(settlements) if self.counted is None else self.counted
        return Settled(self.more, counted, "same", 0, 0)


class FakeSender:
    """A receiver that takes everything."""

    def __init__(self) -> None:
        self.gate = Gate()
        """Before an answer."""
        self.answer: Attempt | None = None
        """None: a 200."""
        self.sent: list[str] = []

    async def send(self, callback: Claimed, _workspace: object, now_ms: int) -> Attempt:
        """One POST."""
        self.sent.append(callback.event_id)
        await self.gate.passed()
        return self.answer or Attempt(now_ms, 5, 200)


class FakeWorkspaces:
    """What `found` is; the sender above needs nothing of it."""

    found: Workspace | None = None

    async def get(self, _name: str, _revision: str = "") -> Workspace | None:
        """The workspace."""
        return self.found

    def forget(self, _name: str) -> None:
        """Nothing is kept."""


class KeptHints(list[Hint]):
    """What other workers are to serve."""

    add = list.append


class FakeWorker:
    """The fakes, as parts of turns."""

    def __init__(self, slots: int = 8, turn_seconds: float = 3600.0) -> None:
        self.ledger, self.settler, self.sender = FakeLedger(), FakeSettler(), FakeSender()
        self.workspaces = FakeWorkspaces()
        self.slots = Slots(slots)
        self.hints = KeptHints()
        self.published: list[Any] = []
        self.parts = TurnParts(
            ledger=self.ledger,
            claimer=self.ledger,
            settler=self.settler,
            sender=self.sender,
            workspaces=self.workspaces,
            watch=RedisWatch(),
            policy=Policy(),
            slots=self.slots,
            alerts=Alerts("worker"),
            tail=Tail(AttemptChannel(self._call, Keys())),
            turn_seconds=turn_seconds,
        )

    async def _call(self, *args: Any) -> None:
        self.published.append(args)
