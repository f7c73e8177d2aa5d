"""The upper bound: an aiohttp loop that only posts the same signed bodies; no queue, ledger or log."""

import asyncio
import json
import sys
import time

import aiohttp
import uvloop

from bench.load import Customer, Load
from bench.plain_celery import SECRET
from dispatcher.model import StatusChange, encode_json
from dispatcher.rules.dialects import dialects
from dispatcher.signing import key_of, webhook_headers


async def post_all(urls: list[str], count: int, concurrency: int, note: int) -> None:
    """Posts `count` callbacks to the URLs in turn."""
    load, dialect = Load(None), dialects()["namirial" if note else "zeckta"]
    load.note = note
    key = key_of(SECRET)
    bodies = []
    for number in range(count):
        change = StatusChange.from_json(load.change("b", Customer("w", urls[number % len(urls)])))
        body = encode_json(dialect.body(change, dialect.event_type(change), 0))
        bodies.append((urls[number % len(urls)], change.event_id, body))
    waiting = iter(bodies)

    async def work(session: aiohttp.ClientSession) -> None:
        for url, event_id, body in waiting:
            headers = webhook_headers([key], event_id, int(time.time()), body)
            async with session.post(
                url, data=body, headers={"content-type": "application/json"} | headers
            ) as answer:
                await answer.read()

    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        print("ready.", file=sys.stderr, flush=True)
        await asyncio.gather(*(work(session) for _ in range(concurrency)))


if __name__ == "__main__":
    task = json.load(sys.stdin)
    uvloop.run(post_all(**task))
