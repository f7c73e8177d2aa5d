"""What is done to all that match a filter: counted first, confirmed by the number, never to what came after the count."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.stack import wait_until
from tests.console.acting import Scene, acting_scene, confirmed, counted, endpoint_of
from tests.console.conftest import Visits
from tests.console.world import ask

MANY = 120
"""More than two pages of a list."""


@pytest.fixture(scope="module")
def scene(server_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """An installation for the tests of this file."""
    with acting_scene(tmp_path_factory.mktemp("all")) as found:
        yield found


@pytest.fixture
def visits(chromium: object, scene: Scene) -> Iterator[Visits]:
    """Browsers for that console."""
    found = Visits(chromium, scene)
    yield found
    found.close()


@pytest.fixture
def page(visits: Visits) -> Page:
    """A page of an operator."""
    return visits.as_("operator").page


def stopped(scene: Scene, workspace: str, count: int, first: int) -> tuple[str, list[str]]:
    """Callbacks that wait, since an operator stopped their endpoint; the endpoint and their eventIds."""
    scene.stack.wait_ended(scene.stack.enqueue(1, first=first, workspace=workspace), workspace)
    url = endpoint_of(scene.stack, workspace)
    scene.stack.cli("endpoint", "stop", workspace, url)
    return url, waiting(scene, workspace, count, first + 1)


def waiting(scene: Scene, workspace: str, count: int, first: int) -> list[str]:
    """Callbacks of a stopped endpoint."""
    ids = scene.stack.enqueue(count, first=first, workspace=workspace)
    wait_until(lambda: all(scene.stack.state(one, workspace) == "pending" for one in ids), 90, "they wait")
    return ids


def test_all_that_failed_are_replayed_and_not_what_failed_after_the_count(scene: Scene, page: Page) -> None:
    """Not only those on the page: 120 match, 50 are shown."""
    failed = scene.failing("acme", MANY)
    page.goto(f"{scene.url}/callbacks?state=failed&workspace=acme")
    assert 50 == page.locator("tbody tr").count()
    page.get_by_label("at most").fill("10000")
    page.get_by_role("button", name="Replay all that match …").click()
    counted(page, f"{MANY} callbacks")
    later = scene.failing("acme", 7, first=MANY)
    said = confirmed(page, f"Replay {MANY} callbacks")
    assert said == f"{MANY} callbacks are sent again, 10000 a second."
    assert {"delivered": MANY} == scene.stack.wait_ended(failed)
    assert {"failed"} == {scene.stack.state(one) for one in later}
    done = scene.audit("event.replay")
    assert ("acme", "failed", MANY) == (done["workspace"], done["to"]["state"], done["to"]["replayed"])


def test_all_that_wait_are_cancelled_and_not_what_came_after_the_count(scene: Scene, page: Page) -> None:
    url, before = stopped(scene, "globex", MANY, 1000)
    page.goto(f"{scene.url}/callbacks?state=waiting&workspace=globex")
    page.get_by_role("button", name="Cancel all that match …").click()
    counted(page, f"{MANY} callbacks")
    after = waiting(scene, "globex", 5, 1500)
    assert confirmed(page, f"Cancel {MANY} callbacks").startswith(f"{MANY} callbacks were cancelled")
    assert {"failed"} == {scene.stack.state(one, "globex") for one in before}
    assert MANY == scene.audit("callbacks.cancel")["to"]["cancelled"]
    scene.stack.cli("endpoint", "resume", "globex", url)
    assert {"delivered": 5} == scene.stack.wait_ended(after, "globex")
    assert not any(scene.attempts(one) for one in before)


def test_all_endpoints_that_match_are_retried(scene: Scene, page: Page) -> None:
    """Those of the count alone; stopped ones stay stopped, which the page says first."""
    scene.stack.add_workspace("late")
    scene.stack.add_workspace("held")
    url, _ = stopped(scene, "held", 1, 2000)
    scene.status, scene.retry_after = 503, "3600"
    ids = scene.stack.enqueue(4, first=2100, workspace="late")
    wait_until(lambda: any(scene.stack.state(one, "late") == "retrying" for one in ids), 20, "one was tried")
    scene.status, scene.retry_after = 200, ""
    page.goto(f"{scene.url}/endpoints")
    page.get_by_role("button", name="Retry all that match now …").click()
    counted(page, "1 endpoint")
    assert "1 other is stopped or paused by an operator, and stays so" in page.locator("#job").inner_text()
    assert "1 endpoint is probed" in confirmed(page, "Retry 1 endpoint")
    assert {"delivered": 4} == scene.stack.wait_ended(ids, "late")
    assert 1 == scene.audit("endpoint.retry")["to"]["endpoints"]
    scene.stack.cli("endpoint", "resume", "held", url)


def test_another_number_is_refused(scene: Scene) -> None:
    """Two presses of the button begin it once, and both lead to it."""
    failed = scene.failing("acme", 3, first=3000)
    cookie = scene.cookie("operator")
    work = scene.count("/callbacks/replay", cookie, state="failed", workspace="acme", since="1h")
    total = int(
        ask("GET", work, None, Cookie=cookie)[2].partition('name="count" value="')[2].partition('"')[0]
    )
    for wrong in (total + 1, total - 1, "", "all", f" {total}"):
        status, text = scene.confirm(work, cookie, wrong)
        assert 400 == status, text
    assert {"failed"} == {scene.stack.state(one) for one in failed}
    assert [303, 303] == [scene.confirm(work, cookie, total)[0] for _ in range(2)]
    assert f"{total:,} callbacks are sent again" in scene.finished(work, cookie)
    assert {"delivered": 3} == scene.stack.wait_ended(failed)
    assert {3} == {scene.attempts(one) for one in failed}, "two attempts that failed, and one replay"


def test_somebody_elses_count_cannot_be_confirmed(scene: Scene, visits: Visits) -> None:
    (failed,) = scene.failing("acme", 1, first=3100)
    cookie = scene.cookie("operator")
    work = scene.count("/callbacks/replay", cookie, state="failed", workspace="acme")
    status, text = scene.confirm(work, scene.cookie("second"), 1)
    assert 400 == status
    assert "counted this, and may begin it" in text
    assert 403 == scene.confirm(work, scene.cookie("viewer"), 1)[0]
    other = visits.as_("second").page
    other.goto(work)
    expect(other.get_by_text("operator's counted this, and may begin it.")).to_be_visible()
    assert not other.get_by_role("button", name="Replay").count()
    assert "failed" == scene.stack.state(failed)


def test_what_somebody_else_replayed_meanwhile_is_not_sent_twice(scene: Scene) -> None:
    """Two operators count the same callbacks, and both confirm: the second sends none of them."""
    failed = scene.failing("acme", 4, first=3200)
    one, two = scene.cookie("operator"), scene.cookie("second")
    form = {"state": "failed", "workspace": "acme", "rate": "10000"}
    works = [scene.count("/callbacks/replay", cookie, **form) for cookie in (one, two)]
    for work, cookie in zip(works, (one, two), strict=True):
        page = ask("GET", work, None, Cookie=cookie)[2]
        total = page.partition('name="count" value="')[2].partition('"')[0]
        assert 303 == scene.confirm(work, cookie, total)[0]
        said = scene.finished(work, cookie)
        scene.stack.wait_ended(failed)
    assert "0 callbacks are sent again" in said
    assert "It was replayed since it was counted, and has ended again." in said
    assert {3} == {scene.attempts(one) for one in failed}


def test_work_is_seen_moving_and_stops_where_it_is(scene: Scene, page: Page) -> None:
    """What was done stays done, the rest is left; the number of the page is that of the log of actions."""
    count = 12_000
    url, ids = stopped(scene, "globex", count, 5000)
    page.goto(f"{scene.url}/callbacks?state=waiting&workspace=globex")
    page.get_by_role("button", name="Cancel all that match …").click()
    counted(page, f"{count:,} callbacks")
    page.get_by_role("button", name=f"Cancel {count:,} callbacks", exact=True).click()
    assert confirmed_or_over(page)
    assert {"failed"} == {scene.stack.state(one, "globex") for one in ids}
    failed = f"{scene.url}/callbacks?state=failed&workspace=globex&since=10m"
    page.goto(failed)
    page.get_by_role("button", name="Replay all that match …").click()
    expect(page.locator("#job strong")).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Replay ").click()
    moving = page.locator("#job progress[value]:not([value='0'])")
    expect(moving).to_be_visible(timeout=20_000)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#job p.bad")).to_contain_text("what was done stays done", timeout=20_000)
    done = int(page.locator("#job p.bad").inner_text().split()[2].replace(",", ""))
    assert done == scene.audit("event.replay")["to"]["replayed"]
    pending = sum(scene.stack.state(one, "globex") == "pending" for one in ids)
    assert 0 < pending == done < count
    scene.stack.cli("endpoint", "resume", "globex", url)


def confirmed_or_over(page: Page) -> bool:
    """Waits until the work that was begun is over."""
    expect(page.locator("#job p.good")).to_be_visible(timeout=60_000)
    return True
