"""A small installation with a console: real Redis, worker, receivers; and a browser that reports whatever is wrong."""

import asyncio
import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from playwright.sync_api import BrowserContext, Page

from tests.acceptance.stack import CLI, Stack, wait_until

T = TypeVar("T")

START_SECONDS = 30


def run_apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in a thread of its own: the browser of other tests has an event loop in this one."""
    with ThreadPoolExecutor(1) as own:
        return own.submit(asyncio.run, coroutine).result()


class ConsoleProcess:
    """`dispatcher console`, as an operator starts it."""

    def __init__(self, stack: Stack, *options: str, **settings: str) -> None:
        self.log = stack.folder / f"console-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*CLI, "console", "--port", "0", *options],
                cwd=stack.folder,
                env=stack.environment | settings,
                stdout=log,
                stderr=log,
            )
        wait_until(self._is_up, START_SECONDS, "the console is up")
        found = re.search(r"running on (http://[^ ]+)", self.log.read_text())
        assert found, self.log.read_text()
        self.url = found[1]

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return "running on" in self.log.read_text()

    @property
    def token(self) -> str:
        """The token of the link that it printed."""
        found = wait_until(
            lambda: re.search(r"#token=(\S+)", self.log.read_text()), 10, "the link is printed"
        )
        return str(found[1])

    def stop(self) -> int:
        """Ends it as an operator would; its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()


@contextmanager
def console(stack: Stack, *options: str, **settings: str) -> Iterator[ConsoleProcess]:
    """A console that runs for as long as the block."""
    found = ConsoleProcess(stack, *options, **settings)
    try:
        yield found
    finally:
        found.stop()


def key_for(stack: Stack, role: str) -> str:
    """A console key of that role, by the command line."""
    return str(stack.cli_json("console-key", "add", f"{role}'s", "--role", role)["apiKey"])


class Watched:
    """A page of a browser. Errors of its console, of its scripts, and of its Content-Security-Policy are kept."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.problems: list[str] = []
        self.expected: list[str] = []
        """Parts of problems that this test causes on purpose."""
        self.page.on(
            "console", lambda said: said.type in ("error", "warning") and self.problems.append(said.text)
        )
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))

    def check(self) -> None:
        """Fails if anything was wrong that was not expected."""
        wrong = [one for one in self.problems if not any(part in one for part in self.expected)]
        assert not wrong, wrong


def findings(page: Page) -> list[dict[str, Any]]:
    """What axe-core finds wrong on a page."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        {"id": one["id"], "help": one["help"], "nodes": [node["html"][:200] for node in one["nodes"][:3]]}
        for one in found
    ]


def get(url: str, **headers: str) -> tuple[int, dict[str, str], str]:
    """A request without a browser, whose redirects are not followed: status, headers, text."""
    return ask("GET", url, None, **headers)


def ask(
    method: str, url: str, form: dict[str, str] | None, **headers: str
) -> tuple[int, dict[str, str], str]:
    """The same by any method, with a form."""
    from urllib.parse import urlencode

    body = None if form is None else urlencode(form).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if form is not None:
        named = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"} | named
    request = urllib.request.Request(url, body, named, method=method)
    opener = urllib.request.build_opener(_Stay())
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def session(url: str, key: str) -> str:
    """Logs in without a browser; the Cookie header of the session."""
    status, headers, text = ask("POST", f"{url}/login", {"key": key})
    assert status == 303, (status, text)
    return headers["set-cookie"].partition(";")[0]


def dumped(value: Any) -> str:
    """JSON for a failure's text."""
    return json.dumps(value, indent=1)
