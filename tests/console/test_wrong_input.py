"""Wrong input to every page: a clear line, and never a fault of ours."""

import http.client
import itertools
import json
import re
from urllib.parse import quote, urlsplit

import pytest

from tasks.console.asking import MOST_CHARACTERS
from tests.console.conftest import World
from tests.console.world import ask, get

WRONG = {
    "nul": "a%00b",
    "not utf-8": "%ff%fe%80",
    "half of a pair": "%ed%a0%80",
    "10 kB": "9" * 10_000,
    "a huge number": "9" * 25,
    "negative": "-1",
    "huge age": "9" * 5000 + "d",
    "digits of another script": "%D9%A3d",
    "a time before all": "0001-01-01T00:00:00%2B14:00",
    "a time after all": "9999-12-31T23:59:59-14:00",
    "no time": "tomorrow",
    "markup": quote("<script>alert(1)</script>"),
    "line breaks": "a%0d%0aSet-Cookie:%20x=y",
    "a format": "%7B%7B7*7%7D%7D%25s",
    "a path": "..%2f..%2fetc%2fpasswd",
    "a bracket": "http://[::1",
    "a port": "http://a:99999999/",
    "unknown": "zzz",
}
FIELDS = {
    "/": ("span", "note"),
    "/endpoints": ("workspace", "state", "q", "from"),
    "/endpoint": ("owner", "url"),
    "/callbacks": (
        "state",
        "workspace",
        "subscription",
        "endpoint",
        "error",
        "since",
        "until",
        "message",
        "after",
    ),
    "/callback": ("workspace", "id"),
    "/rejected": ("reason", "workspace", "entry"),
    "/workspaces": ("q", "after"),
    "/workspace": ("id", "span"),
    "/subscription": ("workspace", "subscription"),
    "/live": ("workspace", "q", "failed"),
    "/search": ("q", "workspace"),
    "/signature": ("workspace", "subscription"),
    "/log": ("workspace",),
    "/login": ("to",),
}
FORMS = {
    "/endpoint/stop": ("owner", "url"),
    "/endpoint/resume": ("owner", "url"),
    "/endpoint/retry": ("owner", "url"),
    "/endpoint/ping": ("owner", "url"),
    "/endpoint/move": ("owner", "url"),
    "/endpoints/retry": ("workspace", "state", "q"),
    "/callbacks/replay": (
        "state",
        "workspace",
        "endpoint",
        "subscription",
        "error",
        "since",
        "until",
        "rate",
    ),
    "/callbacks/cancel": ("state", "workspace", "endpoint", "subscription", "error"),
    "/callback/replay": ("workspace", "id"),
    "/callback/cancel": ("workspace", "id"),
    "/rejected/requeue": ("reason", "workspace", "entry"),
    "/subscription/rotate": ("workspace", "subscription"),
    "/subscription/pause": ("workspace", "subscription"),
    "/subscription/resume": ("workspace", "subscription"),
    "/subscription/ping": ("workspace", "subscription"),
    "/signature": ("headers", "body", "workspace", "subscription", "secret"),
}
GOOD = {
    "workspace": "acme",
    "owner": "acme",
    "url": "http://127.0.0.1:1",
    "id": "evt-nothing",
    "state": "failed",
    "subscription": "default",
    "headers": "webhook-id: a\nwebhook-timestamp: 1\nwebhook-signature: v1,x",
    "body": "{}",
}


@pytest.fixture(scope="module")
def cookie(world: World) -> str:
    """An admin's session, for whom no page is closed."""
    return world.cookie("admin")


def text_of(page: str) -> str:
    """What a page says in its main part, without markup."""
    return re.sub(r"<[^>]*>|\s+", " ", page.partition("<main")[2].partition("</main>")[0])


def checked(name: str, status: int, page: str) -> None:
    """Fails for a fault of ours, and for a refusal that says nothing."""
    assert status in (200, 303, 400, 403, 404, 409, 413, 415, 422), (name, status, text_of(page)[:500])
    if status >= 400:
        assert 'class="bad"' in page, (name, page[:500])
    assert "<script>alert" not in page, name


