"""Two customers with a console and an API: what one of them must not see of the other, and of who runs it all."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.acceptance.stack import CLI, Stack, Worker, free_port, running_stack, wait_until
from tests.console.world import ConsoleProcess, ask, console, get, key_for

SECRETS = {"m90", "+233299999999", "rival-order", "rival-reference", "rival-hooks"}
"""What only globex has: message, number, the customer's id, reference, path."""
JANE = "jane@acme.example"


class Portal:
    """An installation whose customers have a portal; `stop` what it started."""

    def __init__(self, stack: Stack, found: ConsoleProcess, url: str = "") -> None:
        self.stack = stack
        self.console = found
        self.url = url or found.url
        """The console's, as browsers reach it."""
        self.producer = stack.cli_json("producer-key", "add", "billing")["apiKey"]
        self.api = f"http://127.0.0.1:{free_port()}"
        self.server = start_api(stack, self.api, DISPATCHER_CONSOLE_URL=self.url)

    def link(self, workspace: str = "acme", name: str = JANE, **fields: str) -> str:
        """Asks for a link, as a backend does."""
        return link_of(self.api, self.producer, workspace=workspace, name=name, **fields)

    def customer(self, workspace: str = "acme", name: str = JANE) -> str:
        """A customer's session, as a Cookie header."""
        return entered(self.link(workspace, name))

    def look(self, path: str, cookie: str) -> tuple[int, dict[str, str], str]:
        """A page of the portal."""
        return get(f"{self.url}/portal{path}", Cookie=cookie)

    def act(self, path: str, cookie: str, **form: str) -> tuple[int, dict[str, str], str]:
        """An action of the portal."""
        return ask("POST", f"{self.url}/portal{path}", form, Cookie=cookie)

    def trail(self, workspace: str = "acme") -> list[dict[str, Any]]:
        """The log of actions, newest first."""
        found: list[dict[str, Any]] = self.stack.cli_json("audit", "list", "--workspace", workspace)
        return found


def start_api(stack: Stack, url: str, *options: str, **settings: str) -> Worker:
    """`dispatcher api`, once it answers; it ends with the stack."""
    command = [*CLI, "api", "--port", str(urlsplit(url).port), *options]
    server = Worker(
        stack, command, stack.environment | settings, stack.folder / f"api-{urlsplit(url).port}.log"
    )
    stack.workers.append(server)
    wait_until(lambda: is_up(url) or server.process.poll() is not None, 30, "the API is up")
    assert server.process.poll() is None, server.log
    return server


def is_up(url: str) -> bool:
    """Whether it answers."""
    try:
        return httpx.get(f"{url}/healthz").is_success
    except httpx.TransportError:
        return False


def link_of(api: str, key: str, **fields: str) -> str:
    """The link that an API gives."""
    answer = httpx.post(f"{api}/v1/portal-links", headers={"Authorization": f"Bearer {key}"}, json=fields)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["url"])


def entered(link: str) -> str:
    """Opens a link; the Cookie header of its session."""
    status, headers, text = get(link)
    assert status == 303, (status, text)
    return headers["set-cookie"].partition(";")[0]


def first_rows(url: str, cookie: str, until: str, act: Any) -> str:
    """What a stream of server-sent events says until a text is in it; `act` is called once it says that it is live."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.netloc, timeout=25)
    try:
        connection.request("GET", f"{where.path}?{where.query}", headers={"Cookie": cookie})
        answer = connection.getresponse()
        assert answer.status == 200
        while (line := answer.readline()) != b"data: live\n":
            assert line, "it ended before it was live"
        act()
        said = ""
        while until not in said:
            line = answer.readline()
            assert line, f"it ended without {until}: {said}"
            said += line.decode()
        return said
    finally:
        connection.close()


async def _answer(request: Any, number: int) -> Any:
    from aiohttp import web

    if "no" in request.path:
        return web.Response(status=404, text="no such hook")
    return web.Response(text="ok")


@contextmanager
def two_customers(folder: Path) -> Iterator[tuple[Stack, list[str], list[str]]]:
    """acme and globex, each with what was delivered and what failed; and what an operator did to acme."""
    with running_stack(folder) as stack:
        stack.answer = _answer
        for name, path in (("acme", "no"), ("globex", "no-rival-hooks")):
            stack.add_workspace(name, "namirial")  # whose messages are found by number and reference
            made = stack.cli_json(
                "subscription", "add", name, "no", "--callback-url", f"{stack.listen()}/{path}"
            )
            stack.secrets[f"{name}.no"] = made["secret"]
        assert stack.cli("workspace", "update", "acme", "--max-concurrency", "7").returncode == 0
        stack.start_worker()
        own = stack.enqueue(60, status="DELIVERED")
        message = {
            "uuid": "m90",
            "src": "GLOBEX",
            "dest": "+233299999999",
            "customerMessageId": "rival-order",
        }
        message |= {"reference": {"service": "RIVAL", "action": "PAID", "key": "rival-reference"}}
        others = stack.enqueue(55, first=100, workspace="globex", status="DELIVERED")
        others += stack.enqueue(1, workspace="globex", status="DELIVERED", message=message)
        for workspace, ids in (("acme", own), ("globex", others)):
            stack.wait_ended(ids, workspace, 60)
            stack.wait_ended([f"{one}.no" for one in ids], workspace, 60)
        yield stack, own, others


@contextmanager
def portal(stack: Stack) -> Iterator[Portal]:
    """A console and an API on plain http."""
    with console(stack, "--link") as found:
        yield Portal(stack, found)


def operators_cookie(url: str, stack: Stack, role: str = "admin") -> str:
    """A session of an operator."""
    status, headers, text = ask("POST", f"{url}/login", {"key": key_for(stack, role)})
    assert status == 303, text
    return headers["set-cookie"].partition(";")[0]
