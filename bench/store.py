"""`make bench-store`: the message store's cost for callbacks, its memory in Redis, and its query latency.

Runs with and without the store, in turn, on one machine; then queries a million messages by HTTP.
"""

import argparse
import asyncio
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import aiohttp
import redis

from bench.contenders import Contenders, Size, customers, ratio
from bench.drain import limit
from bench.receiver import Receiver
from bench.report import Progress, keep, machine, percentile, spread, table
from bench.stack import Stack, running, wait_until
from dispatcher.model import StatusChange, iso
from dispatcher.store.api_keys import ApiKeys
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import Keys
from dispatcher.store.ledger import Ledger
from dispatcher.store.wire import Wire
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.recorder import Recorder
from tests.acceptance.stack import free_port
from tests.messages import TOKEN, tell

FULL, QUICK = Size(5, 8_000, 0, 20), Size(1, 3_000, 0, 3)
MESSAGES, MESSAGES_QUICK = 1_000_000, 20_000
WEEK_MS = 604_800_000
LIFE = ("SUBMITTED", "SENT", "DELIVERED")
KINDS = (
    ("zeckta, one status change a message", "zeckta", ("DELIVERED",)),
    ("zeckta, three", "zeckta", LIFE),
    ("namirial, two", "namirial", LIFE[1:]),
    ("qlara, one", "qlara", LIFE[2:]),
)
RETENTION = {"with": "604800", "without": "0"}
"""Seconds for which messages are kept, with and without the store."""
QUERIES_PER_SECOND, CALLBACKS_PER_SECOND = 500, 300
AT_ONCE = 170
"""Messages recorded in one script: with three status changes each some 512, as intake does while it is behind."""


def throughput(contenders: Contenders) -> str:
    """Callbacks a second with and without the store."""
    rows = []
    urls = contenders.urls(100)
    for name, dialect, statuses in KINDS:
        rates = contenders.rates(
            name,
            {
                how: partial(
                    contenders.ours,
                    urls,
                    dialect=dialect,
                    statuses=statuses,
                    STATUS_RETENTION_SECONDS=seconds,
                )
                for how, seconds in RETENTION.items()
            },
        )
        found = rates["with"], rates["without"]
        rows.append([name, *(spread(one, 0) for one in found), ratio(*found)])
    return table(["one worker, 100 endpoints", "callbacks/s with", "without", "÷ without"], rows)


def intake(contenders: Contenders, count: int) -> str:
    """Status changes accepted a second by intake while nothing else runs."""
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(contenders.size.rounds):
        for name, seconds in RETENTION.items():
            contenders.progress.start(f"intake {name}")
            with running(workers=0, STATUS_RETENTION_SECONDS=seconds) as stack:
                made = customers(stack, contenders.urls(100))
                limit(stack, "0.001")
                stack.load.statuses, stack.load.each, stack.load.named = LIFE, len(LIFE), True
                stack.load.burst("b", made, count)
                began = time.monotonic()
                stack.start()
                wait_until(
                    lambda: stack.client.xlen("dispatcher:events") < count, 60, "the first", every=0.01
                )
                began = time.monotonic()
                wait_until(lambda: stack.client.xlen("dispatcher:events") == 0, 120, "intake", every=0.01)
                found[name].append(count / (time.monotonic() - began))
    rows = [
        [*(spread(found[name], 0) for name in ("with", "without")), ratio(found["with"], found["without"])]
    ]
    return table(["intake, accepted/s with", "without", "÷ without"], rows, texts=0)


def change(dialect: str, number: int, status: str, at_ms: int) -> StatusChange:
    """A status change with the fields that a platform of that dialect sends."""
    message: dict[str, Any] = {
        "uuid": f"m{number:08d}-6a5ad0ba-b5a9-11ef-b8d9",
        "src": "ZECKTA",
        "dest": f"+2332{number % 100_000_000:08d}",
        "segments": 1,
        "units": 1,
        "attempts": 1,
        "cost": "0.05",
        "currency": "GHS",
    }
    if dialect == "zeckta":
        message["campaignId"] = f"campaign-{number // 100_000}"
    if dialect == "namirial":
        message["reference"] = {"service": "SHOP", "action": "PAID", "key": f"order-{number}"}
        message["provider"] = {"name": "PROVIDER1", "id": f"p-{number}", "status": "delivered", "code": "0"}
    if dialect == "qlara":
        message["customerMessageId"] = f"order-{number}"
    fields = {"workspace": dialect, "status": status, "timestamp": iso(at_ms), "message": message}
    return StatusChange.from_dict(fields)


