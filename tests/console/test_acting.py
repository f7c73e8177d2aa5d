"""Each action through the pages, as an operator does it in a browser; and what the log of actions has of it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.stack import wait_until
from tests.console.acting import Scene, acting_scene, confirmed, counted, endpoint_of
from tests.console.conftest import Visits


@pytest.fixture(scope="module")
def scene(server_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """An installation for the tests of this file."""
    with acting_scene(tmp_path_factory.mktemp("acting")) as found:
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


def noted(scene: Scene, what: str, role: str = "operator") -> Any:
    """What the latest entry of that name says was done; by whom and when is checked here."""
    entry = scene.audit(what)
    assert "console" == entry["via"]
    assert entry["who"].startswith(f"{role}'s (key:key_"), entry
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+Z", entry["at"])
    return entry["to"]


def do(page: Page, button: str) -> str:
    """Presses a button; the note that follows."""
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.locator(".note")).to_be_visible()
    return page.locator(".note").inner_text()


def to_endpoint(page: Page, scene: Scene, workspace: str) -> str:
    """Goes to the page of a workspace's endpoint as an operator would, by the list; its URL."""
    url = endpoint_of(scene.stack, workspace)
    page.goto(f"{scene.url}/endpoints?workspace={workspace}")
    page.get_by_role("link", name=url).first.click()
    expect(page.locator("h1")).to_have_text(url)
    return url


def test_an_endpoint_is_stopped_and_resumed(scene: Scene, page: Page) -> None:
    scene.stack.wait_ended(scene.stack.enqueue(1))
    url = to_endpoint(page, scene, "acme")
    assert "stopped: what goes there waits" in do(page, "Stop sending")
    assert {"endpoint": url} == noted(scene, "endpoint.stop")
    (waiting,) = scene.stack.enqueue(1, first=1)
    wait_until(lambda: scene.stack.state(waiting) == "pending", 20, "it waits")
    assert "It was so already" not in do(page, "Resume")
    assert {"endpoint": url} == noted(scene, "endpoint.resume")
    assert {"delivered": 1} == scene.stack.wait_ended([waiting])


def test_an_endpoint_is_retried_now(scene: Scene, page: Page) -> None:
    """What waits for an hour because the receiver asked for it goes out at once."""
    scene.status, scene.retry_after = 503, "3600"
    (waiting,) = scene.stack.enqueue(1, first=10)
    wait_until(lambda: scene.stack.state(waiting) == "retrying", 20, "it was tried once")
    scene.status, scene.retry_after = 200, ""
    url = to_endpoint(page, scene, "acme")
    assert "1 callback was made due" in do(page, "Retry now")
    assert {"delivered": 1} == scene.stack.wait_ended([waiting])
    done = noted(scene, "endpoint.retry")
    assert (url, 1) == (done["endpoint"], done["madeDue"])


def test_what_waits_is_moved_to_a_new_url(scene: Scene, page: Page) -> None:
    """After `workspace update --callback-url` the old endpoint's page offers it, and says from where to where."""
    scene.stack.add_workspace("moving")
    scene.stack.wait_ended(scene.stack.enqueue(1, first=20, workspace="moving"), "moving")
    old = endpoint_of(scene.stack, "moving")
    assert scene.stack.cli("endpoint", "stop", "moving", old).returncode == 0
    waiting = scene.stack.enqueue(3, first=21, workspace="moving")
    wait_until(lambda: all(scene.stack.state(one, "moving") == "pending" for one in waiting), 20, "they wait")
    new = f"{scene.stack.listen()}/new"
    assert scene.stack.cli("workspace", "update", "moving", "--callback-url", new).returncode == 0
    page.goto(f"{scene.url}/endpoint?owner=moving&url={old}")
    page.get_by_role("button", name="Move what waits to the present URL …").click()
    counted(page, "3 callbacks")
    assert new in page.locator("#job").inner_text()
    assert "3 callbacks go to the present URL." == confirmed(page, "Move 3 callbacks")
    assert {"delivered": 3} == scene.stack.wait_ended(waiting, "moving")
    done = noted(scene, "callbacks.move")
    assert (new, 3) == (done["to"], done["moved"])


