"""Hostile text in every field that comes from outside, in a real browser: it is shown as text, and nothing runs."""

import subprocess
from urllib.parse import quote, urlencode

import pytest

from tests.attempts import attempted
from tests.console.conftest import Visits
from tests.console.hostile import (
    HOSTILE,
    MARKUP,
    SHOWN,
    TAG,
    UNSEEN,
    Hostile,
    assert_harmless,
    unseen_on,
)
from tests.console.world import Watched

PARAMETERS = (
    "q", "state", "workspace", "subscription", "endpoint", "error", "since", "until", "message", "after", "from",
    "span", "reason", "entry", "note", "id", "owner", "url", "to", "failed", "link",
)  # fmt: skip
PATHS = (
    "/", "/endpoints", "/endpoint", "/callbacks", "/callback", "/live", "/rejected", "/workspaces", "/workspace", "/subscription",
    "/search", "/signature", "/work", "/log", "/account", "/login", "/portal/enter", "/portal/callback",
)  # fmt: skip


def _visit(watched: Watched, url: str) -> None:
    watched.expected.append(
        "Failed to load resource"
    )  # a page may be 400 or 404; what it shows is what counts
    watched.page.goto(url)
    assert_harmless(watched.page)
    assert not unseen_on(watched.page)


@pytest.mark.parametrize("role", ["viewer", "admin"])
def test_stored_text_is_shown_as_text_on_every_page(hostile: Hostile, target: Visits, role: str) -> None:
    watched = target.as_(role)
    for path in PATHS:
        _visit(watched, hostile.url + path)


def test_an_answer_of_a_receiver_is_shown_as_text(hostile: Hostile, target: Visits) -> None:
    watched = target.as_("operator")
    _visit(watched, f"{hostile.url}/callback?workspace=acme&id={hostile.failed}")
    answer = watched.page.locator(".answer").inner_text()
    assert MARKUP in answer
    assert SHOWN[:-4] in answer  # its first 512 bytes
    watched.page.locator("details summary").click()
    assert_harmless(watched.page)


def test_rejected_entries_are_shown_as_text(hostile: Hostile, target: Visits) -> None:
    watched = target.as_("operator")
    _visit(watched, f"{hostile.url}/rejected")
    rows = watched.page.locator("tbody tr")
    assert rows.count() == 2
    for row in rows.all():
        row.locator("summary").click()
        assert f"<{TAG}>" in row.inner_text()


def test_alerts_workers_and_the_log_are_shown_as_text(hostile: Hostile, target: Visits) -> None:
    watched = target.as_("admin")
    _visit(watched, f"{hostile.url}/")
    assert watched.page.get_by_text(f"<{TAG}>").count() >= 2  # alert and worker
    _visit(watched, f"{hostile.url}/log")
    assert f"<{TAG}>hostile" in watched.page.locator("tbody").inner_text()


@pytest.mark.parametrize("path", PATHS)
def test_hostile_parameters_are_shown_as_text(hostile: Hostile, target: Visits, path: str) -> None:
    watched = target.as_("admin")
    _visit(watched, f"{hostile.url}{path}?" + "&".join(f"{name}={quote(HOSTILE)}" for name in PARAMETERS))
    for name in ("q", "id", "after", "since"):
        others = {"workspace": "acme", "id": hostile.failed} | {name: HOSTILE}
        _visit(watched, f"{hostile.url}{path}?{urlencode(others)}")


def test_a_filter_field_keeps_what_was_typed(hostile: Hostile, target: Visits) -> None:
    watched = target.as_("admin")
    typed = (MARKUP + UNSEEN).replace("\x00", "")
    watched.page.goto(f"{hostile.url}/search?q={quote('a' + typed + 'z')}")
    assert watched.page.locator("[data-search]").input_value() == "a" + typed + "z"


def test_unknown_paths_and_methods_are_answered_as_text(hostile: Hostile, target: Visits) -> None:
    watched = target.new()
    for path in (
        quote(HOSTILE),
        f"work/{quote(HOSTILE)}",
        "%00",
        "static/..%2f..%2fapp.py",
        "callbacks/replay",
    ):
        _visit(watched, f"{hostile.url}/{path}")
    watched = target.as_("admin")
    _visit(watched, f"{hostile.url}/work/{quote(MARKUP, safe='')}")


def test_attempts_that_anybody_publishes_are_shown_as_text(hostile: Hostile, target: Visits) -> None:
    watched = target.as_("admin")
    watched.page.goto(f"{hostile.url}/live")
    watched.page.get_by_text("Live: attempts appear").wait_for()
    texts = ("workspace", "subscription", "endpoint", "eventId", "messageId", "eventType", "error", "outcome")
    named = dict.fromkeys(texts, HOSTILE) | {"httpStatus": None, "at": HOSTILE}
    hostile.publish(attempted(**named), attempted(eventId="evt_after"))
    watched.page.get_by_role("link", name="evt_after").wait_for()
    assert_harmless(watched.page)
    assert not unseen_on(watched.page)
    _visit(watched, f"{hostile.url}/live")


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"no JSON", b"1", b"null", b"{}", b"[1, null, [], {}]", b'[{"at": 1}]', b"[" * 100_000,
        b'[{"at":"\\ud800","workspace":"\\ud800","endpoint":[],"eventId":{}}]', b"\xff\xfe", b'[{"at":"\xff"}]',
    ],
    ids=lambda raw: repr(raw[:30]),
)  # fmt: skip
def test_what_is_no_attempt_does_not_end_the_live_page(hostile: Hostile, target: Visits, raw: bytes) -> None:
    watched = target.as_("admin")
    watched.page.set_default_timeout(30_000)
    watched.page.goto(f"{hostile.url}/live")
    watched.page.get_by_text("Live: attempts appear").wait_for()
    hostile.publish(raw=raw[:60_000])
    name = f"evt_after_{abs(hash(raw))}"
    hostile.publish(attempted(eventId=name))
    watched.page.get_by_role("link", name=name).wait_for()
    watched.page.reload()
    assert watched.page.get_by_role("link", name=name).count() == 1


def test_the_curl_command_runs_nothing_but_curl(hostile: Hostile, target: Visits) -> None:
    watched = target.as_("operator")
    watched.page.goto(f"{hostile.url}/callback?workspace=acme&id={hostile.failed}")
    command = watched.page.locator("[aria-label='Copy the curl command']").get_attribute("data-copy")
    assert command
    folder = hostile.stack.folder / "shell"
    folder.mkdir(exist_ok=True)
    before = len(hostile.stack.received)
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir())
    received = hostile.stack.received[before:]
    assert len(received) == 1  # `[1-9]` in a URL is no range of curl's
    assert received[0].problem is None
