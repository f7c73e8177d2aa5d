"""Reading: without a script, on a narrow screen, by the keyboard, in the viewer's zone, and copying."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from datetime import datetime

import pytest
from playwright.sync_api import Page, expect

from tasks.give_way import SLICE_NS
from tests.console.acting import Scene, acting_scene, confirmed, counted
from tests.console.conftest import Visits

LONG = "x" * 300


@pytest.fixture(scope="module")
def scene(server_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """An installation with failed callbacks, one of a long URL, one rejected entry, and something in the log."""
    with acting_scene(tmp_path_factory.mktemp("reading")) as found:
        found.failed = found.failing("acme", 3)
        found.stack.add_workspace("long", "zeckta", f"{found.stack.listen()}/{LONG}")
        found.failed += found.failing("long", 1, first=10)
        found.stack.redis.xadd("dispatcher:events", {"event": b'{"workspace": "' + LONG.encode() + b'"}'})
        found.count("/callbacks/replay", found.cookie("operator"), state="failed", workspace="acme")
        yield found


@pytest.fixture
def visits(chromium: object, scene: Scene) -> Iterator[Visits]:
    """Browsers for that console."""
    found = Visits(chromium, scene)
    yield found
    found.close()


def paths(scene: Scene) -> list[str]:
    """Every page, with something on it."""
    endpoint = scene.stack.cli_json("endpoint", "list", "--workspace", "long")[0]["endpoint"]
    return [
        *(
            "/",
            "/?span=day",
            "/endpoints",
            "/callbacks?state=failed",
            "/callbacks?state=waiting",
            "/live",
            "/rejected",
        ),
        *("/workspaces", "/workspace?id=acme", "/workspace?id=long&span=week", "/signature", "/work", "/log"),
        *(
            "/subscription?workspace=acme&subscription=default",
            "/subscription?workspace=long&subscription=default",
        ),
        *("/account", "/search", f"/search?q={LONG}", f"/callbacks?workspace=long&endpoint={endpoint}"),
        f"/callback?workspace=long&id={scene.failed[-1]}",
        f"/endpoint?owner=long&url={endpoint}",
    ]


def test_every_page_reads_without_a_script(scene: Scene, visits: Visits) -> None:
    """Nothing is empty or waits for a script, and no button is there that only a script makes work."""
    page = visits.as_("admin", java_script_enabled=False).page
    for path in paths(scene):
        page.goto(scene.url + path)
        assert page.locator("h1").inner_text(), path
        assert not page.locator("button[type=button]:visible").count(), path
        for time in page.locator("main time").all()[:3]:
            assert time.text_content().endswith(" UTC") or "/live" in path, path  # type: ignore[union-attr]


def test_work_is_done_without_a_script(scene: Scene, visits: Visits) -> None:
    """Counted, confirmed and seen to its end: the page renews itself by its head."""
    page = visits.as_("operator", java_script_enabled=False).page
    failed = scene.failing("globex", 2, first=500)
    page.goto(f"{scene.url}/callbacks?state=failed&workspace=globex")
    page.get_by_role("button", name="Replay all that match …").click()
    counted(page, "2 callbacks")
    assert "2 callbacks are sent again" in confirmed(page, "Replay 2 callbacks")
    assert {"delivered": 2} == scene.stack.wait_ended(failed, "globex")


def test_no_page_scrolls_sideways_on_a_narrow_screen(scene: Scene, visits: Visits) -> None:
    """Only tables do, in their own boxes."""
    page = visits.as_("admin", viewport={"width": 320, "height": 640}).page
    wide = {}
    for path in paths(scene):
        page.goto(scene.url + path)
        width, room = page.evaluate(
            "[document.scrollingElement.scrollWidth, document.scrollingElement.clientWidth]"
        )
        if width > room:
            wide[path] = (width, room)
    assert {} == wide


def test_the_keyboard_is_enough(scene: Scene, visits: Visits) -> None:
    """The skip link, `/`, `j` and `k`, Enter, and an action: no pointer is touched."""
    page = visits.as_("operator").page
    page.goto(f"{scene.url}/callbacks?state=failed&workspace=acme")
    page.keyboard.press("Tab")
    assert "Skip to the content" == focused(page)
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.hasAttribute('data-search')")
    page.keyboard.type("/jk")
    assert "/jk" == page.locator("[data-search]").input_value()
    page.locator("[data-search]").evaluate("box => { box.value = ''; box.blur(); }")
    ids = page.locator("tbody tr td:first-child a").all_inner_texts()
    for key, row in (("j", 0), ("j", 1), ("k", 0)):
        page.keyboard.press(key)
        assert ids[row] == focused(page)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(f"Callback {ids[0]}")
    for _ in range(40):
        page.keyboard.press("Tab")
        if focused(page) == "Send again":
            break
    page.keyboard.press("Enter")
    expect(page.locator(".note")).to_have_text("It is sent again, with fresh attempts.")


def focused(page: Page) -> str:
    """The text of what has the focus."""
    return str(page.evaluate("document.activeElement.textContent.trim()"))


def renewed(page: Page, part: str) -> None:
    """Waits until a part of the page was replaced by a newer one."""
    page.evaluate("part => { document.getElementById(part).dataset.before = '1'; }", part)
    expect(page.locator(f"#{part}[data-before]")).to_have_count(0, timeout=20_000)


def test_focus_stays_when_a_part_is_renewed(scene: Scene, visits: Visits) -> None:
    """And what was opened stays open; so what is looked at by the keyboard is not old."""
    page = visits.as_("operator").page
    page.goto(f"{scene.url}/endpoints")
    link = page.locator("#rows tbody a").first
    link.focus()
    url = link.inner_text()
    renewed(page, "rows")
    assert url == focused(page)
    page.route(
        "**/endpoints",
        lambda route: route.fulfill(response=(got := route.fetch()), body=with_details(got.text())),
    )
    page.goto(f"{scene.url}/endpoints")
    page.locator("#rows summary").first.click()
    renewed(page, "rows")
    assert page.locator("#rows details[open]").count()


def test_parts_that_are_renewed_together_ask_once(scene: Scene, visits: Visits) -> None:
    """On the overview: what is new every 5 seconds, and the workers every 10, take the page once each 5 seconds."""
    page = visits.as_("operator").page
    page.clock.install(time=0)
    page.clock.pause_at(1)
    page.goto(scene.url)
    asked: list[str] = []
    page.on(
        "request", lambda request: asked.append(request.url) if request.resource_type == "fetch" else None
    )
    for seconds in (5, 10):
        page.evaluate("for (const id of ['now', 'workers']) document.getElementById(id).dataset.before = '1'")
        page.clock.run_for(5_050)
        parts = {"now": 0, "workers": 1 if seconds == 5 else 0}
        for part, count in parts.items():
            expect(page.locator(f"#{part}[data-before]")).to_have_count(count)
    assert 2 == len(asked), asked


def test_its_process_gives_way_to_workers(scene: Scene) -> None:
    """Where both run on one machine, who looks must not hold up what is sent."""
    own, its = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (os.getpid(), scene.console.process.pid))
    assert min(own + 10, 19) == its
    if slice_ns(os.getpid()):  # else this kernel has no slices of ours, or does not say
        assert slice_ns(scene.console.process.pid) == SLICE_NS


def slice_ns(pid: int) -> int:
    """How long the kernel lets a process run before others, by sched_getattr(2); 0: it does not say."""
    number = {"x86_64": 315, "aarch64": 275, "riscv64": 275}.get(platform.machine())
    if number is None or sys.platform != "linux" or os.sched_getscheduler(pid) != os.SCHED_OTHER:
        return 0
    answer = ctypes.create_string_buffer(48)
    ctypes.CDLL(None).syscall(ctypes.c_long(number), pid, answer, len(answer), 0)
    return int.from_bytes(answer.raw[24:32], sys.byteorder)


def with_details(text: str) -> str:
    """The page as if its part had something to open, which is closed."""
    return text.replace('<p class="choice">', "<details><summary>more</summary>text</details><p>", 1)


def test_times_are_in_the_viewers_zone_with_utc_in_the_title(scene: Scene, visits: Visits) -> None:
    page = visits.as_("operator", timezone_id="Asia/Kolkata").page
    page.goto(f"{scene.url}/callback?workspace=acme&id={scene.failed[0]}")
    time = page.locator("#story time").first
    title = str(time.get_attribute("title"))
    assert title.endswith(" UTC")
    utc, here = (datetime.fromisoformat(text) for text in (title.removesuffix(" UTC"), time.inner_text()))
    assert 5.5 * 3600 == (here - utc).total_seconds()
    assert "Asia/" in page.locator("footer").inner_text()
    assert "UTC under the pointer" in page.locator("footer").inner_text()


@pytest.mark.parametrize("is_plain", [True, False], ids=["plain http", "https or localhost"])
def test_copying(scene: Scene, visits: Visits, is_plain: bool) -> None:
    """Browsers give scripts no clipboard on plain http: it works all the same."""
    watched = visits.as_("operator")
    page = watched.page
    if is_plain:
        page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    else:
        page.context.grant_permissions(["clipboard-write"])
    page.goto(f"{scene.url}/callback?workspace=acme&id={scene.failed[0]}")
    page.get_by_role("button", name="Copy the eventId").click()
    expect(page.get_by_role("button", name="Copy the eventId")).to_have_text("Copied")
    assert is_plain == bool(page.evaluate("navigator.clipboard === undefined"))
    page.locator("[data-search]").focus()
    page.keyboard.press("Control+v")
    assert scene.failed[0] == page.locator("[data-search]").input_value()


def test_nothing_is_cut(scene: Scene, visits: Visits) -> None:
    """A long URL is whole on the callback's page, and a long rejected entry is opened whole."""
    page = visits.as_("operator").page
    page.goto(f"{scene.url}/callback?workspace=long&id={scene.failed[-1]}")
    assert LONG in page.locator("main").inner_text()
    page.goto(f"{scene.url}/rejected")
    page.locator("tbody details summary").first.click()
    assert LONG in page.locator("tbody details pre").first.inner_text()


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "Australia/Adelaide"])
def test_a_time_that_is_typed_is_of_the_viewers_zone(scene: Scene, visits: Visits, zone: str) -> None:
    """As the times of the list are: what a row shows can be typed, and finds that row."""
    scene.failing("globex", 1, first=8000)
    page = visits.as_("operator", timezone_id=zone).page
    page.goto(f"{scene.url}/callbacks?state=failed&workspace=globex")
    expect(page.locator("label", has_text="since")).to_contain_text(zone)
    first = page.locator("tbody tr").first
    shown, id_ = first.locator("time").inner_text(), first.locator("a").first.inner_text()
    before = page.locator("tbody tr").count()
    page.get_by_label("since").fill(shown)
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_label("since")).not_to_have_value(shown)
    expect(page.locator("tbody tr time").first).to_have_text(shown)  # the script may not have run yet
    assert id_ in page.locator("tbody").inner_text()
    assert 1 <= page.locator("tbody tr").count() < max(before, 2)


