"""The live tail: rows without a reload, across broken streams and the end of a session, and without a script."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.stack import wait_until
from tests.console.acting import Scene, acting_scene
from tests.console.conftest import Visits
from tests.console.world import ask
from tests.freezing import freeze

LIVE = "Live: attempts appear"


@pytest.fixture(scope="module")
def scene(server_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A console whose streams are cut after a few seconds."""
    with acting_scene(tmp_path_factory.mktemp("live"), DISPATCHER_API_REQUEST_SECONDS="5") as found:
        yield found


@pytest.fixture
def visits(chromium: object, scene: Scene) -> Iterator[Visits]:
    """Browsers for that console."""
    found = Visits(chromium, scene)
    yield found
    found.close()


def opened(scene: Scene, page: Page, query: str = "") -> None:
    """Opens the page, and waits until it is connected."""
    page.goto(f"{scene.url}/live{query}")
    expect(page.locator("[data-live-state]")).to_contain_text(LIVE, timeout=20_000)


def shown(page: Page) -> list[str]:
    """The eventIds of the rows, newest first."""
    return page.locator("tbody tr td.id a").all_inner_texts()


def test_rows_appear_as_attempts_are_made(scene: Scene, visits: Visits) -> None:
    """Without a reload, newest first; one that follows a row of the page goes to the callback's story."""
    page = visits.as_("operator").page
    opened(scene, page)
    (first,) = scene.stack.enqueue(1)
    expect(page.get_by_role("link", name=first)).to_be_visible(timeout=20_000)
    (second,) = scene.stack.enqueue(1, first=1)
    expect(page.get_by_role("link", name=second)).to_be_visible(timeout=20_000)
    assert [second, first] == shown(page)[:2]
    page.get_by_role("link", name=first).click()
    expect(page.locator("h1")).to_have_text(f"Callback {first}")


def test_it_says_live_once_all_workers_publish(chromium: object, server_program: str, tmp_path: Path) -> None:
    """A worker that looks seldom whether somebody watches: what is attempted after "Live" is seen, the first one too."""
    with acting_scene(tmp_path, DISPATCHER_WAKE_SECONDS="3") as scene:
        scene.stack.workers[0].wait_ready()
        scene.stack.wait_ended(scene.stack.enqueue(1))
        visits = Visits(chromium, scene)
        try:
            page = visits.as_("operator").page
            worker = scene.stack.workers[0].process
            freeze(worker.pid)
            page.goto(f"{scene.url}/live")
            expect(page.locator("[data-live-state]")).to_contain_text("Not live yet", timeout=10_000)
            worker.send_signal(signal.SIGCONT)
            expect(page.locator("[data-live-state]")).to_contain_text(LIVE, timeout=20_000)
            (first,) = scene.stack.enqueue(1, first=1)
            expect(page.get_by_role("link", name=first)).to_be_visible(timeout=20_000)
        finally:
            visits.close()


@pytest.mark.parametrize("seconds", ["120", "5"])
def test_the_page_says_when_it_is_not_live(
    chromium: object, server_program: str, tmp_path: Path, seconds: str
) -> None:
    """Redis goes and comes back: the page says both, also if its stream ends meanwhile; what is attempted then is shown."""
    with acting_scene(tmp_path, DISPATCHER_API_REQUEST_SECONDS=seconds) as scene:
        visits = Visits(chromium, scene)
        try:
            watched = visits.as_("operator")
            watched.expected += ["503", "net::ERR_"]
            page = watched.page
            opened(scene, page)
            scene.stack.server.stop()
            gone = "Redis does not answer" if seconds == "120" else "Not connected: trying again."
            expect(page.locator("[data-live-state]")).to_contain_text(gone, timeout=20_000)
            page.wait_for_timeout(2000)
            scene.stack.server.start()
            expect(page.locator("[data-live-state]")).to_contain_text(LIVE, timeout=30_000)
            (first,) = scene.stack.enqueue(1)
            expect(page.get_by_role("link", name=first)).to_be_visible(timeout=20_000)
        finally:
            visits.close()


