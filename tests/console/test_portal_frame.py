"""The portal in a frame of another site's page, by HTTPS in a real browser; served by `dispatcher api --console`."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.stack import free_port
from tests.console.conftest import World
from tests.console.portal_world import JANE, link_of, start_api
from tests.console.tls import context, forwarder, one_page
from tests.console.world import Watched, dumped, findings, get

PAGES = ("workspace", "callbacks", "endpoints", "live", "signature", "work", "log", "account", "search")


@dataclass
class Framed:
    """The portal's site and two others, each on its own address."""

    api: str
    key: str
    portal: str
    """https://localhost:…/console"""
    site: str
    """https://127.0.0.1:…, whose pages may show it."""
    other: str
    """Another one, which may not."""
    pages: dict[str, str]

    def link(self, **fields: str) -> str:
        """A link to acme's portal."""
        return link_of(self.api, self.key, workspace="acme", name=JANE, **fields)

    def show(self, url: str) -> None:
        """Makes the page that shows a URL in a frame."""
        self.pages["/"] = (
            f'<!doctype html><html lang="en"><title>Site</title><iframe title="Callbacks" width="1200" height="900" src="{url}"></iframe>'
        )


@pytest.fixture(scope="module")
def framed(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Framed]:
    """One process for API and console, behind TLS; and two sites."""
    tls, pages = context(tmp_path_factory.mktemp("tls")), dict[str, str]()
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [one.getsockname()[1] for one in listeners]
    portal, api = f"https://localhost:{ports[0]}/console", f"http://127.0.0.1:{free_port()}"
    start_api(world.stack, api, "--console", DISPATCHER_CONSOLE_URL=portal)
    key = world.stack.cli_json("producer-key", "add", "billing")["apiKey"]
    with (
        forwarder(listeners[0], tls, api),
        one_page(listeners[1], tls, pages),
        one_page(listeners[2], tls, pages),
    ):
        yield Framed(
            api, key, portal, f"https://127.0.0.1:{ports[1]}", f"https://127.0.0.1:{ports[2]}", pages
        )


def opened(chromium: Any, **options: Any) -> Watched:
    """A fresh browser that takes the test's certificate."""
    return Watched(chromium.new_context(ignore_https_errors=True, **options))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_each_page_of_the_portal_is_whole(chromium: Any, framed: Framed, dark: bool) -> None:
    watched = opened(chromium, color_scheme="dark" if dark else "light")
    page = watched.page
    page.goto(framed.link())
    page.wait_for_url("**/console/portal/workspace")
    for name in PAGES:
        page.goto(f"{framed.portal}/portal/{name}")
        assert page.locator("h1").inner_text()
        assert not findings(page), (name, dumped(findings(page)))
    page.context.close()
    watched.check()


def test_in_a_frame_of_another_site_it_is_seen_and_used(chromium: Any, framed: Framed, world: World) -> None:
    """Links, actions, live attempts and logging out work in the frame, with a cookie that only that site's frame has."""
    watched = opened(chromium)
    watched.expected.append("401")
    page = watched.page
    framed.show(framed.link(frameOrigin=framed.site))
    page.goto(f"{framed.site}/")
    frame = page.frame_locator("iframe")
    frame.get_by_role("heading", name="acme").wait_for()
    (cookie,) = page.context.cookies(framed.portal)
    assert ("__Host-dispatcher_portal", "None", True, True) == (
        cookie["name"], cookie["sameSite"], cookie["secure"], cookie["httpOnly"],
    )  # fmt: skip
    assert cookie.get("partitionKey")
    frame.get_by_role("row", name="no ").get_by_role("button", name="Pause").click()
    frame.get_by_text("no is paused").wait_for()
    frame.get_by_role("button", name="Resume").click()
    frame.get_by_text("no is active again").wait_for()
    frame.get_by_role("link", name="Live", exact=True).click()
    frame.get_by_text("attempts appear as they are made").wait_for()
    frame.get_by_role("link", name="Callbacks", exact=True).click()
    frame.locator("td a.id").first.click()
    frame.get_by_role("button", name="Send again").click()
    frame.get_by_role("status").first.wait_for()
    frame.get_by_role("link", name=JANE).click()
    frame.get_by_role("button", name="Log out", exact=True).click()
    frame.get_by_text("you are logged out").wait_for()
    assert [] == page.context.cookies(framed.portal)
    page.context.close()
    watched.check()


def test_no_other_site_may_show_it(chromium: Any, framed: Framed) -> None:
    """Neither a site that the link does not name, nor any where it names none; console pages nowhere."""
    for url in (framed.link(frameOrigin=framed.site), framed.link(), f"{framed.portal}/login"):
        watched = opened(chromium)
        watched.expected += ["frame-ancestors", "ERR_BLOCKED_BY_RESPONSE", "chrome-error", "401"]
        page = watched.page
        framed.show(url)
        page.goto(f"{framed.other}/")
        page.wait_for_timeout(500)
        texts = [one.locator("body").inner_text() for one in page.frames[1:]]
        assert not [text for text in texts if "acme" in text or "Key" in text], texts
        page.context.close()
        watched.check()


def test_one_process_serves_api_and_console(chromium: Any, framed: Framed, world: World) -> None:
    """The console is below /console: log-in, links, static files; the API's paths are as they were."""
    assert 200 == get(f"{framed.api}/healthz")[0]
    assert 200 == get(f"{framed.api}/openapi.json")[0]
    assert 200 == get(f"{framed.api}/console/static/console.css")[0]
    assert "/console/" == get(f"{framed.api}/console")[1]["location"]
    assert "/console/login?to=%2Fworkspaces" == get(f"{framed.api}/console/workspaces")[1]["location"]
    watched = opened(chromium)
    page = watched.page
    page.goto(f"{framed.portal}/workspaces")
    page.get_by_label("Key").fill(world.keys["admin"])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{framed.portal}/workspaces")
    page.get_by_role("link", name="acme").click()
    page.wait_for_url(f"{framed.portal}/workspace?id=acme")
    page.get_by_role("link", name="Watch live").click()
    page.get_by_text("attempts appear as they are made").wait_for()
    page.context.close()
    watched.check()


def test_several_processes_cannot_serve_the_console(world: World) -> None:
    done = world.stack.cli("api", "--console", "--workers", "2", "--port", "0")
    assert (2, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert "--console goes with one process" in done.stderr