def test_what_is_not_renewed_says_so(scene: Scene, visits: Visits) -> None:
    """Figures that stand still look like those of now; once there is an answer again, nothing is said."""
    visit = visits.as_("operator")
    visit.expected.append("503")
    page = visit.page
    page.goto(scene.url)
    page.route(f"{scene.url}/", lambda route: route.fulfill(status=503, body="away"))
    expect(page.locator("#stale")).to_contain_text("Not renewed since", timeout=20_000)
    page.unroute(f"{scene.url}/")
    expect(page.locator("#stale")).to_have_count(0, timeout=20_000)


def test_a_renewed_part_with_other_buttons_is_not_clicked_at_once(scene: Scene, visits: Visits) -> None:
    """*Replay 1,204 callbacks* comes where *Drop it* was, when the count is over; what stays as it was can be clicked."""
    page = visits.as_("operator").page
    page.goto(f"{scene.url}/endpoints")
    settling = "document.getElementById('rows').classList.contains('settling')"
    renewed(page, "rows")
    assert not page.evaluate(settling)
    page.evaluate("document.querySelector('#rows tbody a').textContent = 'another'")
    renewed(page, "rows")
    assert page.evaluate(settling)
    assert "settle" == page.locator("#rows").evaluate("part => getComputedStyle(part).animationName")