def test_the_filter_leaves_out_what_does_not_match(scene: Scene, visits: Visits) -> None:
    page = visits.as_("operator").page
    opened(scene, page, "?workspace=globex&failed=1")
    scene.stack.wait_ended(scene.stack.enqueue(2, first=10))
    scene.stack.wait_ended(scene.stack.enqueue(2, first=20, workspace="globex"), "globex")
    (failed,) = scene.failing("globex", 1, first=30)
    expect(page.get_by_role("link", name=failed).first).to_be_visible(timeout=20_000)
    assert {failed} == set(shown(page))


def test_no_row_is_lost_or_doubled_when_the_stream_is_cut(scene: Scene, visits: Visits) -> None:
    """The server ends each stream after a while; the browser goes on behind the last row that it had."""
    page = visits.as_("operator").page
    opened(scene, page)
    before = len(shown(page))
    streams = list[str]()
    page.on("request", lambda request: "/live/events" in request.url and streams.append(request.url))
    sent = list[str]()
    number = 100
    while len(streams) < 3:
        sent += scene.stack.enqueue(5, first=number)
        number += 5
        scene.stack.wait_ended(sent[-5:])
        page.wait_for_timeout(100)
    expect(page.get_by_role("link", name=sent[-1])).to_be_visible(timeout=20_000)
    wait_until(
        lambda: page.wait_for_timeout(50) or len(shown(page)) >= min(200, before + len(sent)), 20, "all"
    )
    rows = [one for one in shown(page) if one in sent]
    assert sorted(sent[-150:]) == sorted(rows[:150])


def test_what_was_made_between_the_page_and_its_stream_is_shown(scene: Scene, visits: Visits) -> None:
    """The page names the last attempt that it shows, and the stream begins behind it."""
    page = visits.as_("operator").page
    opened(scene, page)
    held: list[list[str]] = []

    def slow(route: object) -> None:
        held.append(scene.stack.enqueue(1, first=900))
        scene.stack.wait_ended(held[-1])
        page.wait_for_timeout(500)
        route.continue_()  # type: ignore[attr-defined]

    page.route(re.compile("/live/events"), slow, times=1)
    page.goto(f"{scene.url}/live")
    wait_until(lambda: page.wait_for_timeout(50) or held, 20, "the stream was asked for")
    expect(page.get_by_role("link", name=held[0][0])).to_be_visible(timeout=20_000)
    assert 1 == shown(page).count(held[0][0])


def test_the_end_of_a_session_is_said(scene: Scene, visits: Visits) -> None:
    """Logged out everywhere: when the stream is opened again, it says so."""
    watched = visits.as_("second")
    watched.expected.append("401")
    opened(scene, watched.page)
    assert 303 == ask("POST", f"{scene.url}/logout", {"everywhere": "1"}, Cookie=scene.cookie("second"))[0]
    expect(watched.page.locator("[data-live-state]")).to_have_text(
        "Your session is over: log in again, by loading this page.", timeout=30_000
    )
    watched.page.reload()
    expect(watched.page.locator("h1")).to_have_text("Log in")


@pytest.mark.parametrize("status", [200, 303, 403, 404])
def test_a_proxys_log_in_in_place_of_the_stream(scene: Scene, visits: Visits, status: int) -> None:
    """A session that a proxy in front has ended is over too; and no answer has the page ask again and again."""
    watched = visits.as_("operator")
    watched.expected += ["403", "404", "MIME type"]
    asked: list[str] = []

    def instead(route: Any) -> None:
        asked.append(route.request.url)
        headers = {"Location": f"{scene.url}/login"} if status == 303 else {}
        route.fulfill(status=status, headers=headers, content_type="text/html", body="<p>log in")

    watched.page.route(re.compile("/live/events"), instead)
    watched.page.goto(f"{scene.url}/live")
    says = "Not connected: trying again." if status == 404 else "Your session is over"
    expect(watched.page.locator("[data-live-state]")).to_contain_text(says)
    watched.page.wait_for_timeout(4000)
    assert len(asked) <= 4, asked


def test_the_page_renews_itself_without_a_script(scene: Scene, visits: Visits) -> None:
    opened(scene, visits.as_("viewer").page)  # from now on workers publish
    page = visits.as_("operator", java_script_enabled=False).page
    page.goto(f"{scene.url}/live")
    (sent,) = scene.stack.enqueue(1, first=950)
    expect(page.get_by_role("link", name=sent)).to_be_visible(timeout=30_000)
