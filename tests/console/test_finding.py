"""From "the customer says they did not get it" to the callback's story: one paste, and at most two clicks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.stack import wait_until
from tests.console.acting import Scene, acting_scene, endpoint_of
from tests.console.conftest import Visits

PHONE = "+393331234567"
REFERENCE = "order 4711/b"
WORKSPACES = ("northwind", "southwind")


@pytest.fixture(scope="module")
def scene(server_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Two workspaces with a failed callback each, among others."""
    with acting_scene(tmp_path_factory.mktemp("finding")) as found:
        found.status = 404
        found.delivered = []
        for number, workspace in enumerate(WORKSPACES):
            found.stack.add_workspace(workspace, "namirial")
            found.stack.enqueue(3, first=10 * number, workspace=workspace)
            found.failed += found.failing(workspace, 1, first=10 * number + 5, message=message(number))
        yield found


def message(number: int) -> dict[str, Any]:
    """The message that is asked for: its number and reference belong to one workspace alone."""
    phone = PHONE if number == 0 else "+4915112345678"
    return {
        "uuid": f"msg-{number}-d1f4",
        "src": "ACME",
        "dest": phone,
        "reference": {"key": f"{REFERENCE}{number}"},
    }


@pytest.fixture
def page(chromium: object, scene: Scene) -> Iterator[Page]:
    """A page of an operator."""
    visits = Visits(chromium, scene)
    yield visits.as_("operator").page
    visits.close()


@pytest.mark.parametrize(
    "asked",
    [
        "eventId",
        "  eventId ",
        "msg-0-d1f4",
        PHONE,
        "+39 333 123 45 67",
        "0039 333 1234567",
        "393331234567",
        f"{REFERENCE}0",
    ],
)
def test_one_paste_and_at_most_two_clicks(scene: Scene, page: Page, asked: str) -> None:
    """The eventId, the message's id, its number however it is written, its reference: in whichever workspace it is."""
    text = asked.replace("eventId", scene.failed[0])
    box = page.get_by_role("searchbox")
    box.fill(text)
    box.press("Enter")
    page.wait_for_load_state()
    for _ in range(2):
        if not page.url.startswith(f"{scene.url}/callback?"):
            page.locator("main tbody a").first.click()
    expect(page.locator("h1")).to_have_text(f"Callback {scene.failed[0]}")
    story = page.locator("#story").inner_text()
    assert "the receiver answered with HTTP status 404" in story
    assert "no such hook" in story
    assert "Next:" in story


def test_the_same_message_id_in_two_workspaces(scene: Scene, page: Page) -> None:
    """Both are offered, each with its workspace."""
    for workspace in WORKSPACES:
        ids = scene.stack.enqueue(
            1, workspace=workspace, message={"uuid": "twice", "src": "A", "dest": PHONE}
        )
        scene.stack.wait_ended(ids, workspace)
    page.goto(f"{scene.url}/search?q=twice")
    rows = page.locator("tbody tr").all_inner_texts()
    assert list(WORKSPACES) == sorted(row.split()[-1] for row in rows), rows


def test_nothing_found_says_what_can_be_searched(scene: Scene, page: Page) -> None:
    page.goto(f"{scene.url}/search?q=nothing-like-this")
    expect(page.get_by_text("Nothing is known of nothing-like-this.")).to_be_visible()
    assert "by their whole id" in page.locator("main").inner_text()
    assert (
        "by its number or its reference only in workspaces of a dialect" in page.locator("main").inner_text()
    )


def test_what_only_the_archive_has(server_program: str, tmp_path: Path, chromium: object) -> None:
    """By the eventId, the message, its number however it is written, and its reference."""
    archive = {
        "DISPATCHER_ARCHIVE_URL": f"sqlite:///{tmp_path}/archive.db",
        "DISPATCHER_ARCHIVE_AFTER_SECONDS": "0",
    }
    with acting_scene(tmp_path, **archive) as found:
        found.stack.add_workspace("northwind", "namirial")
        over = message(0) | {"uuid": "msg-over"}
        ids = found.stack.enqueue(1, workspace="northwind", status="DELIVERED", message=over)
        left = found.stack.redis.keys
        wait_until(
            lambda: left("dispatcher:fingerprint:*") and not left("dispatcher:status*"),
            60,
            "it is gone from Redis",
        )
        visits = Visits(chromium, found)
        page = visits.as_("operator").page
        for text in (*ids, "msg-over", PHONE, "0039 333 1234567", f"{REFERENCE}0"):
            page.goto(f"{found.url}/search?{urlencode({'q': text})}")
            if not page.url.startswith(f"{found.url}/callback?"):
                page.locator("main tbody a").first.click()
            expect(page.locator("main")).to_contain_text(ids[0])
        visits.close()


def test_a_callback_url_finds_its_endpoint(scene: Scene, page: Page) -> None:
    """As it is copied from a workspace's page: with its path."""
    url = endpoint_of(scene.stack, WORKSPACES[0])
    for text in (f"{url}/hooks", f"{url}/", f"{url}/hooks?x=1"):
        page.goto(f"{scene.url}/search?{urlencode({'q': text, 'workspace': WORKSPACES[0]})}")
        expect(page.locator("h1")).to_have_text(url)


def test_of_many_messages_to_a_number_the_latest_are_shown(scene: Scene, page: Page) -> None:
    """And the page says so."""
    for first in range(0, 25, 5):
        for number in range(first, first + 5):
            to = {"uuid": f"many-{number}", "src": "A", "dest": "+4915199999999"}
            scene.stack.enqueue(1, workspace="northwind", message=to)
    scene.stack.wait_ended(
        scene.stack.enqueue(1, workspace="northwind", message=to | {"uuid": "many-25"}), "northwind"
    )
    page.goto(f"{scene.url}/search?q=4915199999999")
    assert 20 == page.locator("main tbody tr").count()
    assert "the latest 20 are shown" in page.locator("main").inner_text()