def test_what_waits_is_moved_to_another_path_of_its_server(scene: Scene, page: Page) -> None:
    """The endpoint stays the same, so its page alone offers it; once all is moved it does not any more."""
    old = scene.stack.add_workspace("paths")
    scene.stack.wait_ended(scene.stack.enqueue(1, first=25, workspace="paths"), "paths")
    url = endpoint_of(scene.stack, "paths")
    assert scene.stack.cli("endpoint", "stop", "paths", url).returncode == 0
    waiting = scene.stack.enqueue(2, first=26, workspace="paths")
    wait_until(lambda: all(scene.stack.state(one, "paths") == "pending" for one in waiting), 20, "they wait")
    page.goto(f"{scene.url}/endpoint?owner=paths&url={url}")
    assert not page.get_by_role("button", name="Move what waits").count()
    assert scene.stack.cli("workspace", "update", "paths", "--callback-url", f"{old}/v2").returncode == 0
    page.reload()
    page.get_by_role("button", name="Move what waits to the present URL …").click()
    counted(page, "2 callbacks")
    assert "2 callbacks go to the present URL." == confirmed(page, "Move 2 callbacks")
    page.goto(f"{scene.url}/endpoint?owner=paths&url={url}")
    assert not page.get_by_role("button", name="Move what waits").count()
    do(page, "Resume")
    assert {"delivered": 2} == scene.stack.wait_ended(waiting, "paths")


@pytest.mark.parametrize("takes", [True, False])
def test_a_test_callback(scene: Scene, page: Page, takes: bool) -> None:
    """Its answer is shown, whether the receiver took it or not."""
    scene.stack.wait_ended(scene.stack.enqueue(1, first=30 + takes))
    url = to_endpoint(page, scene, "acme")
    scene.status = 200 if takes else 404
    page.get_by_role("button", name="Send a test callback").click()
    said = "The receiver took it." if takes else "The receiver did not take it."
    expect(page.locator("p[role=status]")).to_have_text(said)
    assert str(scene.status) in page.locator("dl").inner_text()
    assert takes or "no such hook" in page.locator("dl").inner_text()
    scene.status = 200
    assert {"endpoint": url, "taken": takes} == noted(scene, "endpoint.ping")
    page.get_by_role("link", name="Back to the endpoint").click()
    expect(page.locator("h1")).to_have_text(url)


def test_a_test_callback_to_a_subscription(scene: Scene, page: Page) -> None:
    page.goto(f"{scene.url}/workspace?id=globex")
    page.get_by_role("button", name="Test", exact=True).click()
    expect(page.locator("p[role=status]")).to_have_text("The receiver took it.")
    assert {"subscription": "default", "taken": True} == noted(scene, "subscription.ping")


def test_one_callback_is_sent_again(scene: Scene, page: Page) -> None:
    (failed,) = scene.failing("acme", 1, first=40)
    before = scene.attempts(failed)
    page.goto(f"{scene.url}/callback?workspace=acme&id={failed}")
    assert "It is sent again, with fresh attempts." == do(page, "Send again")
    assert {"delivered": 1} == scene.stack.wait_ended([failed])
    assert before + 1 == scene.attempts(failed)
    assert {"eventId": failed} == noted(scene, "event.replay")
    page.reload()
    assert not page.locator(".note").count(), "a note is shown once"
    expect(page.get_by_text("replayed, with fresh attempts")).to_be_visible()


def test_one_callback_is_cancelled(scene: Scene, page: Page) -> None:
    scene.stack.wait_ended(scene.stack.enqueue(1, first=50))
    url = endpoint_of(scene.stack, "acme")
    assert scene.stack.cli("endpoint", "stop", "acme", url).returncode == 0
    (waiting,) = scene.stack.enqueue(1, first=51)
    wait_until(lambda: scene.stack.state(waiting) == "pending", 20, "it waits")
    page.goto(f"{scene.url}/callback?workspace=acme&id={waiting}")
    assert "It is cancelled: it ended as failed." == do(page, "Cancel")
    assert {"endpoint": url, "eventId": waiting, "cancelled": 1} == noted(scene, "callbacks.cancel")
    assert scene.stack.cli("endpoint", "resume", "acme", url).returncode == 0
    assert "failed" == scene.stack.state(waiting)
    assert not scene.attempts(waiting)


