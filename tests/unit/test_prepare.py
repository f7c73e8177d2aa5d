"""Preparing entries of an installation that has grown."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from dispatcher.fast_decode import Change
from dispatcher.rules.partitions import Partitioning
from dispatcher.rules.render import RenderOptions
from dispatcher.store.keys import Keys
from dispatcher.store.previous import Previous
from dispatcher.store.queue import QueueEntry
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.worker import prepare
from dispatcher.worker.batch import Batch
from dispatcher.worker.prepare import Preparer
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
        return [0] * len(commands)


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
