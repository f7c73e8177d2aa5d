"""One workspace's many endpoints are not everybody's wait: what scripts give goes round by workspace."""

from unittest.mock import AsyncMock, Mock

import pytest

from dispatcher.rules.decide import Policy
from dispatcher.rules.outcomes import Attempt
from dispatcher.store.arguments import HINT_MS, Room, ToAccept
from dispatcher.store.keys import endpoint_id
from dispatcher.store.replies import Hint
from dispatcher.worker.claimer import Claimer
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.settler import Settler
from dispatcher.worker.slots import Slots
from dispatcher.worker.tail import Tail
from dispatcher.worker.turn import Turn, TurnParts
from tests.world import TOKEN, World, callback

NEW_WINDOW = 2
"""POSTs at once to an endpoint of which nothing is known."""


def accept_many(world: World, count: int, workspace: str = "hog") -> None:
    """As many endpoints of one workspace, a callback for each; nobody is hinted."""
    for first in range(0, count, 100):
        batch = (
            callback(f"{workspace}{n}", endpoint=f"{workspace} https://{n}.example:443", message=f"m{n}")
            for n in range(first, min(first + 100, count))
        )
        world.accept(*batch, room=Room(hints=0))


def workspaces(hints: list[Hint]) -> list[str]:
    """Whose endpoints they are."""
    return [hint.workspace for hint in hints]


def test_wake_goes_round_by_workspace(world: World) -> None:
    """A workspace whose endpoint became due last is found by the first wake, behind a thousand of another's."""
    accept_many(world, 1000)
    world.now += 5000
    accept_many(world, 1, "quiet")
    woken = world.run(world.ledger.wake(16))
    assert "quiet" in workspaces(woken.hints)
    assert (True, 9) == (woken.more, woken.looked_at), "half of the sixteen for each, and one has only one"


def test_every_workspace_has_its_turn(world: World) -> None:
    """Where more workspaces are due than one wake looks at, those that were looked at come behind the others."""
    for number in range(10):
        accept_many(world, 50, f"w{number}")
    seen: set[str] = set()
    for _ in range(3):
        world.now += 10
        seen.update(workspaces(world.run(world.ledger.wake(4)).hints))
    assert {f"w{n}" for n in range(10)} == seen


def test_all_are_found(world: World) -> None:
    """What is due is found, each once, in as many wakes as it takes; then nothing more is."""
    accept_many(world, 100)
    accept_many(world, 7, "quiet")
    found: list[str] = []
    while (woken := world.run(world.ledger.wake(16))).more or woken.hints:
        found += [hint.endpoint for hint in woken.hints]
    assert 107 == len(found) == len(set(found))
    assert [] == world.run(world.ledger.wake(16)).hints
    world.now += HINT_MS
    assert 8 + 7 == len(world.run(world.ledger.wake(16)).hints), "hints that were lost"


def test_accept_gives_each_workspace_its_share(world: World) -> None:
    """Of what a worker has room for at once, one workspace gets no more than it may, and the others theirs."""
    hogs = [callback(f"h{n}", endpoint=f"hog https://{n}.example:443", message=f"m{n}") for n in range(20)]
    quiet = callback("q", endpoint="quiet https://q.example:443")
    for workspace in ("hog", "quiet"):
        world.call("hset", world.keys.workspace(workspace), "revision", "r")
    room = Room(10, {"hog": 3, "quiet": 3}, hints=5)
    batch = ToAccept(("1-1", one) for one in [*hogs, quiet])
    accepted = world.run(world.ledger.accept(TOKEN, {"hog": "r", "quiet": "r"}, [], batch, room))
    given = [claim.workspace for _, claim in accepted.claims]
    assert (3, 1) == (given.count("hog"), given.count("quiet"))
    assert ["hog"] * 5 == workspaces(accepted.hints)
    world.now += 1
    assert 12 == len(world.run(world.ledger.wake(100)).hints), "the waker finds the rest"


def test_schedule_is_empty_when_nothing_waits(world: World) -> None:
    """Of a workspace of which nothing waits nothing is scheduled; the next wake that is due for it removes it."""
    accept_many(world, 3)
    assert [b"hog"] == world.call("zrange", world.keys.schedule, 0, -1)
    world.deliver_all(*(f"hog https://{n}.example:443" for n in range(3)))
    assert [world.keys.schedule.encode()] == world.call("keys", "*schedule*")
    world.now += world.ledger.options.lease_ms
    world.run(world.ledger.wake())
    assert [] == world.call("keys", "*schedule*")


@pytest.mark.parametrize(
    ("status", "others_want", "posts"), [(400, True, NEW_WINDOW), (400, False, 20), (200, True, 20)]
)
def test_an_endpoint_that_takes_nothing_gives_way(
    world: World, status: int, others_want: bool, posts: int
) -> None:
    """While others want slots its turn ends with what it claimed first, and it is to be hinted again."""
    world.accept(*(callback(f"e{n}", message=f"m{n}") for n in range(20)), room=Room(hints=0))
    answered = Attempt(world.now, 5, status, None if status == 200 else f"http_{status}")
    sender = Mock(send=AsyncMock(return_value=answered))
    parts = TurnParts(
        ledger=world.ledger,
        claimer=Claimer(world.ledger),
        settler=Settler(world.ledger),
        sender=sender,
        workspaces=AsyncMock(get=AsyncMock(return_value=None)),
        watch=RedisWatch(Metrics()),
        policy=Policy(),
        slots=Slots(100),
        alerts=Mock(),
        tail=Mock(spec=Tail),
    )
    if others_want:
        parts.slots.want("other")
    more = world.run(Turn(Hint(endpoint_id("acme https://a.example:443"), "acme"), parts).run())
    assert (posts, posts < 20) == (sender.send.await_count, more)
    assert 0 == parts.slots.taken
