"""One key that somebody wrote over by hand: the console's pages of all show the rest."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis
from structlog.testing import capture_logs

from config.settings import Settings
from dispatcher.store.sessions import EVERYBODY
from tasks import wiring
from tasks.console.access import Role
from tasks.console.app import create_app, open_console
from tasks.console.asking import Parts
from tasks.console.ways import Ways, new_session
from tests.world import World, callback

PAGES = ("/", "/workspaces", "/endpoints", "/callbacks", "/callbacks?state=waiting", "/rejected", "/log",
         "/workspace?id=acme", "/subscription?workspace=acme&subscription=default", "/callback?workspace=acme&id=e1")  # fmt: skip
BY_HAND: dict[str, list[Any]] = {
    "a member of endpoints": ["ZADD", "dispatcher:endpoints", 1, b"\xff"],
    "a member of workspaces": ["SADD", "dispatcher:workspaces", b"\xff"],
    "a member of expiries": ["ZADD", "dispatcher:expiries", "inf", b"\xff"],
    "a name of a worker": ["ZADD", "dispatcher:workers", 10**15, b"\xff"],
    "an entry of the log": ["XADD", "dispatcher:audit", "*", b"\xff", "x"],
    "facts of the log": ["XADD", "dispatcher:audit", "*", *["via", "a", "who", "b", "what", "c", "workspace", "acme", "from", "x", "to", "x"]],
    "when a workspace was made": ["HSET", "dispatcher:workspace:acme", "created", "9" * 20],
    "its dialect": ["HSET", "dispatcher:workspace:acme", "dialect", "nobodys"],
    "who logged out": ["SET", f"dispatcher:logged-out:{EVERYBODY}", "x"],
    **{
        f"the type of {key}": ["EVAL", "redis.call('DEL', KEYS[1]) redis.call('HSET', KEYS[1], 'a', 'b')", 1, f"dispatcher:{key}"]
        for key in ("endpoints", "workspaces", "events", "rejected", "audit", "ended:acme:failed")
    },
    "the type of rejected-counts": ["SET", "dispatcher:rejected-counts", "x"],
}  # fmt: skip


@pytest.fixture
def installed(redis_url: str, world: World) -> Iterator["redis.Redis"]:
    """A workspace with a callback that waits; emptied at the end."""
    world.accept(callback("e1", endpoint="acme https://a.example:443"))
    with redis.Redis.from_url(redis_url) as plain:
        yield plain
        plain.flushall()


@pytest.mark.parametrize("damage", BY_HAND)
def test_what_is_damaged_hides_nothing_else(redis_url: str, installed: "redis.Redis", damage: str) -> None:
    """Every page is answered, and no fault is logged."""

    async def look() -> dict[str, int]:
        app = create_app()
        settings = Settings(_env_file=None, redis_url=redis_url)
        async with open_console(settings, Ways.of(settings)) as app.state.parts:
            parts: Parts = app.state.parts
            store = await parts.store()
            now_ms = await store.installation.now_ms()
            await store.workspaces.add("acme", "zeckta", "https://a.example/x", now_ms=now_ms - 1000)
            await store.audit.add("workspace.add", "acme")
            session = new_session("key:x", "x", Role.ADMIN, now_ms)
            cookies = {"dispatcher_console": await (await parts.sessions()).begin(session)}
            installed.execute_command(*BY_HAND[damage])
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1", cookies=cookies
            ) as client:
                return {path: (await client.get(path)).status_code for path in PAGES}

    with capture_logs() as logged:
        found = asyncio.run(look())
    assert not [one for one in logged if one["event"] == "console.internal_error"]
    assert dict.fromkeys(PAGES, 200) == found


def test_an_entry_of_the_log_that_is_not_ours_is_logged_once(
    redis_url: str, installed: "redis.Redis"
) -> None:
    """The others are shown; the console's page is asked for again and again."""

    async def read() -> list[str]:
        async with wiring.store(Settings(_env_file=None, redis_url=redis_url), keep=True) as store:
            await store.audit.add("workspace.add", "acme")
            installed.xadd("dispatcher:audit", {"by": "hand"})
            await store.audit.latest(10)
            return [one.what for one in await store.audit.latest(10)]

    with capture_logs() as logged:
        assert ["workspace.add"] == asyncio.run(read())
    assert 1 == sum(one["event"] == "audit.unreadable" for one in logged)
