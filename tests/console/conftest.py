"""One small installation with a console for all tests of this folder, and a browser."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from tests.acceptance.stack import Stack, running_stack, wait_until
from tests.console.hostile import Hostile, hostile_world
from tests.console.world import ConsoleProcess, Watched, console, key_for, session

CHROMIUM = "/usr/bin/chromium"


@dataclass
class World:
    """The installation, and how to get in."""

    stack: Stack
    console: ConsoleProcess
    keys: dict[str, str]
    """Console keys by role."""
    delivered: list[str]
    """eventIds of acme."""
    failed: list[str]
    """eventIds of acme that were given up: its endpoint says no."""
    waiting: list[str] = field(default_factory=list)
    """eventIds of globex, whose endpoint refuses connections."""

    @property
    def url(self) -> str:
        """The console's."""
        return self.console.url

    def cookie(self, role: str) -> str:
        """A session of that role, as a Cookie header."""
        return session(self.url, self.keys[role])


async def _answer(request: web.Request, number: int) -> web.Response:
    if "no" in request.path:
        return web.Response(
            status=404, text="<script>alert(1)</script> no such hook \N{BULLET} +393331234567"
        )
    return web.Response(text="ok")


@pytest.fixture(scope="session")
def world(server_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two workspaces: acme, whose subscription `no` refuses everything; globex, which cannot be reached."""
    with running_stack(tmp_path_factory.mktemp("console")) as stack:
        stack.answer = _answer
        stack.add_workspace("acme")
        made = stack.cli_json("subscription", "add", "acme", "no", "--callback-url", f"{stack.listen()}/no")
        stack.secrets["acme.no"] = made["secret"]
        stack.add_workspace("globex", url=stack.refusing_url())
        stack.start_worker()
        delivered = stack.enqueue(12)
        waiting = stack.enqueue(5, first=100, workspace="globex")
        stack.redis.xadd("dispatcher:events", {"event": b'{"workspace": "nobody", "status": "<b>x</b>"}'})
        stack.wait_ended(delivered)
        failed = [f"{one}.no" for one in delivered]
        stack.wait_ended(failed)
        wait_until(lambda: stack.redis.xlen("dispatcher:rejected") == 1, 20, "one entry was rejected")
        keys = {role: key_for(stack, role) for role in ("viewer", "operator", "admin")}
        with console(stack, "--link") as found:
            yield World(stack, found, keys, delivered, failed, waiting)


@pytest.fixture(scope="session")
def hostile(server_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    """An installation of its own, in which everything that comes from outside is hostile."""
    with hostile_world(tmp_path_factory.mktemp("hostile")) as found:
        yield found


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """Debian's Chromium: without it, skip at home, fail in CI."""
    if not Path(CHROMIUM).exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            f"no {CHROMIUM}: apt-get install chromium (.ci/run does where it can)"
        )
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=20_000)  # in place of 5 s: CI's two cores have other tests to run
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium: object, world: World) -> Iterator["Visits"]:
    """Opens pages; at the end fails if a page had an error in its console or broke its security policy."""
    visits = Visits(chromium, world)
    yield visits
    visits.close()


@pytest.fixture
def target(chromium: object, hostile: Hostile) -> Iterator["Visits"]:
    """As `browser`, of the hostile installation."""
    visits = Visits(chromium, hostile)
    yield visits
    visits.close()


class Visits:
    """Contexts of one test, each a browser of its own."""

    def __init__(self, chromium: object, world: World | Hostile) -> None:
        self._chromium = chromium
        self._world = world
        self.open: list[Watched] = []

    def new(self, **options: object) -> Watched:
        """A page in a fresh browser, logged out."""
        context = self._chromium.new_context(**options)  # type: ignore[attr-defined]
        watched = Watched(context)
        self.open.append(watched)
        return watched

    def as_(self, role: str, **options: object) -> Watched:
        """A page in a fresh browser of somebody with a role, on the overview."""
        watched = self.new(**options)
        page = watched.page
        page.goto(f"{self._world.url}/login")
        page.get_by_label("Key").fill(self._world.keys[role])
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"{self._world.url}/")
        return watched

    def close(self) -> None:
        """Ends all, and fails for what was wrong."""
        for watched in self.open:
            watched.page.context.close()
        for watched in self.open:
            watched.check()
