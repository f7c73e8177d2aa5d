"""The HTTP intake compared with XADD: one status change a request, from 64 connections, to one worker and one API process."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable

from bench.contenders import Contenders, customers
from bench.http_load import CONNECTIONS, HttpLoad
from bench.load import Customer
from bench.receiver import Group
from bench.report import percentile, spread, table
from bench.stack import Stack, running
from dispatcher.store.api_keys import MAX_RATE, PRODUCERS, ApiKeys
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import Keys
from dispatcher.store.wire import Wire

RATE = 300
ENDPOINTS = 100
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
XADD, POST = "XADD, 500 in a pipeline", f"POST, one a request, {CONNECTIONS} connections"

Send = Callable[[str, int, float], None]
"""Sends a number of a group's status changes, at a rate or (0) as fast as possible."""


def http_intake(contenders: Contenders) -> str:
    """What is delivered a second, its CPU, and latency at a steady rate; both ways in take turns on the same processes."""
    found: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(contenders.size.rounds):
        with running() as stack:
            made = customers(stack, contenders.urls(ENDPOINTS))
            ways = {XADD: _by_xadd(stack, made), POST: _by_post(stack, made)}
            for send in ways.values():
                send("w", 10 * ENDPOINTS, 0)  # warms up windows and connections
            stack.drained()
            for way, send in ways.items():
                _measure(contenders, stack, way, send, found[way])
    head = [
        "HTTP intake, one event a request, 100 endpoints",
        "delivered/s",
        "CPU s/1,000 all servers",
        "of it API",
    ]
    head += [f"{name} ms at {RATE}/s" for name in SHARES]
    rows = [
        [
            way,
            spread(of["rate"], 0),
            spread(of["cpu"], 2),
            spread(of["api"], 2),
            *(spread(of[n]) for n in SHARES),
        ]
        for way, of in found.items()
    ]
    return table(head, rows)


def _by_xadd(stack: Stack, made: list[Customer]) -> Send:
    def send(group: str, count: int, rate: float) -> None:
        if rate:
            stack.load.steady(rate, count / rate, {group: made})
        else:
            stack.load.burst(group, made, count)

    return send


def _by_post(stack: Stack, made: list[Customer]) -> Send:
    port = stack.start_api()
    load = HttpLoad(port, asyncio.run(_producer_key(stack.server.url)))

    def send(group: str, count: int, rate: float) -> None:
        answers = load.send(group, made, count, rate)
        if answers != {"202": count}:
            raise SystemExit(f"error: the API answered {answers}")

    return send


async def _producer_key(url: str) -> str:
    client = connect_async(url)
    wire = Wire(client)
    now_ms = round(time.time() * 1000)
    added = await ApiKeys(wire.call, Keys(), url).add(
        PRODUCERS, PRODUCERS, "bench", now_ms=now_ms, rate_per_second=MAX_RATE
    )
    await wire.close()
    await client.aclose()
    return added[1]


def _measure(
    contenders: Contenders, stack: Stack, way: str, send: Send, found: defaultdict[str, list[float]]
) -> None:
    size = contenders.size
    contenders.progress.start(f"{way}: throughput")
    servers, api = stack.worker_cpu() + stack.redis_cpu(), stack.api_cpu()
    arrived = _arrived(contenders, stack, send, size.ours, 0)
    found["rate"].append((arrived.distinct - 1) / (arrived.last_at - arrived.first_at))
    cpu = stack.worker_cpu() + stack.redis_cpu() - servers
    found["cpu"].append(cpu / size.ours * 1000)
    found["api"].append((stack.api_cpu() - api) / size.ours * 1000)
    contenders.progress.start(f"{way}: latency at {RATE}/s")
    arrived = _arrived(contenders, stack, send, round(RATE * size.seconds), RATE)
    for name, share in SHARES.items():
        found[name].append(percentile(arrived.latencies_us, share) / 1000)


def _arrived(contenders: Contenders, stack: Stack, send: Send, count: int, rate: float) -> Group:
    contenders.receiver.take()
    send("b", count, rate)
    stack.drained()
    arrived = contenders.receiver.take()["b"]
    if arrived.distinct != count:
        raise SystemExit(f"error: of {count} status changes {arrived.distinct} were delivered")
    return arrived
