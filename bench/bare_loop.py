"""The upper bound: an aiohttp loop that only posts the same signed bodies; no queue, ledger or log."""

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import uvloop

from bench.load import Customer, Load
from bench.plain_celery import SECRET
from dispatcher.model import StatusChange, encode_json
from dispatcher.rules.dialects import dialects
from dispatcher.signing import key_of, webhook_headers

KEY = key_of(SECRET)
DNS_SECONDS = 10
"""How long a looked-up name is kept: as long as a worker keeps it."""

Post = tuple[str, str, bytes]
"""URL, eventId, body."""


@dataclass(frozen=True)
class Setup:
    """How the loop connects."""

    kept_seconds: float = 4
    """How long it keeps an idle connection."""
    name_servers: Sequence[str] = ()
    """Addresses with ports; empty: the system's."""
    authority: str = ""
    """PEM file of an authority to trust beside the system's."""


class Session:
    """An aiohttp client of that setup; use it in `async with`."""

    def __init__(self, setup: Setup) -> None:
        context = ssl.create_default_context()
        if setup.authority:
            context.load_verify_locations(setup.authority)
        connector = aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=setup.kept_seconds,
            ssl=context,
            ttl_dns_cache=DNS_SECONDS,
            resolver=aiohttp.AsyncResolver(nameservers=list(setup.name_servers))
            if setup.name_servers
            else None,
        )
        self.client = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.close()


def rendered(line: bytes, dialect: str = "zeckta") -> Post:
    """What is posted for a status change."""
    change = StatusChange.from_json(line)
    chosen = dialects()[dialect]
    body = encode_json(chosen.body(change, chosen.event_type(change) or "", 0))
    return str(change.callback_url), str(change.event_id), body


async def post(client: aiohttp.ClientSession, url: str, event_id: str, body: bytes) -> None:
    """Makes one signed POST."""
    headers = webhook_headers([KEY], event_id, int(time.time()), body)
    async with client.post(url, data=body, headers={"content-type": "application/json"} | headers) as answer:
        await answer.read()


async def post_all(urls: list[str], count: int, concurrency: int, note: int, **setup: Any) -> None:
    """Posts `count` callbacks to the URLs in turn."""
    load = Load(None)
    load.note = note
    dialect = "namirial" if note else "zeckta"
    bodies = [
        rendered(load.change("b", Customer("w", urls[number % len(urls)])), dialect)
        for number in range(count)
    ]
    waiting = iter(bodies)

    async def work(client: aiohttp.ClientSession) -> None:
        for one in waiting:
            await post(client, *one)

    async with Session(Setup(**setup)) as session:
        print("ready.", file=sys.stderr, flush=True)
        await asyncio.gather(*(work(session.client) for _ in range(concurrency)))


if __name__ == "__main__":
    task = json.load(sys.stdin)
    uvloop.run(post_all(**task))
