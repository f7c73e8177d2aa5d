"""Pages and counts of the console while a server of several is away: they say that something may be missing, and of whom."""

import asyncio
import gc
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from dispatcher.rules.partitions import Partitioning
from dispatcher.store.sessions import Session
from dispatcher.store.stats import HOUR_MS
from dispatcher.store.stored_callback import StoredCallback
from tasks import wiring
from tasks.console import figures
from tasks.console.access import Role
from tasks.console.app import create_app, open_console
from tasks.console.asking import Parts
from tasks.console.ways import Ways, new_session
from tests.divided import Installed, installed, two_servers

P = 4
HOMES = {f"w{n}": Partitioning(P).home(f"w{n}") for n in range(40)}
WIDE, NARROW = [name for name, home in HOMES.items() if home == 0][:2]
"""Both have their home on the first server; the wide one is also on the second, which goes away."""
GONE = next(name for name, home in HOMES.items() if home == 1)
OPERATORS = "Something may be missing here: 2 of 4 partitions did not answer (1, 3: "
CUSTOMERS = "Something may be missing here: a server of ours does not answer."
OF_ALL = ("/", "/callbacks", "/callbacks?state=waiting", "/endpoints", "/rejected", "/log", "/workspaces",
          f"/search?q={NARROW}", "/search?q=nothing")  # fmt: skip
OF_ONE = ("/callbacks", "/callbacks?state=waiting", "/endpoints", "/workspace",
          f"/subscription?workspace={WIDE}&subscription=default",
          f"/search?q=failed-{WIDE}", f"/callback?workspace={WIDE}&id=failed-{WIDE}")  # fmt: skip


@dataclass
class Pages:
    """A console in this process, and how to ask it."""

    client: httpx.AsyncClient
    parts: Parts

    async def text(self, path: str) -> str:
        """What a page says, without markup."""
        return _text((await self.client.get(path)).text)

    async def counted(self, path: str, **form: str) -> str:
        """The page of what was counted."""
        headers = {"Sec-Fetch-Site": "same-origin"}
        begun = await self.client.post(path, data=form, headers=headers)
        assert 303 == begun.status_code, begun.text
        page = begun.headers["location"].removeprefix("/portal")
        async with asyncio.timeout(20):
            while "Counting:" in (text := await self.text(page)):
                await asyncio.sleep(0.02)
        return text


def _text(page: str) -> str:
    return re.sub(r"<[^>]*>|\s+", " ", page.partition("<main")[2].partition("</main>")[0])


@asynccontextmanager
async def opened(many: Installed) -> AsyncIterator[Callable[[str], Awaitable[Pages]]]:
    """A console; gives its pages as an operator (empty name) and as a customer see them."""
    app = create_app()
    async with open_console(many.settings, Ways.of(many.settings)) as app.state.parts:
        parts: Parts = app.state.parts
        sessions, store = await parts.sessions(), await parts.store()
        now_ms = await store.installation.now_ms()
        clients = list[httpx.AsyncClient]()

        async def pages(of: str) -> Pages:
            session = new_session("key:x", "x", Role.ADMIN, now_ms)
            if of:
                session = Session(f"portal:{of}", of, "customer", now_ms, now_ms + HOUR_MS, of)
            cookies = {"dispatcher_portal" if of else "dispatcher_console": await sessions.begin(session)}
            base = f"http://127.0.0.1{'/portal' if of else ''}"
            transport = httpx.ASGITransport(app, raise_app_exceptions=True)
            clients.append(httpx.AsyncClient(transport=transport, base_url=base, cookies=cookies, timeout=60))
            return Pages(clients[-1], parts)

        yield pages
        for client in clients:
            await client.aclose()


@pytest.fixture
def many(server_program: str, tmp_path: Path) -> Iterator[tuple[Installed, Callable[[], None]]]:
    """Three workspaces with a callback each, and what ends the second server."""
    with (
        two_servers(server_program, tmp_path) as servers,
        installed([one.url for one in servers], P, allow_http=True) as found,
    ):

        async def add(store: wiring.Store) -> None:
            now_ms = await store.installation.now_ms() - 10_000
            for name, width in ((WIDE, P), (NARROW, None), (GONE, None)):
                url = f"https://{name}.example/x"
                await store.workspaces.add(name, "zeckta", url, now_ms=now_ms, width=width)

        found.do(add)
        for name in (WIDE, NARROW, GONE):
            found.failed(name, f"failed-{name}")
        yield found, servers[1].kill


def test_pages_and_counts_say_what_they_lack(many: tuple[Installed, Callable[[], None]]) -> None:
    """Operators read which partitions; customers that a server is away, if it may hold something of theirs."""
    installation, kill = many

    async def look() -> None:
        async with opened(installation) as pages:
            operator, wide, narrow = await pages(""), await pages(WIDE), await pages(NARROW)
            for path in OF_ALL:
                assert "may be missing" not in await operator.text(path), path
            kill()
            await operator.parts.watch.renew()
            for path in OF_ALL:
                assert 1 == (await operator.text(path)).count(OPERATORS), path
            for path in OF_ONE:
                text = await wide.text(path)
                assert CUSTOMERS in text, path
                assert "partition" not in text, path
                path = path.replace(WIDE, NARROW)
                assert "may be missing" not in await narrow.text(path), path
            assert OPERATORS in await operator.counted("/callbacks/replay", state="failed")
            nothing = await operator.counted("/callbacks/cancel", state="waiting", workspace=WIDE)
            assert f"Nothing matches: there is nothing to do. {OPERATORS}" in nothing
            assert CUSTOMERS in await wide.counted("/callbacks/replay", state="failed")
            assert "may be missing" not in await narrow.counted("/callbacks/replay", state="failed")

    asyncio.run(look())


