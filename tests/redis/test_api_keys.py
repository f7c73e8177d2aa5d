"""API keys on a real server: none outlives its workspace, whatever happens at the same time."""

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import typer

from dispatcher.errors import NotFound
from dispatcher.store.api_keys import PRODUCERS, ApiKeys
from dispatcher.store.sealing import SecretBox
from dispatcher.store.wire import Call, Wire
from dispatcher.store.workspaces import Workspaces
from tasks.commands.api_key import of_workspaces
from tests.world import World


@pytest.fixture
def call(world: World) -> Iterator[Call]:
    """What sends commands to the world's Redis; there is a workspace `acme`."""
    wire = Wire(world.client)
    world.run(Workspaces(world.client, world.keys, SecretBox()).add("acme", "zeckta", now_ms=1))
    yield wire.call
    world.run(wire.close())


async def add(call: Call, world: World, workspace: str = "acme") -> None:
    """Adds a key."""
    await ApiKeys(call, world.keys).add(workspace, "zeckta", "k", now_ms=1, rate_per_second=5)


def left(world: World) -> list[bytes]:
    """What there is of API keys."""
    return list(world.call("keys", "*api-key*"))


@pytest.mark.parametrize("step", range(6))
def test_a_workspace_is_removed_while_a_key_is_added(world: World, call: Call, step: int) -> None:
    """Wherever the workspace is removed in between, nothing is left of the key."""
    asked = 0
    workspaces = Workspaces(world.client, world.keys, SecretBox())

    async def interrupted(*command: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == step + 1:
            await workspaces.remove("acme", world.ledger)
        return await call(*command)

    async def work() -> None:
        try:
            await add(interrupted, world)
        except NotFound:
            return
        assert asked <= step
        await workspaces.remove("acme", world.ledger)

    world.run(work())
    assert [] == left(world)


class Interrupted:
    """A client that does something else within its first transaction, before that is executed."""

    def __init__(self, client: Any, what: Callable[[], Awaitable[None]]) -> None:
        self._client, self._what = client, what
        self.runs = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def transaction(self, change: Callable[[Any], Awaitable[None]], *watched: str) -> Any:
        """As redis-py's."""

        async def interrupted(pipe: Any) -> None:
            await change(pipe)
            self.runs += 1
            if self.runs == 1:
                await self._what()

        return await self._client.transaction(interrupted, *watched)


def test_a_key_is_added_while_a_workspace_is_removed(world: World, call: Call) -> None:
    """A key that is added in the middle of a removal is removed as well."""
    client = Interrupted(world.client, lambda: add(call, world))
    workspaces = Workspaces(client, world.keys, SecretBox())  # type: ignore[arg-type]
    world.run(workspaces.remove("acme", world.ledger))
    assert (2, []) == (client.runs, left(world))


def test_a_key_of_producers_needs_no_workspace(world: World, call: Call) -> None:
    """Backends' keys belong to all workspaces."""
    world.run(add(call, world, PRODUCERS))
    assert 2 == len(left(world))


def test_a_rate_of_nothing(world: World, call: Call, redis_url: str) -> None:
    """The command refuses a rate of no calls; it does not take it for the default."""
    command = "workspace", "api-key", "add", "acme", "--rate-per-second", "0"
    ended = subprocess.run(
        [sys.executable, "-m", "dispatcher", *command],
        env=os.environ | {"DISPATCHER_REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (2, True) == (ended.returncode, "a second, not 0" in " ".join(ended.stderr.split()))
    assert [] == left(world)


@pytest.mark.parametrize("command", ["add", "list", "revoke"])
def test_all_workspaces_is_no_workspace(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`workspace api-key` never makes, shows or revokes a key of producers."""
    more = ["key_000000000000"] if command == "revoke" else []
    asked = [command, PRODUCERS, *more]
    assert 1 == typer.main.get_command(of_workspaces).main(asked, standalone_mode=False)
    assert "there is no workspace '*'" in capsys.readouterr().err
