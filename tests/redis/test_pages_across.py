"""Pages of a workspace's messages by time, while it lies in several partitions."""

from collections.abc import Iterator, Sequence

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.model import Status
from dispatcher.store.across.messages import MessagesAcross
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.arguments import ToAccept
from dispatcher.store.message_reader import Bounds, Filter
from dispatcher.store.stored_message import StoredMessage
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.recorder import Recorder
from tasks import wiring
from tasks.actions import workspaces
from tasks.actions.workspaces import Wanted
from tests.divided import Installed, installed
from tests.messages import change
from tests.world import TOKEN

NAME, WIDTH = "acme", 3
HALF_AN_HOUR, SLOTS = 1_800_000, 4
BOUNDS = Bounds(page=6, looked_at=20)


@pytest.fixture
def many(redis_url: str) -> Iterator[Installed]:
    """Eight partitions, and a workspace that is spread over three of them."""
    with installed([redis_url], 8) as found:
        wanted = Wanted("https://a.example/hooks", width=WIDTH)
        found.do(workspaces.add, NAME, "qlara", wanted, None)
        yield found


def tell(many: Installed, place: int, status: str, uuid: str, at_ms: int) -> None:
    """Records a status of a message in one of the workspace's partitions."""
    world = many.worlds[many.partitioning.all_of(NAME, WIDTH)[place]]
    batch = ToAccept()
    Recorder(604_800_000, Metrics()).add(batch, change(status, uuid, at_ms=at_ms, workspace=NAME), "qlara", 0)
    world.run(world.ledger.accept(TOKEN, {}, [], batch))


def pages(
    many: Installed, skips: Sequence[int], count: int, keep: Filter | None = None
) -> tuple[list[list[str]], list[int], list[StoredMessage]]:
    """Pages of the last half hour, by uuid; what was looked at for each; and all messages of them."""

    async def read() -> tuple[list[list[StoredMessage]], list[int]]:
        servers, looked = wiring.servers(many.settings), [0] * len(skips)
        messages, found = MessagesAcross(Partitions(servers, needs_all=True), bounds=BOUNDS), []
        try:
            for number, skip in enumerate(skips):

                async def look(count: int, number: int = number) -> None:
                    looked[number] += count

                found.append(
                    await messages.sent_between(
                        NAME, "SMS", many.now - HALF_AN_HOUR, many.now, now_ms=many.now,
                        skip=skip, count=count, keep=keep, look=look,
                    )
                )  # fmt: skip
        finally:
            await servers.aclose()
        return found, looked

    found, looked = many.worlds[0].run(read())
    return [[one.uuid for one in page] for page in found], looked, [one for page in found for one in page]


def test_deep_pages(many: Installed) -> None:
    """What is skipped is counted and not read, in several partitions as in one: no page is too deep."""
    sent = [f"q{number:02}" for number in range(90)]
    first = many.now - many.now % 600_000 - 2 * 600_000
    for number, uuid in enumerate(sent):
        tell(many, number % WIDTH, "SENT", uuid, first + (number // 45) * 600_000 + number)
    read, looked, _ = pages(many, range(0, 91, 6), 6)
    assert [6] * 15 + [0] == [len(page) for page in read]
    assert sent == sorted(uuid for page in read for uuid in page)
    assert sent[:45] == sorted([uuid for page in read for uuid in page][:45])  # the slot before first
    assert max(looked) <= SLOTS * WIDTH + 2 * BOUNDS.page


def test_too_many(many: Installed) -> None:
    """The bound on what a search may look at is of all partitions together."""
    for number in range(24):
        tell(many, number % WIDTH, "SENT", f"q{number:02}", many.now - 1000)
    with pytest.raises(InvalidInput, match="more than 20 messages"):
        pages(many, [0], 6, keep=lambda _: False)


def test_messages_in_two_partitions(many: Installed) -> None:
    """A message that is in two, as after the width was changed, shows its newest status, on as many pages as it is on.

    Every page but the last is full: one that is not says that it is the last.
    """
    sent, at = [f"q{number:02}" for number in range(12)], many.now - many.now % 600_000 - 600_000
    for number, uuid in enumerate(sent):
        tell(many, number % 2, "SENT", uuid, at)
    twice = {"q00", "q02", "q03"}
    for uuid in sorted(twice):
        tell(many, 2, "DELIVERED", uuid, at + 1)
    read, _, messages = pages(many, range(0, 16, 4), 4)
    assert [4, 4, 4] == [len(page) for page in read[:3]]
    assert set(sent) == {uuid for page in read for uuid in page}
    assert all(len(page) == len({*page}) for page in read)
    assert {(one.uuid, Status.DELIVERED if one.uuid in twice else Status.SENT) for one in messages} == {
        (one.uuid, one.status) for one in messages
    }