def test_a_subscription_is_paused_and_resumed(scene: Scene, page: Page) -> None:
    page.goto(f"{scene.url}/workspace?id=globex")
    assert "default is paused" in do(page, "Pause")
    assert "default" == noted(scene, "subscription.pause")["subscription"]
    (waiting,) = scene.stack.enqueue(1, first=60, workspace="globex")
    wait_until(lambda: scene.stack.state(waiting, "globex") == "pending", 20, "it waits")
    assert "default is active again." == do(page, "Resume")
    assert "default" == noted(scene, "subscription.resume")["subscription"]
    assert {"delivered": 1} == scene.stack.wait_ended([waiting], "globex")


def test_rejected_entries_are_requeued_one_and_all(scene: Scene, page: Page) -> None:
    """Entries of a workspace that there was not when they came; each is delivered after its workspace was made."""
    late = scene.stack.enqueue(121, first=70, workspace="late")
    wait_until(lambda: scene.stack.redis.xlen("dispatcher:rejected") == 121, 30, "all were rejected")
    scene.stack.add_workspace("late")
    page.goto(f"{scene.url}/rejected?workspace=late")
    page.get_by_role("button", name="Requeue …").first.click()
    counted(page, "1 entry")
    assert "1 entry went back on the queue." == confirmed(page, "Requeue 1 entry")
    assert 1 == noted(scene, "rejected.requeue")["requeued"]
    page.get_by_role("link", name="Back to the list").click()
    page.goto(f"{scene.url}/rejected?workspace=late")
    page.get_by_role("button", name="Requeue all that match …").click()
    counted(page, "120 entries")
    assert "120 entries went back on the queue." == confirmed(page, "Requeue 120 entries")
    assert {"delivered": 121} == scene.stack.wait_ended(late, "late")
    assert 120 == noted(scene, "rejected.requeue")["requeued"]
    assert 0 == scene.stack.redis.xlen("dispatcher:rejected")


def test_a_secret_is_rotated_by_an_admin_and_shown_once(scene: Scene, visits: Visits) -> None:
    """It is on that page, and nowhere else: neither in a log, nor in the log of actions, nor on the page after."""
    page = visits.as_("admin").page
    page.goto(f"{scene.url}/workspace?id=acme")
    page.get_by_role("button", name="New secret").first.click()
    secret = page.locator(".secret").inner_text().split()[0]
    assert secret.startswith("whsec_")
    scene.stack.secrets["acme"] = secret
    entry = scene.audit("workspace.rotate_secret")
    assert entry["who"].startswith("admin's (key:key_")
    page.get_by_role("link", name="Back to the workspace").click()
    for path in ("/workspace?id=acme", "/log", "/work"):
        page.goto(scene.url + path)
        assert secret not in page.content()
    said = scene.console.log.read_text() + scene.stack.cli("audit", "list", "--json").stdout
    assert secret not in said
    assert secret.removeprefix("whsec_") not in said
    (delivered,) = scene.stack.enqueue(1, first=300)
    scene.stack.wait_ended([delivered])
    (got,) = [one for one in scene.stack.received if one.event_id == delivered]
    assert got.problem is None, "it is the secret that signs"


def test_an_operator_has_no_button_for_a_secret(scene: Scene, page: Page) -> None:
    page.goto(f"{scene.url}/workspace?id=acme")
    assert page.get_by_role("button", name="Pause").count()
    assert not page.get_by_role("button", name="New secret").count()


def test_the_log_of_actions_has_what_was_done_here(scene: Scene, page: Page) -> None:
    page.goto(f"{scene.url}/workspace?id=globex")
    do(page, "Pause")
    do(page, "Resume")
    page.goto(f"{scene.url}/log?workspace=globex")
    row = page.locator("tbody tr").first
    assert "subscription.resume" in row.inner_text()
    assert "operator's (key:key_" in row.inner_text()
    assert "console" in row.inner_text()
