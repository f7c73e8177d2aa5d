"""Copies of a workspace's record in its other partitions, while it is changed or removed at the same time; on two real servers."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.client import Pipeline

from dispatcher.store.across.workspaces import WorkspacesAcross
from tasks import wiring
from tasks.actions import workspaces
from tasks.actions.workspaces import Wanted
from tests.divided import Installed, installed

NAME = "acme"
OLD, NEW = "https://old.example/hooks", "https://new.example/hooks"
Meanwhile = Callable[[Callable[[], Awaitable[Any]]], None]


@pytest.fixture
def many(two_urls: list[str]) -> Iterator[Installed]:
    """Four partitions, and a workspace that is spread over all of them."""
    with installed(two_urls, 4) as found:
        found.do(workspaces.add, NAME, "zeckta", Wanted(OLD, width=4), None)
        yield found


@pytest.fixture
def during_a_copy(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Has something done, once, between the read of a record for a copy and the copy."""
    read: Any = redis.asyncio.Redis.hgetall

    def do(then: Callable[[], Awaitable[Any]]) -> None:
        waits = [then]

        async def held(client: Any, name: str) -> Any:
            found = await read(client, name)
            if waits:
                await waits.pop()()
            return found

        def hgetall(client: Any, name: str) -> Any:
            return read(client, name) if isinstance(client, Pipeline) else held(client, name)

        monkeypatch.setattr(redis.asyncio.Redis, "hgetall", hgetall)

    return do


def urls(many: Installed) -> list[bytes | None]:
    """The callback URL that each partition has."""
    return [world.call("hget", world.keys.workspace(NAME), "callback_url") for world in many.worlds]


def listed(many: Installed) -> list[bool]:
    """Whether each partition lists the workspace."""
    return [bool(world.call("sismember", world.keys.workspaces, NAME)) for world in many.worlds]


def test_two_changes(many: Installed, during_a_copy: Meanwhile) -> None:
    """Of two changes at the same time the later one is in all partitions, also where the earlier was copied last."""

    async def change(store: wiring.Store) -> None:
        async with wiring.store(many.settings) as other:
            during_a_copy(lambda: workspaces.update(other, NAME, Wanted(NEW)))
            await workspaces.update(store, NAME, Wanted(max_concurrency=7))

    many.do(change)
    assert [NEW.encode()] * 4 == urls(many)


def test_removed_during_a_copy(many: Installed, during_a_copy: Meanwhile) -> None:
    """A workspace that is removed while a change of it is copied is nowhere afterwards."""

    async def change(store: wiring.Store) -> None:
        async with wiring.store(many.settings) as other:
            during_a_copy(lambda: other.workspaces.remove(NAME, other.ledger))
            await workspaces.update(store, NAME, Wanted(NEW))

    many.do(change)
    assert [None] * 4 == urls(many)
    assert [False] * 4 == listed(many)


def test_changed_during_a_removal(many: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace that is changed when only its home still has it is nowhere after its removal."""
    forget: Any = WorkspacesAcross._forget_api_keys

    async def change_first(of: WorkspacesAcross, workspace: str, home: int) -> None:
        async with wiring.store(many.settings) as other:
            await workspaces.update(other, NAME, Wanted(NEW))
        await forget(of, workspace, home)

    async def remove(store: wiring.Store) -> None:
        await store.workspaces.remove(NAME, store.ledger)

    monkeypatch.setattr(WorkspacesAcross, "_forget_api_keys", change_first)
    many.do(remove)
    assert [None] * 4 == urls(many)
    assert [False] * 4 == listed(many)
