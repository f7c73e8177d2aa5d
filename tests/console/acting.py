"""An installation that tests act on, apart from the one that they only read; and the steps of an operator in a browser."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from playwright.sync_api import Page, expect

from tests.acceptance.stack import Stack, running_stack, wait_until
from tests.console.conftest import World
from tests.console.world import ask, console, key_for

WORK = re.compile(r"/work/[0-9a-f]{16}$")


class Scene(World):
    """The installation; what its receivers answer can be changed."""

    status = 200
    """What every receiver answers."""
    retry_after = ""
    """And in how many seconds it wants it again."""

    def failing(self, workspace: str, count: int, first: int = 0, **fields: Any) -> list[str]:
        """Callbacks that have failed: the receiver says no to them, and says yes afterwards."""
        self.status = 404
        ids = self.stack.enqueue(count, first=first, workspace=workspace, **fields)
        assert {"failed": count} == self.stack.wait_ended(ids, workspace, 90)
        self.status = 200
        return ids

    def attempts(self, event_id: str) -> int:
        """How often its receiver got it."""
        return sum(1 for one in self.stack.received if one.event_id == event_id)

    def audit(self, what: str) -> dict[str, Any]:
        """The latest change of that name, as `dispatcher audit list` prints it."""
        found: list[dict[str, Any]] = self.stack.cli_json("audit", "list")
        return next(one for one in found if one["what"] == what)

    def count(self, path: str, cookie: str, **form: str) -> str:
        """Begins to count without a browser; the URL of the work."""
        status, headers, text = ask("POST", self.url + path, form, Cookie=cookie)
        assert status == 303, text
        url = self.url + headers["location"]
        wait_until(lambda: "Counting:" not in ask("GET", url, None, Cookie=cookie)[2], 30, "it is counted")
        return url

    def confirm(self, work: str, cookie: str, count: int | str) -> tuple[int, str]:
        """Confirms a count without a browser; status, and the text of the answer."""
        status, _, text = ask("POST", f"{work}/begin", {"count": str(count)}, Cookie=cookie)
        return status, text

    def finished(self, work: str, cookie: str) -> str:
        """Waits for the end of a piece of work; the text of its page."""

        def over() -> str:
            text = ask("GET", work, None, Cookie=cookie)[2]
            return text if "<progress" not in text and "Counting:" not in text else ""

        return str(wait_until(over, 60, "the work is over"))


@contextmanager
def acting_scene(folder: Path, **settings: str) -> Iterator[Scene]:
    """The workspaces acme and globex with a worker and a console."""
    with running_stack(folder) as stack:
        stack.environment |= {"DISPATCHER_MAX_ATTEMPTS": "2"} | settings
        stack.add_workspace("acme")
        stack.add_workspace("globex")
        keys = {role: key_for(stack, role) for role in ("viewer", "operator", "admin")}
        keys["second"] = str(
            stack.cli_json("console-key", "add", "a second one's", "--role", "operator")["apiKey"]
        )
        with console(stack) as found:
            scene = Scene(stack, found, keys, [], [])
            stack.answer = _answering(scene)
            stack.start_worker()
            yield scene


def _answering(scene: Scene) -> Any:
    async def answer(request: web.Request, number: int) -> web.Response:
        headers = {"Retry-After": scene.retry_after} if scene.retry_after else {}
        return web.Response(
            status=scene.status, headers=headers, text="" if scene.status == 200 else "no such hook"
        )

    return answer


def endpoint_of(stack: Stack, workspace: str) -> str:
    """The endpoint that a workspace's callbacks go to."""
    found = stack.cli_json("endpoint", "list", "--workspace", workspace)
    return str(found[0]["endpoint"])


def counted(page: Page, number: str) -> None:
    """Waits on the page of a piece of work until it has counted that much."""
    expect(page.locator("#job strong")).to_have_text(number, timeout=20_000)
    assert WORK.search(page.url), page.url


def confirmed(page: Page, button: str) -> str:
    """Confirms on that page, waits for the end; the sentence that says what came of it."""
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.locator("#job p[role=status].good")).to_be_visible(timeout=60_000)
    return page.locator("#job p[role=status]").inner_text()
