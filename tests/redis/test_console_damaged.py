"""One key that somebody wrote over by hand: the console's pages of all show the rest."""

import asyncio
import html
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import redis
from starlette.applications import Starlette
from structlog.testing import capture_logs

from config.settings import Settings
from dispatcher.store.sessions import EVERYBODY, Session
from tasks import wiring
from tasks.console.access import NOT_NOW, Role
from tasks.console.app import create_app, open_console
from tasks.console.ways import Ways, new_session
from tests.world import World, callback

PAGES = ("/", "/workspaces", "/endpoints", "/callbacks", "/callbacks?state=waiting", "/rejected", "/log", "/log?portal=out",
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
        for key in ("endpoints", "workspaces", "events", "rejected", "audit", "audit-portal", "alerts", "ended:acme:failed")
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


@asynccontextmanager
async def console(redis_url: str) -> AsyncIterator[tuple[Starlette, wiring.Store, int]]:
    """A console with a workspace, made a second before the time that it gives."""
    app = create_app()
    settings = Settings(_env_file=None, redis_url=redis_url)
    async with open_console(settings, Ways.of(settings)) as app.state.parts:
        store = await app.state.parts.store()
        now_ms = await store.installation.now_ms()
        await store.workspaces.add("acme", "zeckta", "https://a.example/x", now_ms=now_ms - 1000)
        yield app, store, now_ms


@pytest.mark.parametrize("damage", BY_HAND)
def test_what_is_damaged_hides_nothing_else(redis_url: str, installed: "redis.Redis", damage: str) -> None:
    """Every page is answered, and no fault is logged."""

    async def look() -> dict[str, int]:
        async with console(redis_url) as (app, store, now_ms):
            sessions = await app.state.parts.sessions()
            await store.audit.add("workspace.add", "acme")
            session = new_session("key:x", "x", Role.ADMIN, now_ms)
            cookies = {"dispatcher_console": await sessions.begin(session)}
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


@pytest.mark.parametrize(
    ("damage", "path", "status", "said", "to_customers"),
    [
        ("its dialect", "/subscription/ping", 400, "no dialect 'nobodys'", "no dialect 'nobodys'"),
        *(
            ("the type of workspaces", f"/subscription/{what}", 503, "the key dispatcher:workspaces", NOT_NOW)
            for what in ("pause", "rotate")
        ),
    ],
)
def test_what_cannot_be_done_changes_nothing_and_is_said(
    redis_url: str,
    installed: "redis.Redis",
    damage: str,
    path: str,
    status: int,
    said: str,
    to_customers: str,
) -> None:
    """In one line, and no fault is logged; customers do not read of our keys."""

    async def act() -> None:
        async with console(redis_url) as (app, _, now_ms):
            sessions = await app.state.parts.sessions()
            customer = Session("portal:acme", "acme", "customer", now_ms, now_ms + 60_000, "acme")
            cookies = {
                "dispatcher_console": await sessions.begin(new_session("key:x", "x", Role.ADMIN, now_ms)),
                "dispatcher_portal": await sessions.begin(customer),
            }
            installed.execute_command(*BY_HAND[damage])
            before = installed.hgetall("dispatcher:workspace:acme")
            of = {"base_url": "http://127.0.0.1", "headers": {"Sec-Fetch-Site": "same-origin"}}
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), cookies=cookies, **of) as client:
                for url, text in ((path, said), (f"/portal{path}", to_customers)):
                    answer = await client.post(url, data={"workspace": "acme", "subscription": "default"})
                    shown = html.unescape(re.sub(r"<[^>]*>", "", answer.text))
                    assert (status, True) == (answer.status_code, text in shown), shown
                    assert "dispatcher:" not in shown or text == said
            assert before == installed.hgetall("dispatcher:workspace:acme")

    with capture_logs() as logged:
        asyncio.run(act())
    assert not [one for one in logged if one["event"] == "console.internal_error"]


def test_an_entry_of_the_log_that_is_not_ours_is_logged_once(
    redis_url: str, installed: "redis.Redis"
) -> None:
    """The others are shown; the console's page is asked for again and again."""

    async def read() -> list[str]:
        async with wiring.store(Settings(_env_file=None, redis_url=redis_url), keep=True) as store:
            await store.audit.add("workspace.add", "acme")
            for stream in ("audit", "audit-portal"):
                installed.xadd(f"dispatcher:{stream}", {"by": "hand"}, id="9999999999999-1")
            await store.audit.latest(10)
            return [one.what for one in await store.audit.latest(10)]

    with capture_logs() as logged:
        assert ["workspace.add"] == asyncio.run(read())
    told = [one["action"] for one in logged if one["event"] == "audit.unreadable"]
    assert ["XDEL it from dispatcher:audit", "XDEL it from dispatcher:audit-portal"] == sorted(told)
