"""Preparing entries: in which order they are accepted, and those of an installation that has grown."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from dispatcher.errors import PreviousUnavailable
from dispatcher.fast_decode import Change, status_change
from dispatcher.rules.partitions import Partitioning
from dispatcher.rules.render import RenderOptions
from dispatcher.rules.workspace import Workspace
from dispatcher.store.arguments import ToAccept
from dispatcher.store.keys import Keys
from dispatcher.store.known_messages import KnownMessages
from dispatcher.store.previous import Previous
from dispatcher.store.queue import QueueEntry
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.worker import prepare
from dispatcher.worker.batch import Batch
from dispatcher.worker.homes import Homes
from dispatcher.worker.prepare import NOBODY, Preparer
from dispatcher.worker.router import Router
from tests.messages import change

P = 4
HOME = Partitioning(P).home("acme")


class KnowsNothing:
    """The previous Redis, which knows no message."""

    async def call(self, *command: Any) -> Any:
        """One command."""
        raise NotImplementedError

    async def call_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Commands together."""
        return [f"2 grown into {P}".encode() if command[0] == "GET" else 0 for command in commands]


def prepared(count: int) -> Batch:
    """What entries of a workspace that is at home elsewhere become."""
    entries = [
        QueueEntry(f"1-{n}", [b"event", change(event_id=f"e{n}", uuid=f"m{n}").to_json()])
        for n in range(count)
    ]
    here = (HOME + P // 2) % P
    preparer = Preparer(
        cast(WorkspaceCache, NoWorkspaces()),
        lambda: 1,
        RenderOptions(),
        router=Router(Partitioning(P, has_previous=True), here),
        previous=Previous(KnowsNothing(), Keys("dispatcher", P)),
    )
    return asyncio.run(preparer.prepare(entries))


class NoWorkspaces:
    """There are none here."""

    async def get(self, workspace: str) -> None:
        """None of them."""


def test_each_entry_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking the previous Redis for an entry's message and routing it take one parse."""
    read: list[bytes] = []
    decode = prepare.status_change
    monkeypatch.setattr(prepare, "status_change", lambda raw: read.append(raw) or decode(raw))
    batch = prepared(40)
    assert 40 == len(batch.forwarded[HOME])
    assert 40 == len(read)


def test_an_entry_that_breaks_our_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is put off, as where there is no previous Redis, and the others go on."""
    decode = prepare.status_change

    def breaks(raw: bytes) -> Change:
        if b'"e1"' in raw:
            raise RuntimeError("a bug")
        return decode(raw)

    monkeypatch.setattr(prepare, "status_change", breaks)
    batch = prepared(3)
    assert ["1-0", "1-2"] == [entry.id for entry, _ in batch.forwarded[HOME]]
    assert ["1-1"] == batch.later[""].ids


class Home:
    """A workspace's home, which has its record or not."""

    def __init__(self, *record: bytes | None) -> None:
        self.record = record
        self.asked = 0

    async def call(self, *command: Any) -> Any:
        """Its revision and width."""
        self.asked += 1
        return self.record


@pytest.mark.parametrize(
    ("stays", "record", "is_known"),
    [
        (False, (None, None), False),
        (True, (None, None), False),
        (False, (b"r1", b"2"), True),
        (True, (b"r1", b"2"), True),
        (True, (b"r1", b"1"), True),
        (False, (b"r1", b"1"), False),  # removed, and added again with another width: this is no part of it
    ],
)
def test_a_part_without_a_record(
    stays: bool, record: tuple[bytes | None, bytes | None], is_known: bool
) -> None:
    """What belongs to a partition without the workspace's record waits, however old, if home has it; else it is rejected.

    So it is in a part for what home sent there, and in the previous Redis for messages that it knows, whoever sent them.
    """
    home = Home(*record)
    here = P if stays else (HOME + 1) % P
    source = (HOME + 2) % P if stays else HOME
    event = change(event_id="e1", uuid="m1").to_json()
    entries = [QueueEntry(f"1-{n}", [b"event", event, b"from", f"{source} 1-0 a".encode()]) for n in range(9)]
    division = Partitioning(P, has_previous=True)
    preparer = Preparer(
        cast(WorkspaceCache, NoWorkspaces()),
        lambda: 1_800_000_000_000,
        RenderOptions(),
        router=Router(division, here),
        previous=Previous(KnowsAll(), Keys("dispatcher", P)) if stays else None,
        homes=Homes(division, here, lambda _: KnownMessages(home, Keys("dispatcher", HOME))),  # type: ignore[arg-type]
    )
    batch = asyncio.run(preparer.prepare(entries))
    if is_known:
        assert [entry.id for entry in entries] == batch.later["acme"].ids
        assert f"partition {here} has no copy of the workspace's record" in str(batch.later["acme"].fault)
    else:
        assert ["unknown_workspace"] * 9 == [rejection.reason for _, rejection in batch.rejected]
    assert 1 == home.asked


@pytest.mark.parametrize("stored", [b"by hand", b"2", b""])
def test_a_previous_redis_that_is_not_ours(stored: bytes) -> None:
    """It counts as one that does not answer, whatever its format: what it may know waits."""

    class Other(KnowsAll):
        async def call_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
            found = await super().call_all(commands)
            return [stored if one[0] == "GET" else reply for one, reply in zip(commands, found, strict=True)]

    changes = [status_change(change(event_id="e1", uuid="m1").to_json())]
    with pytest.raises(PreviousUnavailable):
        asyncio.run(Previous(Other(), Keys("dispatcher", P)).known(changes))


class KnowsAll(KnowsNothing):
    """The previous Redis, which knows every message."""

    async def call_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Commands together."""
        told = {"HGETALL": {}, "GET": f"2 grown into {P}".encode()}
        return [told.get(command[0], 1) for command in commands]


class AnyWorkspace:
    """Every workspace that is asked for."""

    async def get(self, workspace: str) -> Workspace:
        """One with a callback URL."""
        return Workspace(workspace, "zeckta", "https://a.example/", (), 1, "r1")


def of_workspaces(names: Sequence[str]) -> list[QueueEntry]:
    """An entry of each of these workspaces, in order."""
    return [
        QueueEntry(f"1-{n}", [b"event", change(event_id=f"e{n}", uuid=f"m{n}", workspace=name).to_json()])
        for n, name in enumerate(names)
    ]


def placed(entries: Sequence[QueueEntry], trying: Mapping[str, bool] = NOBODY) -> Batch:
    """What they become where there is one partition and each has a callback."""
    preparer = Preparer(cast(WorkspaceCache, AnyWorkspace()), lambda: 1_800_000_000_000, RenderOptions())
    return asyncio.run(preparer.prepare(entries, trying))


def test_a_workspace_with_little_comes_before_those_with_more() -> None:
    """So its status change does not wait for all that others have enqueued before; each one's are in their order."""
    batch = placed(of_workspaces("abababbcbab"))
    assert ["1-7", *(f"1-{n}" for n in (0, 2, 4, 9)), *(f"1-{n}" for n in (1, 3, 5, 6, 8, 10))] == [
        entry.id for entry, _ in batch.rendered
    ]
    assert ["e7", "e0", "e2", "e4", "e9", "e1", "e3", "e5", "e6", "e8", "e10"] == [
        id_ for part in batch.parts for of_entry in part.ids() for _, id_ in of_entry
    ]


def test_an_endpoint_is_in_as_few_calls_as_its_callbacks_need() -> None:
    """Of 100 customers' 512 callbacks, which go to and fro between them, hardly any customer is in two calls of accept."""
    batch = placed(of_workspaces([f"w{n % 100}" for n in range(512)]))
    assert len(batch.parts) > 1
    assert sum(len(part.endpoints) for part in batch.parts) <= 100 + len(batch.parts) - 1
    assert 512 == sum(part.count for part in batch.parts)


def break_on(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has one entry break our code as it is put into a call of accept."""
    add = ToAccept.add_entry

    def add_or_break(part: ToAccept, entry: str, *rest: Any) -> None:
        if entry == bad:
            raise RuntimeError("a bug")
        add(part, entry, *rest)

    monkeypatch.setattr(ToAccept, "add_entry", add_or_break)


def test_what_follows_an_entry_that_breaks_our_code_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of its workspace overtakes it, wherever it breaks; entries of others go on."""
    break_on("1-2", monkeypatch)
    batch = placed(of_workspaces("abaab"))
    assert ["1-1", "1-4", "1-0"] == [entry.id for entry, _ in batch.rendered]
    assert {"a": ["1-2", "1-3"]} == {name: later.ids for name, later in batch.later.items()}


def test_what_follows_an_entry_that_is_rejected_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """If an entry has broken our code too often, the ones behind it go on."""
    break_on("1-0", monkeypatch)
    batch = placed(of_workspaces("aaa"), {"a": True})
    assert ["1-1", "1-2"] == [entry.id for entry, _ in batch.rendered]
    assert ["1-0"] == [entry.id for entry, _ in batch.rejected]
    assert {} == batch.later


def test_the_loop_gets_to_other_work_while_a_batch_is_prepared() -> None:
    """While 512 entries are rendered, and while they are put into calls: the batch before must get onto the wire."""

    async def scene() -> int:
        preparer = Preparer(cast(WorkspaceCache, AnyWorkspace()), lambda: 1_800_000_000_000, RenderOptions())
        task = asyncio.create_task(preparer.prepare(of_workspaces("a" * 512)))
        turns = 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(scene()) >= 512 // prepare.PREPARED_AT_ONCE + 512 // prepare.PLACED_AT_ONCE