async def fill(url: str, dialect: str, count: int, retention_ms: int = WEEK_MS) -> None:
    """Records messages of three status changes each, spread over the last week."""
    client = connect_async(url)
    now = time.time_ns() // 1_000_000
    metrics = Metrics()
    ledger, recorder = Ledger(client.execute_command, Keys(), url), Recorder(retention_ms, metrics)
    await ledger.lead(TOKEN, WEEK_MS)
    for first in range(0, count, AT_ONCE):
        changes = []
        for number in range(first, min(first + AT_ONCE, count)):
            at = now - WEEK_MS + 60_000 + (WEEK_MS - 120_000) * number // count
            changes += [
                change(dialect, number, status, at + 2000 * after) for after, status in enumerate(LIFE)
            ]
        await tell(ledger, recorder, changes, dialect)
    await ledger.lead(TOKEN, 0)
    assert metrics.recorded["failed"] == 0, metrics.recorded
    await client.aclose()


def memory(progress: Progress, count: int) -> str:
    """Bytes of Redis for a message of three status changes."""
    rows = []
    for dialect in ("sendexa", "zeckta", "namirial", "qlara"):
        progress.start(f"memory, {dialect}")
        with running(workers=0, aof="off") as stack:
            before = _used(stack)
            asyncio.run(fill(stack.server.url, dialect, count))
            used = _used(stack) - before
            keys = stack.client.dbsize()
        rows.append([dialect, f"{used / count:,.0f}", f"{keys / count:.2f}"])
    return table([f"{count:,} messages", "bytes each", "keys each"], rows)


def _used(stack: Stack) -> int:
    info = stack.client.info("memory")
    return int(info["used_memory"] - info["used_memory_lua"] - info["mem_clients_normal"])


PATHS = {
    "Zeckta, a message": ("zeckta", "/v1/messaging/sms/messages/m00000700-6a5ad0ba-b5a9-11ef-b8d9"),
    "Zeckta, a campaign, first page of 50": ("zeckta", "/v1/messaging/sms/campaigns/campaign-0"),
    "Zeckta, a campaign, page 1,000": ("zeckta", "/v1/messaging/sms/campaigns/campaign-0?page=1000"),
    "Sendexa, a message with all": (
        "sendexa",
        "/v1/sms/status/m00000700-6a5ad0ba-b5a9-11ef-b8d9?includeHistory=true&webhookStatus=true",
    ),
    "Sendexa, analytics of a day": ("sendexa", "/v1/sms/analytics"),
    "Namirial, by phone number": ("namirial", "/api/messagestatus/phonenumber/+233200000700"),
    "Namirial, by reference": ("namirial", "/api/messagestatus/reference/order-700"),
    "Qlara, by customerMessageId": ("qlara", "/partner-gateway/v1/messages/status/order-700?channel=SMS"),
    "Qlara, 300 at once": (
        "qlara",
        "/partner-gateway/v1/messages/status?channel=SMS&ids="
        + ",".join(f"order-{n}" for n in range(700, 1000)),
    ),
    "Qlara, history, a day, page 0": (
        "qlara",
        "/partner-gateway/v1/messages/history?channel=SMS&from={day}&to={now}",
    ),
    "Qlara, history, a week, last page": (
        "qlara",
        "/partner-gateway/v1/messages/history?channel=SMS&from={week}&to={now}&limit=100&page={last}",
    ),
    "Qlara, history, half a day, only ERROR (none)": (
        "qlara",
        "/partner-gateway/v1/messages/history?channel=SMS&from={half}&to={now}&status=ERROR",
    ),
}


