"""What pages may read of Redis: counted in commands, with few callbacks and with five times as many."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
import redis

from bench.console import asked
from bench.console_fill import Filled, Size, fill
from bench.report import Progress
from config.settings import Settings
from dispatcher.store.archive.ends import LOOK
from tasks.console import figures, watch
from tasks.console.access import Role
from tasks.console.app import create_app, open_console
from tasks.console.asking import Parts
from tasks.console.pages.callbacks import MOST_LOOKS
from tasks.console.ways import Ways, new_session
from tasks.redis_server import RedisServer
from tests.console.world import run_apart

FEW, MANY = Size(18_000, 300, 30), Size(90_000, 300, 30)
BUDGET = 300
"""Commands of Redis that a page may send: of 60 callbacks' endpoints and places, or of a week's counters, or of 30 workspaces' lists."""
LOOKING = MOST_LOOKS * LOOK + BUDGET
"""The same of a page that looks for what there is not: it looks at so many callbacks, each of another endpoint, and then says so."""
FORGOTTEN = ("config", "info", "hello", "client", "auth")
"""Commands that are not a page's."""


@dataclass
class Opened:
    """A console in this process, on a Redis with so many callbacks."""

    filled: Filled
    client: httpx.AsyncClient
    parts: Parts
    redis: "redis.Redis"

    async def commands(self, path: str) -> Counter[str]:
        """What a page sends to Redis."""
        self.redis.config_resetstat()
        answer = await self.client.get(path)
        assert answer.status_code in (200, 303), (path, answer.text)
        stats: Mapping[str, Mapping[str, int]] = self.redis.info("commandstats")
        found = Counter({name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()})
        return Counter(
            {name: count for name, count in found.items() if name.partition("|")[0] not in FORGOTTEN}
        )


@asynccontextmanager
async def opened(url: str, size: Size) -> AsyncIterator[Opened]:
    """The console, and a session of an admin."""
    settings = Settings(redis_url=url, allow_http=True)
    app = create_app()
    async with open_console(settings, Ways.of(settings)) as app.state.parts:
        parts: Parts = app.state.parts
        store = await parts.store()
        for number in range(size.workspaces):
            await store.workspaces.add(f"customer{number}", "zeckta", "https://a.example", now_ms=1)
        with redis.Redis.from_url(url) as plain:
            filled = fill(plain, size, Progress(2))
            session = new_session("key:x", "x", Role.ADMIN, await store.installation.now_ms())
            text = await (await parts.sessions()).begin(session)
            cookies = {"dispatcher_console": text}
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1", cookies=cookies
            ) as client:
                yield Opened(filled, client, parts, plain)


@pytest.fixture(scope="module")
def costs(
    server_program: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[dict[str, Counter[str]]]]:
    """The commands of each page, with few callbacks and with many."""

    async def measure(url: str, size: Size) -> dict[str, Counter[str]]:
        async with opened(url, size) as console:
            await console.parts.watch.latest()
            while "are missing yet" in (await console.client.get("/?span=week")).text:
                await asyncio.sleep(0.05)
            paths = {
                name: path for name, path in asked(console.filled, "/work").items() if path != "/live/events"
            }
            return {name: await console.commands(path) for name, path in paths.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "FRESH_SECONDS", 3600.0)  # pages are counted, not snapshots
        patch.setattr(watch, "STALE_SECONDS", 3600.0)
        patch.setattr(figures, "CURRENT_SECONDS", 3600.0)
        found = []
        for size in (FEW, MANY):
            with RedisServer(tmp_path_factory.mktemp("costs"), executable=server_program) as server:
                found.append(run_apart(measure(server.url, size)))
        yield found


def budget(name: str) -> int:
    """How many commands a page may send."""
    return LOOKING if "none" in name else BUDGET


def test_each_page_keeps_to_its_budget(costs: list[dict[str, Counter[str]]]) -> None:
    """No page sends more commands to Redis than it may."""
    for of in costs:
        over = {name: found for name, found in of.items() if found.total() > budget(name)}
        assert not over, over


def test_five_times_as_many_callbacks_cost_no_more(costs: list[dict[str, Counter[str]]]) -> None:
    """What a page sends does not grow with callbacks: only a page that looks for what there is not looks on, to its bound."""
    few, many = costs
    grown = {name: (few[name], many[name]) for name in few if many[name].total() > few[name].total() + 20}
    assert not {name: of for name, of in grown.items() if "none" not in name}


def test_a_snapshot_costs_by_endpoints_alone(
    server_program: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It is read once for all who ask at the same time, with a command for each endpoint and two more where something waits, however many callbacks there are."""

    async def read(url: str, size: Size) -> int:
        async with opened(url, size) as console:
            console.redis.config_resetstat()
            await asyncio.gather(*(console.parts.watch.latest() for _ in range(20)))
            stats: Mapping[str, Mapping[str, int]] = console.redis.info("commandstats")
            return sum(one["calls"] for name, one in stats.items())

    found = []
    for size in (FEW, MANY):
        with RedisServer(tmp_path_factory.mktemp("snapshot"), executable=server_program) as server:
            found.append(run_apart(read(server.url, size)))
    assert all(FEW.endpoints < one < FEW.endpoints + FEW.workspaces + 120 for one in found), found
    assert abs(found[1] - found[0]) < 10, found
