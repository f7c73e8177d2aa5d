"""An installation of several partitions on real servers, and the same on one: driven by tests."""

import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from config.settings import Settings
from dispatcher.rules.outcomes import Failed, Retry
from dispatcher.rules.partitions import Partitioning
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import keys_of
from dispatcher.store.wire import Wire
from tasks import wiring
from tasks.redis_server import RedisServer
from tests.world import TOKEN, World, callback


class Installed:
    """An installation; `worlds` are its partitions, each with a ledger of its own and the same clock."""

    def __init__(self, urls: Sequence[str], partitions: int, **settings: Any) -> None:
        given = {"redis_url": " ".join(urls), "broker_url": urls[0], "partitions": partitions, **settings}
        self.settings = Settings(_env_file=None, **given)
        self.partitioning = Partitioning(partitions)
        self.now = round(time.time() * 1000) - 1000
        self.worlds: list[World] = []
        for number, keys in enumerate(keys_of("dispatcher", partitions)):
            client = connect_async(urls[number % len(urls)])
            world = World(client, Wire(client), keys=keys)
            world.now = self.now
            world.lead()
            self.worlds.append(world)

    def of(self, workspace: str) -> World:
        """The home partition of a workspace."""
        return self.worlds[self.partitioning.home(workspace)]

    def do(self, action: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """The result of an action on the whole installation's store."""

        async def act() -> Any:
            async with wiring.store(self.settings, keep=True) as store:
                return await action(store, *args, **kwargs)

        return self.worlds[0].run(act())

    def failed(self, workspace: str, *event_ids: str) -> None:
        """Accepts callbacks that end as failed, each a second after the one before."""
        for event_id in event_ids:
            world, endpoint = self._accepted(workspace, event_id)
            (one,) = world.claim(endpoint).callbacks
            world.settle(event_id, one.claim, Failed(), endpoint=endpoint, error="http_500")

    def delivered(self, workspace: str, *event_ids: str) -> None:
        """Accepts callbacks, and delivers them."""
        for event_id in event_ids:
            world, endpoint = self._accepted(workspace, event_id)
            world.deliver_all(endpoint)

    def waiting(self, workspace: str, *event_ids: str) -> None:
        """Accepts callbacks whose next attempt is in an hour."""
        for event_id in event_ids:
            world, endpoint = self._accepted(workspace, event_id)
            (one,) = world.claim(endpoint).callbacks
            world.settle(event_id, one.claim, Retry(3_600_000), endpoint=endpoint, error="http_500")

    def rejected(self, workspace: str, event_id: str, reason: str = "invalid") -> None:
        """Rejects an entry of the queue."""
        self._pass()
        world = self.of(workspace)
        [entry] = world.enqueued(1)
        world.run(world.ledger.reject(TOKEN, [(entry, reason, "why", workspace, event_id)]))

    def _accepted(self, workspace: str, event_id: str) -> tuple[World, str]:
        self._pass()
        world, endpoint = self.of(workspace), f"{workspace} https://{workspace}.example:443"
        world.accept(callback(event_id, endpoint=endpoint, message=f"of-{event_id}", timestamp_ms=world.now))
        return world, endpoint

    def _pass(self) -> None:
        self.now += 10
        for world in self.worlds:
            world.now = self.now

    def close(self) -> None:
        """Closes all clients."""
        for world in self.worlds:
            world.close()


@contextmanager
def installed(urls: Sequence[str], partitions: int, **settings: Any) -> Iterator[Installed]:
    """An installation, closed at the end."""
    found = Installed(urls, partitions, **settings)
    try:
        yield found
    finally:
        found.close()


End = Callable[[RedisServer], None]


def stop(server: RedisServer) -> None:
    """It keeps its connections, and does not answer any more."""
    assert server._process
    os.kill(server._process.pid, signal.SIGSTOP)


def kill(server: RedisServer) -> None:
    """It is gone."""
    server.kill()


@contextmanager
def two_servers(program: str, folder: Path) -> Iterator[list[RedisServer]]:
    """Two servers, which may be stopped or killed."""
    folders = folder / "one", folder / "two"
    for one in folders:
        one.mkdir()
    started = [RedisServer(one, executable=program) for one in folders]
    try:
        for server in started:
            server.start()
        yield started
    finally:
        for server in started:
            server.kill()