@contextmanager
def api_of(stack: Stack) -> Iterator[tuple[str, dict[str, dict[str, str]]]]:
    """Runs the API as a process on a stack; yields its URL, and for each dialect the headers with an API key."""
    import base64

    async def make() -> dict[str, dict[str, str]]:
        client = connect_async(stack.server.url)
        headers = {}
        wire = Wire(client)
        for dialect in ("zeckta", "sendexa", "namirial", "qlara"):
            keys = ApiKeys(wire.call, Keys(), stack.server.url)
            _, text = await keys.add(dialect, dialect, "bench", now_ms=1, rate_per_second=10_000)
            basic = base64.b64encode(text.replace(".", ":").encode()).decode()
            headers[dialect] = {
                "zeckta": {"Authorization": f"Bearer {text}"},
                "sendexa": {"Authorization": f"Basic {basic}"},
            }.get(dialect, {"X-Api-Key": text})
        await wire.close()
        await client.aclose()
        return headers

    port = free_port()
    stack.start(sys.executable, "-m", "tasks", "api", "--port", str(port), ready="Uvicorn running")
    yield f"http://127.0.0.1:{port}", asyncio.run(make())


def queries(progress: Progress, count: int) -> str:
    """Latency of each query, one at a time, while a million messages are stored."""
    rows = []
    with running(workers=0, aof="off") as stack:
        for dialect in ("zeckta", "sendexa", "namirial", "qlara"):
            progress.start(f"{count // 4:,} messages of {dialect}")
            asyncio.run(fill(stack.server.url, dialect, count // 4))
        now, last = time.time_ns() // 1_000_000, count // 400 - 1
        day = {"week": WEEK_MS, "day": 86_400_000, "half": 43_200_000, "now": 0}
        times = {name: iso(now - ago) for name, ago in day.items()}
        with api_of(stack) as (url, headers):
            for name, (dialect, path) in PATHS.items():
                progress.start(name)
                took = asyncio.run(_ask(url + path.format(last=last, **times), headers[dialect], 200))
                rows.append([name, *(f"{percentile(took, share):.1f}" for share in (0.5, 0.95, 0.99))])
    return table([f"{count:,} messages in the store", "p50 ms", "p95 ms", "p99 ms"], rows)


async def _ask(url: str, headers: dict[str, str], count: int) -> list[float]:
    took = []
    async with aiohttp.ClientSession(headers=headers) as session:
        for _ in range(count):
            began = time.monotonic()
            async with session.get(url) as answer:
                await answer.read()
                assert answer.status == 200, (url, answer.status, await answer.text())
            took.append((time.monotonic() - began) * 1000)
    return took


def beside_callbacks(contenders: Contenders) -> str:
    """How 500 queries a second and callbacks affect each other's latency."""
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(contenders.size.rounds):
        for name in ("quiet", "asked"):
            contenders.progress.start(f"callbacks at {CALLBACKS_PER_SECOND}/s, {name}")
            with running(workers=0) as stack, api_of(stack) as (url, headers):
                asyncio.run(fill(stack.server.url, "zeckta", 20_000))
                stack.start()
                made = customers(stack, contenders.urls(100))
                stack.load.burst("w", made, 2 * len(made))
                stack.drained()
                contenders.receiver.take()
                rate = QUERIES_PER_SECOND if name == "asked" else 0
                with _asking(url, headers["zeckta"], rate) as asked:
                    stack.load.steady(CALLBACKS_PER_SECOND, contenders.size.seconds, {"b": made})
                    stack.drained()
                arrived = contenders.receiver.take()["b"]
            for share in (0.5, 0.95, 0.99):
                found[f"{name} {share}"].append(percentile(arrived.latencies_us, share) / 1000)
                if rate:
                    found[f"query {share}"].append(percentile(asked["took"], share))
            if rate:
                found["rate"].append(len(asked["took"]) / asked["seconds"])
    shares = (0.5, 0.95, 0.99)
    rows = [
        ["nobody asks", *(spread(found[f"quiet {share}"]) for share in shares)],
        [
            f"{spread(found['rate'], 0)} queries a second",
            *(spread(found[f"asked {share}"]) for share in shares),
        ],
        ["ratio", *(ratio(found[f"asked {share}"], found[f"quiet {share}"]) for share in shares)],
        ["the queries themselves", *(spread(found[f"query {share}"]) for share in shares)],
    ]
    head = [f"callbacks at {CALLBACKS_PER_SECOND}/s, XADD to arrival", "p50 ms", "p95 ms", "p99 ms"]
    return table(head, rows)


@contextmanager
def _asking(url: str, headers: dict[str, str], rate: int) -> Iterator[dict[str, Any]]:
    """Queries at a steady rate from a thread with its own event loop, while the block runs."""
    found: dict[str, Any] = {"took": [], "seconds": 1.0}
    stop = threading.Event()

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        began = time.monotonic()
        path = f"/v1/messaging/sms/messages/m{number % 20_000:08d}-6a5ad0ba-b5a9-11ef-b8d9"
        async with session.get(url + path) as answer:
            await answer.read()
            assert answer.status == 200
        found["took"].append((time.monotonic() - began) * 1000)

    async def ask() -> None:
        began, number = time.monotonic(), 0
        async with aiohttp.ClientSession(headers=headers) as session, asyncio.TaskGroup() as group:
            while not stop.is_set():
                while number < (time.monotonic() - began) * rate:
                    group.create_task(one(session, number))
                    number += 1
                await asyncio.sleep(0.002)
        found["seconds"] = time.monotonic() - began

    thread = threading.Thread(target=lambda: asyncio.run(ask())) if rate else None
    if thread:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        if thread:
            thread.join()


def expiry(progress: Progress, count: int) -> str:
    """Redis's response time while messages are recorded, and while they expire as fast as they came."""
    rows = []
    with running(workers=0, aof="off") as stack:
        progress.start(f"{count:,} messages come")
        filling = threading.Thread(
            target=lambda: asyncio.run(fill(stack.server.url, "sendexa", count, 30_000))
        )
        filling.start()
        rows.append(["while they come", *_pings(stack.client, lambda: not filling.is_alive())])
        filling.join()
        most = stack.client.dbsize()
        progress.start("they are forgotten")
        rows.append(["while they are forgotten", *_pings(stack.client, lambda: stack.client.dbsize() < 10)])
        progress.start("nothing happens")
        until = time.monotonic() + 10
        rows.append(["when they are", *_pings(stack.client, lambda: time.monotonic() > until)])
    head = [
        f"{count:,} messages kept for 30 s (at most {most:,} at once), PING",
        "p50 ms",
        "p99 ms",
        "max ms",
    ]
    return table(head, rows)


def _pings(client: "redis.Redis", done: Callable[[], bool]) -> list[str]:
    took = []
    while not done():
        began = time.monotonic()
        client.ping()
        took.append((time.monotonic() - began) * 1000)
        time.sleep(0.005)
    return [f"{percentile(took, 0.5):.2f}", f"{percentile(took, 0.99):.2f}", f"{max(took):.1f}"]


def main(arguments: Sequence[str]) -> None:
    """Runs everything and prints the tables; `--keep` puts them into docs/performance.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.store", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: a look, not a measurement")
    parser.add_argument("--keep", action="store_true", help="write the tables into docs/performance.md")
    parser.add_argument(
        "tables", nargs="*", help="only these: throughput, intake, memory, queries, beside, expiry"
    )
    options = parser.parse_args(arguments)
    size, count = (QUICK, MESSAGES_QUICK) if options.quick else (FULL, MESSAGES)
    with Receiver("ok") as receiver:
        progress = Progress(size.rounds * (2 * len(KINDS) + 4) + 4 + 4 + len(PATHS) + 3)
        contenders = Contenders(receiver, size, progress)
        makers: dict[str, Callable[[], str]] = {
            "throughput": lambda: throughput(contenders),
            "intake": lambda: intake(contenders, 100_000 if options.keep else 40_000),
            "memory": lambda: memory(progress, count // 10),
            "queries": lambda: queries(progress, count),
            "beside": lambda: beside_callbacks(contenders),
            "expiry": lambda: expiry(progress, count),
        }
        if unknown := set(options.tables) - makers.keys():
            parser.error(f"there is no table {', '.join(sorted(unknown))}")
        found = [makers[name]() for name in options.tables or makers]
    progress.end()
    said = (
        f"{size.rounds} rounds on {machine()}; `make bench-store` repeats it. Median, and lowest to highest."
    )
    text = "\n\n".join([said, *found])
    print(text)
    if options.keep and not options.tables:
        keep("store", text)


if __name__ == "__main__":
    main(sys.argv[1:])