@pytest.mark.parametrize("path", FIELDS)
def test_pages(world: World, cookie: str, path: str) -> None:
    """Each parameter of each page, with all that is wrong; the others as they should be."""
    for (kind, value), field in itertools.product(WRONG.items(), FIELDS[path]):
        others = [
            f"{one}={quote(GOOD[one])}"
            for one in FIELDS[path]
            if one != field and one in GOOD and one != "state"
        ]
        status, _, page = get(f"{world.url}{path}?" + "&".join([f"{field}={value}", *others]), Cookie=cookie)
        checked(f"{path} {field} {kind}", status, page)


@pytest.mark.parametrize("path", FORMS)
def test_forms(world: World, cookie: str, path: str) -> None:
    """The same of each field of each action, as a browser would send it."""
    for (kind, value), field in itertools.product(WRONG.items(), FORMS[path]):
        others = [f"{one}={quote(GOOD[one])}" for one in FORMS[path] if one != field and one in GOOD]
        status, page = posted(world.url, path, "&".join([f"{field}={value}", *others]).encode(), cookie)
        checked(f"{path} {field} {kind}", status, page)
    for body in (b"", b"\xff\xfe", b"a&" * 500, b"=&=&="):
        status, page = posted(world.url, path, body, cookie)
        checked(f"{path} {body[:10]!r}", status, page)


def posted(url: str, path: str, body: bytes, cookie: str) -> tuple[int, str]:
    """A form as it is; status and page."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Cookie": cookie,
        "Sec-Fetch-Site": "same-origin",
    }
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    page = answer.read().decode()
    connection.close()
    return answer.status, page


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/callbacks?after=zzz", "is not a cursor of this list"),
        ("/callbacks?state=lost", "a state is one of"),
        ("/callbacks?since=tomorrow", "is no time: say 2026-06-09T13:00, or 90m, 6h, 2d"),
        ("/callbacks?error=lost", "an error is http_404"),
        ("/callbacks?workspace=nobody", "nobody"),
        ("/endpoints?from=-1", "a page begins at a number"),
        ("/callback?workspace=acme&id=zzz", "there is no event zzz of workspace acme: it was never accepted"),
        ("/callback?workspace=acme", "the page lacks id: go back and try again"),
        ("/endpoint?owner=acme&url=zzz", "zzz"),
        ("/work/zzz", "this piece of work is not known here"),
        ("/rejected?reason=zzz", "a reason is one of"),
        ("/live?workspace=zzz", "there is no workspace"),
    ],
)
def test_what_is_wrong_is_said(world: World, cookie: str, path: str, said: str) -> None:
    status, _, page = get(world.url + path, Cookie=cookie)
    assert status in (400, 404)
    assert said in re.sub(r"<[^>]*>", "", page), text_of(page)
    assert "--" not in re.sub(r"dispatcher [^)]*", "", text_of(page)), "a page has no options"


def test_no_fault_was_logged(world: World) -> None:
    """After all of this file's other tests: none of them was a fault that a page hid."""
    lines = [json.loads(line) for line in world.console.log.read_text().splitlines() if line.startswith("{")]
    assert not [line for line in lines if line["event"] in ("console.internal_error", "console.job_failed")]


def test_an_unknown_path_and_method(world: World, cookie: str) -> None:
    assert "there is no such page" in get(f"{world.url}/zzz", Cookie=cookie)[2]
    assert 405 == ask("POST", f"{world.url}/work", {}, Cookie=cookie)[0]


@pytest.mark.parametrize("path", ["/callback?workspace=acme&id=", "/callbacks?state=", "/workspace?id="])
def test_a_field_that_is_too_long_is_refused_and_not_quoted(world: World, cookie: str, path: str) -> None:
    """Of a URL and of a form alike; a request or a key that somebody pastes may be long."""
    long = "A" * (MOST_CHARACTERS + 1)
    status, _, page = get(world.url + path + long, Cookie=cookie)
    assert 400 == status
    assert "characters; at most 2,048" in text_of(page)
    assert long not in text_of(page)
    refused = ask("POST", f"{world.url}/signature", GOOD | {"workspace": long}, Cookie=cookie)
    assert (400, True) == (refused[0], "workspace has 2,049 characters" in refused[2])
    pasted = GOOD | {"body": long, "headers": f"{GOOD['headers']}\nx: {long}", "secret": long}
    assert "characters; at most" not in ask("POST", f"{world.url}/signature", pasted, Cookie=cookie)[2]
