"""Each page in a real browser: no error, no broken policy, nothing that axe-core finds."""

import pytest

from tests.console.conftest import Visits, World
from tests.console.world import dumped, findings

PAGES = {
    "overview": "/",
    "overview of a day": "/?span=day",
    "endpoints": "/endpoints",
    "endpoints in trouble": "/endpoints?state=trouble",
    "failed callbacks": "/callbacks?state=failed",
    "waiting callbacks": "/callbacks?state=waiting",
    "callbacks of a workspace that there is not": "/callbacks?workspace=nobody",
    "rejected": "/rejected",
    "workspaces": "/workspaces",
    "workspace": "/workspace?id=acme",
    "workspace over a week": "/workspace?id=acme&span=week",
    "subscription": "/subscription?workspace=acme&subscription=default",
    "live": "/live",
    "search": "/search",
    "nothing found": "/search?q=nothing-like-this",
    "signature": "/signature",
    "work": "/work",
    "log": "/log",
    "account": "/account",
}
REFUSED = {"callbacks of a workspace that there is not"}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_each_page_is_whole(world: World, browser: Visits, name: str, dark: bool) -> None:
    watched = browser.as_("admin", color_scheme="dark" if dark else "light")
    if name in REFUSED:
        watched.expected.append("404")
    watched.page.goto(world.url + PAGES[name])
    assert watched.page.locator("h1").inner_text()
    assert not findings(watched.page), dumped(findings(watched.page))


def test_a_callback_and_its_endpoint(world: World, browser: Visits) -> None:
    watched = browser.as_("operator")
    page = watched.page
    page.goto(f"{world.url}/callback?workspace=acme&id={world.failed[0]}")
    assert "no such hook" in page.locator(".answer").inner_text()
    assert not findings(page), dumped(findings(page))
    page.get_by_role("link", name="http://127.0.0.1").first.click()
    page.wait_for_url("**/endpoint?**")
    assert not findings(page), dumped(findings(page))
