"""An installation in which everything that comes from outside is hostile."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from playwright.sync_api import Page

from dispatcher.rules.partitions import Partitioning
from dispatcher.store.keys import keys_of
from tests.acceptance.stack import Stack, running_stack, wait_until
from tests.console.world import ConsoleProcess, console, key_for

TAG = "x-owned"
"""An element that no page of ours has."""
MARKUP = (
    f"'\"></pre></td></textarea></select></title><{TAG}>hostile</{TAG}>"
    '<script>window.owned = 1</script><img src=x onerror="window.owned = 1">{{ 7 * 191 }}'
)
UNSEEN = "\N{RIGHT-TO-LEFT OVERRIDE}\N{ZERO WIDTH SPACE}\N{LINE SEPARATOR}\x1b[31m\x00\x85"
"""Characters that change how others are shown, or are not shown."""
SHOWN = r"\u202e\u200b\u2028\x1b[31m\x00\x85"
"""As they are shown."""
HOSTILE = MARKUP + UNSEEN
NUMBER = "233200004711"
"""A phone number that viewers must not see."""
SECRET_HEADER = "s3cret-of-a-header"
TOKEN = "t0ken-of-a-query"
OF_BODY = "550099"
"""A number within a body."""


@dataclass
class Hostile:
    """The installation, its console, and what is in it."""

    stack: Stack
    console: ConsoleProcess
    keys: dict[str, str]
    failed: str
    """An eventId whose receiver's answer is hostile."""
    entry: str
    """A rejected entry whose every field is."""

    @property
    def url(self) -> str:
        """The console's."""
        return self.console.url

    def publish(self, *attempts: Any, raw: bytes | None = None) -> None:
        """Publishes on the channel of attempts, as anybody can who reaches Redis; waits until somebody listens."""
        text = json.dumps(attempts).encode() if raw is None else raw
        wait_until(lambda: self.stack.redis.publish("dispatcher:tail", text), 20, "the console listens")


async def _answer(_request: web.Request, _number: int) -> web.Response:
    numbers = f"call +{NUMBER} or +233 20-000-4711 or (233) 20.000.4711 or %2B233%2020%20000%204711 "
    return web.Response(
        status=404, body=numbers.encode() + HOSTILE.encode() + b"\xff\xfe", headers={"X-Hostile": MARKUP}
    )


@contextmanager
def hostile_world(folder: Path) -> Iterator[Hostile]:
    """Starts it: one workspace whose receiver refuses everything with a hostile answer."""
    with running_stack(folder) as stack:
        stack.answer = _answer
        url = f"{stack.listen()}/hooks/';alert(1)//{NUMBER}?key={TOKEN}&x=[1-9]'$(touch${{IFS}}owned)"
        url = url.replace("{", "%7B").replace("}", "%7D")
        made = stack.cli_json("workspace", "add", "acme", "--dialect", "zeckta", "--callback-url", url,
                              "--header", f"X-Api-Token: {SECRET_HEADER}")  # fmt: skip
        stack.secrets["acme"] = made["secret"]
        stack.start_worker()
        (failed,) = stack.enqueue(1, message=_message())
        raw = {"workspace": HOSTILE, "eventId": HOSTILE, "status": HOSTILE, "message": {"dest": f"+{NUMBER}"}}
        stack.redis.xadd("dispatcher:events", {"event": json.dumps(raw, ensure_ascii=False).encode()})
        stack.redis.xadd("dispatcher:events", {"event": HOSTILE.encode() + b"\xff"})
        stack.wait_ended([failed])
        entry = wait_until(
            lambda: stack.redis.xrevrange("dispatcher:rejected", count=1), 20, "it was rejected"
        )
        _plant(stack)
        keys = {role: key_for(stack, role) for role in ("viewer", "operator", "admin")}
        with console(stack, "--link") as found:
            yield Hostile(stack, found, keys, failed, entry[0][0].decode())


def _message() -> dict[str, Any]:
    return {
        "uuid": "m-hostile",
        "src": MARKUP[:200],
        "dest": f"+{NUMBER}",
        "customerMessageId": MARKUP[:200],
        "campaignId": UNSEEN.replace("\x00", ""),
        "reference": {MARKUP: MARKUP, "paid": int(OF_BODY)},
        "provider": {"name": f"+{NUMBER}"},
    }


def _plant(stack: Stack) -> None:
    """Puts hostile text where only somebody who reaches Redis can: heartbeats, alerts, the log of actions."""
    keys = keys_of("dispatcher", 1)[Partitioning(1).home("acme")]
    now_ms = int(time.time() * 1000)
    name = HOSTILE.replace("\x00", "")
    stack.redis.zadd(keys.workers, {name: now_ms + 3_600_000})
    stack.redis.set(keys.worker(name), json.dumps({"pid": 1}), ex=3600)
    alert = {"at": now_ms, "worker": name, "kind": name, "workspace": "acme", name: name, "to": f"+{NUMBER}"}
    stack.redis.lpush(keys.alerts, json.dumps(alert))
    facts = json.dumps({name: name, "deep": {name: [name, None]}})
    stack.redis.xadd(
        keys.audit,
        {
            "at": now_ms,
            "via": name,
            "who": name,
            "what": name,
            "workspace": "acme",
            "from": facts,
            "to": facts,
        },
    )


def assert_harmless(page: Page) -> None:
    """Nothing ran, and no element came into being from a text."""
    assert page.evaluate("window.owned") is None
    made = page.evaluate(
        f"[...document.querySelectorAll('{TAG}, img, script:not([src]), iframe, object, [onerror], [style]')]"
        ".map(one => one.outerHTML.slice(0, 200))"
    )
    assert not made, made
    assert "1337" not in page.content()


def unseen_on(page: Page) -> list[str]:
    """Characters in the page's text, its title and its labels that are not shown as they are."""
    text = page.evaluate(
        "document.documentElement.textContent + document.title"
        " + [...document.querySelectorAll('[aria-label], [title]')].map(one => one.ariaLabel + one.title).join('')"
    )
    return sorted({hex(ord(one)) for one in text if not one.isprintable() and one not in "\n\t"})