def test_what_lies_in_partitions_that_answer_is_found(many: tuple[Installed, Callable[[], None]]) -> None:
    """By a search, which does not take the one thing that it finds for all there is, and on a callback's page."""
    installation, kill = many

    async def look() -> None:
        async with opened(installation) as pages:
            operator, wide, narrow = await pages(""), await pages(WIDE), await pages(NARROW)
            event = f"/callback?workspace={WIDE}&id=failed-{WIDE}"
            for one in (operator, wide):
                assert 303 == (await one.client.get(f"/search?workspace={WIDE}&q=failed-{WIDE}")).status_code
            kill()
            await operator.parts.watch.renew()
            assert f">{NARROW}</a>" in (await operator.client.get(f"/search?q={NARROW}")).text
            for who, of in ((operator, NARROW), (operator, WIDE), (wide, WIDE)):
                found = await who.client.get(f"/search?workspace={of}&q=failed-{of}")
                assert (200, True) == (found.status_code, f">failed-{of}</a>" in found.text)
            for who in (operator, wide):
                assert "as it would be sent now" in await who.text(event)
                assert "Nothing is known now of" in await who.text("/search?q=nothing")
            world = installation.of(WIDE)
            await asyncio.to_thread(world.call, "delete", world.keys.body(WIDE, f"failed-{WIDE}"))
            assert "Its body is not known now." in await wide.text(event)
            assert 303 == (await narrow.client.get(f"/search?q=failed-{NARROW}")).status_code

    asyncio.run(look())


def test_a_count_keeps_little_of_each_callback(many: tuple[Installed, Callable[[], None]]) -> None:
    """What acting needs, for a quarter of an hour: not its attempts and its answer."""
    installation, _ = many
    installation.waiting(NARROW, "waits")

    async def look() -> None:
        async with opened(installation) as pages:
            operator = await pages("")
            for path, state, said in (
                ("/callbacks/replay", "failed", "Replay 3 callbacks"),
                ("/callbacks/cancel", "waiting", "Cancel 1 callback"),
            ):
                assert said in await operator.counted(path, state=state)
                gc.collect()
                assert not [one for one in gc.get_objects() if isinstance(one, StoredCallback)]

    asyncio.run(look())


def test_a_replay_may_not_last_longer_than_callbacks_live(
    many: tuple[Installed, Callable[[], None]],
) -> None:
    """What waits takes memory for as long; and a customer, who cannot cancel, is not told to."""
    installation, _ = many
    installation.settings = installation.settings.model_copy(update={"expiry_seconds": 250})

    async def look() -> None:
        async with opened(installation) as pages:
            operator, narrow = await pages(""), await pages(NARROW)
            refused = await operator.counted("/callbacks/replay", state="failed", rate="0.01")
            assert "the last of 3 would be due in 5 min, and 4 min 10 s are allowed" in refused
            assert "give a pace of 0.02 or more" in refused
            taken = await operator.counted("/callbacks/replay", state="failed", rate="0.02")
            assert "the last in 2 min 30 s: cancelling what waits ends that." in taken
            customers = await narrow.counted("/callbacks/replay", state="failed", rate="0.01")
            assert "the last in 1 min 40 s." in customers

    asyncio.run(look())


def test_two_who_ask_at_once_are_told_of_their_own(many: tuple[Installed, Callable[[], None]]) -> None:
    """Also while the reading that all share begins anew."""
    installation, kill = many

    async def look() -> None:
        async with opened(installation) as pages:
            operator, narrow = await pages(""), await pages(NARROW)
            kill()
            for _ in range(20):
                await operator.parts.watch.renew()
                of_all, of_one = await asyncio.gather(operator.text("/rejected"), narrow.text("/endpoints"))
                assert OPERATORS in of_all
                assert "may be missing" not in of_one

    asyncio.run(look())


def test_an_hour_read_without_a_partition_is_read_again(
    many: tuple[Installed, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is over is remembered for a day only if all its partitions answered."""
    installation, kill = many
    monkeypatch.setattr(figures, "CURRENT_SECONDS", 0.0)

    async def look() -> None:
        async with wiring.store(installation.settings) as store:

            async def opened_store() -> wiring.Store:
                return store

            hours = figures.HourFigures(opened_store)
            later = await store.installation.now_ms() + 10 * HOUR_MS
            kill()
            await hours.of_workspace(WIDE, later, 3)
            assert all(hours._known(WIDE, later // HOUR_MS - ago) is None for ago in range(3))
            await hours.of_workspace(NARROW, later, 3)
            assert hours._known(NARROW, later // HOUR_MS - 2) is not None

    asyncio.run(look())
