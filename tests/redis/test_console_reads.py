"""What the console's processes read for all viewers together: when it is read again, and where Redis does not answer."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest
from starlette.types import ASGIApp, Message

from config.settings import Settings
from dispatcher.errors import InvalidInput, RedisUnavailable
from dispatcher.store.stats import HOUR_MS, Figures
from tasks import wiring
from tasks.actions.events import Filter
from tasks.console.access import Role
from tasks.console.app import create_app, open_console
from tasks.console.asking import Parts
from tasks.console.figures import HourFigures
from tasks.console.live import MOST_STREAMS
from tasks.console.opened import Opened
from tasks.console.pages import callbacks
from tasks.console.watch import Watch
from tasks.console.ways import Ways, new_session


def watching(redis_url: str, of: Callable[[Watch, "Gate"], Coroutine[Any, Any, None]]) -> None:
    """Runs a test with a watch whose readings wait at a gate."""

    async def run() -> None:
        async with wiring.store(Settings(_env_file=None, redis_url=redis_url)) as store:
            gate = Gate(store)
            watch = Watch(gate)
            await of(watch, gate)
            await watch.close()

    asyncio.run(run())


class Gate:
    """Gives the store to one reading after the other, while it is open."""

    def __init__(self, store: wiring.Store) -> None:
        self.store = store
        self.asked = 0
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def __call__(self) -> wiring.Store:
        """The store."""
        self.asked += 1
        await self.is_open.wait()
        return self.store


def test_what_was_done_to_all_is_read_before_it_is_shown(redis_url: str) -> None:
    """Also where a reading was under way, which may have what was before."""

    async def of(watch: Watch, gate: Gate) -> None:
        await watch.latest()
        await watch.latest()
        assert 1 == gate.asked
        await watch.renew()
        before = await watch.latest()
        assert 2 == gate.asked
        await watch.renew()
        gate.is_open.clear()
        looking = asyncio.create_task(watch.latest())
        while gate.asked < 3:
            await asyncio.sleep(0)
        await watch.renew()
        gate.is_open.set()
        assert (await looking).at_ms >= before.at_ms
        assert 4 == gate.asked
        await watch.latest()
        assert 4 == gate.asked

    watching(redis_url, of)


class Silent:
    """A server that takes connections and says nothing."""

    def __init__(self) -> None:
        self.taken = 0
        self._held: list[asyncio.StreamWriter] = []

    async def take(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Counts a connection."""
        self.taken += 1
        self._held.append(writer)

    def close(self) -> None:
        """Closes them."""
        for writer in self._held:
            writer.close()


def test_all_wait_for_the_same_attempt_to_open(redis_url: str) -> None:
    """While Redis says nothing, the tenth page fails as soon as the first."""

    async def run() -> tuple[list[object], int]:
        silent = Silent()
        server = await asyncio.start_server(silent.take, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with AsyncExitStack() as closing:
            opened = Opened(Settings(_env_file=None, redis_url=f"redis://127.0.0.1:{port}"), closing)
            asked: list[Awaitable[object]] = [opened.store() for _ in range(10)]
            said: list[object] = await asyncio.gather(*asked, return_exceptions=True)
            await opened.close()
        silent.close()
        server.close()
        return said, silent.taken

    said, taken = asyncio.run(run())
    assert {RedisUnavailable} == {type(one) for one in said}
    assert taken < 10


def test_more_hours_than_are_remembered() -> None:
    """None is shown as if nothing had happened in it."""

    class Stats:
        async def workspace(self, _: str, at_ms: int, __: int) -> Figures:
            return Figures(Counter(accepted=at_ms // HOUR_MS))

    class Store:
        stats = Stats()

    async def store() -> Any:
        return Store()

    now_ms = round(time.time() * 1000)
    found = asyncio.run(HourFigures(store).of_workspace("acme", now_ms, 4500))
    last = now_ms // HOUR_MS
    assert [*range(last - 4499, last + 1)] == [one.counts["accepted"] for one in found]


@pytest.mark.parametrize(
    ("count", "workspace", "is_refused"), [(200, None, False), (201, None, True), (201, "a", False)]
)
def test_a_message_is_not_looked_for_in_thousands_of_workspaces(
    count: int, workspace: str | None, is_refused: bool
) -> None:
    """Each would be asked for itself."""

    class Workspaces:
        async def names(self) -> list[str]:
            return ["a"] * count

    class Store:
        workspaces = Workspaces()

    looking = callbacks._require_few(Store(), Filter("", workspace, message="m-1"))  # type: ignore[arg-type]
    if is_refused:
        with pytest.raises(InvalidInput, match="there are 201 workspaces: name the message's"):
            asyncio.run(looking)
    else:
        asyncio.run(looking)


def test_live_pages_that_are_opened_at_once_are_counted_too(redis_url: str) -> None:
    """Each before its stream begins; once they have gone, others may be opened."""

    async def look() -> None:
        settings = Settings(_env_file=None, redis_url=redis_url)
        app = create_app()
        async with open_console(settings, Ways.of(settings)) as app.state.parts:
            parts: Parts = app.state.parts
            sessions = await parts.sessions()
            session = new_session("key:x", "x", Role.VIEWER, await sessions.now_ms())
            cookie = f"dispatcher_console={await sessions.begin(session)}"
            for _ in range(2):
                together = asyncio.Barrier(MOST_STREAMS + 4)
                opened = [_open(app, cookie, together) for _ in range(together.parties)]
                assert {200: MOST_STREAMS, 429: 4} == Counter(await asyncio.gather(*opened))

    asyncio.run(look())


async def _open(app: ASGIApp, cookie: str, together: asyncio.Barrier) -> int:
    """Asks for live attempts, and goes once all others have their answers too; its status."""
    path, gone, statuses = "/live/events", asyncio.Event(), list[int]()
    headers = [(b"host", b"127.0.0.1"), (b"cookie", cookie.encode())]
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
             "headers": headers, "http_version": "1.1", "scheme": "http"}  # fmt: skip

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
            await together.wait()
            gone.set()

    await app(scope, receive, send)
    return statuses[0]
