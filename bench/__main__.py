"""`make bench`: throughput and latency compared with plain Celery and a bare loop, and the cost of a callback.

Contenders are real processes on one machine and take turns, round by round; ratios are within one round.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.archive import KINDS, archive
from bench.away import PHASES, away
from bench.contenders import BARE, POOLS, Contenders, Size, customers, ratio
from bench.fan_out import fan_out
from bench.http_intake import http_intake
from bench.load import Customer
from bench.partitions import COUNTS, partitions
from bench.receiver import Receiver
from bench.report import Progress, keep, machine, percentile, spread, table
from bench.spans import spans
from bench.stack import AOF, running, wait_until

FULL, QUICK = Size(3, 8_000, 1_000, 8), Size(1, 3_000, 500, 3)
ONE_POOL = tuple(POOLS)[:1]
"""For tables that compare only one pool of plain Celery."""
RATES = ((50, 100), (300, 100), (1000, 100), (2000, 1000))
SLOW_MS = (50, 500)
LONG_NOTE = 3_600
MEMORY_COUNT = 20_000
SLOW_CONCURRENCY = 2000
"""POSTs in flight that our settings allow to 100 endpoints, 20 to each."""


def heavy(contenders: Contenders) -> str:
    """Throughput with long bodies."""
    contenders.note = LONG_NOTE
    try:
        return contenders.throughput("100 endpoints, bodies of 4 kB", 100, ONE_POOL)
    finally:
        contenders.note = 0


def slow(contenders: Contenders) -> str:
    """Throughput with slow receivers, compared with a bare loop that may have as many POSTs in flight."""
    rows = []
    urls = contenders.urls(100)
    for delay_ms in SLOW_MS:
        contenders.receiver.behave("ok", delay_ms)
        rates = contenders.rates(
            f"answers after {delay_ms} ms",
            {
                "ours": lambda: contenders.ours(urls),
                BARE: lambda: contenders.bare(urls, concurrency=SLOW_CONCURRENCY),
            },
        )
        found = [spread(rates["ours"], 0), spread(rates[BARE], 0), ratio(rates["ours"], rates[BARE])]
        rows.append([f"100 endpoints that answer after {delay_ms} ms", *found])
    contenders.receiver.behave("ok")
    return table(["receivers that take their time", "one worker, callbacks/s", BARE, "ratio"], rows)


def durability(contenders: Contenders) -> str:
    """The cost of Redis's append-only file."""
    urls = contenders.urls(100)
    rates = contenders.rates(
        "append-only file",
        {mode: lambda mode=mode: contenders.ours(urls, aof=mode) for mode in AOF},  # type: ignore[misc]
    )
    rows = [[mode, spread(found, 0), ratio(found, rates["off"])] for mode, found in rates.items()]
    return table(["appendfsync", "one worker, callbacks/s", "÷ off"], rows)


def workers(contenders: Contenders) -> str:
    """Throughput with more workers on this machine."""
    urls = contenders.urls(100)
    rates = contenders.rates(
        "workers",
        {str(n): lambda n=n: contenders.ours(urls, workers=n) for n in (1, 2, 4)},  # type: ignore[misc]
    )
    rows = [[count, spread(found, 0), ratio(found, rates["1"])] for count, found in rates.items()]
    return table(["workers on these cores", "callbacks/s", "÷ one"], rows)


def latency(contenders: Contenders) -> str:
    """Latency from XADD to arrival at steady rates, and the cost of a callback at them."""
    receiver, size, progress = contenders.receiver, contenders.size, contenders.progress
    rows = []
    for rate, endpoints in RATES:
        found: defaultdict[str, list[float]] = defaultdict(list)
        for _ in range(size.rounds):
            progress.start(f"latency at {rate}/s over {endpoints} endpoints")
            with running() as stack:
                made = customers(stack, contenders.urls(endpoints))
                stack.load.burst("w", made, 2 * len(made))  # warms up windows and connections
                stack.drained()
                receiver.take()
                worker, server, before = stack.worker_cpu(), stack.redis_cpu(), stack.commands()
                stack.load.steady(rate, size.seconds, {"b": made}, tell=progress.part)
                stack.drained()
                arrived = receiver.take()["b"]
                trips, calls = stack.commands()
                found["worker"].append((stack.worker_cpu() - worker) / arrived.posts * 1000)
                found["redis"].append((stack.redis_cpu() - server) / arrived.posts * 1000)
                found["trips"].append((trips - before[0]) / arrived.posts)
                found["calls"].append((calls - before[1]) / arrived.posts)
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
                found[name].append(percentile(arrived.latencies_us, share) / 1000)
        cells = [spread(found[name]) for name in ("p50", "p95", "p99")]
        cells += [spread(found[name], 2) for name in ("worker", "redis", "trips")]
        rows.append([f"{rate}/s over {endpoints}", *cells, spread(found["calls"], 0)])
    head = ["XADD to arrival", "p50 ms", "p95 ms", "p99 ms"]
    head += ["CPU s/1,000 worker", "CPU s/1,000 Redis", "round trips each", "Redis calls each"]
    return table(head, rows)


def enqueue(contenders: Contenders) -> str:
    """Status changes a second that one producer enqueues with the Python client."""
    from dispatcher import Dispatcher, StatusChange

    many, dicts, single = list[float](), list[float](), list[float]()
    for _ in range(contenders.size.rounds):
        contenders.progress.start("enqueue")
        with running(workers=0) as stack, Dispatcher.from_url(stack.server.url) as dispatcher:
            one = Customer("w", "https://a.example/")
            changes = [json.loads(stack.load.change("b", one)) for _ in range(20_000)]
            made = [StatusChange.from_dict(change) for change in changes]
            for what, into in ((made, many), (changes, dicts)):
                began = time.monotonic()
                dispatcher.enqueue_many(what)
                into.append(len(changes) / (time.monotonic() - began))
            began = time.monotonic()
            for change in changes[:1000]:
                dispatcher.enqueue(change)
            single.append(1000 / (time.monotonic() - began))
    rows = [
        ["enqueue_many of StatusChange", spread(many, 0)],
        ["enqueue_many of dicts, which it validates", spread(dicts, 0)],
        ["enqueue, one at a time", spread(single, 0)],
    ]
    return table(["one producer", "status changes/s"], rows)


def memory(contenders: Contenders) -> str:
    """Bytes of Redis for a waiting callback, one to be retried, and a delivered one."""
    rows = []
    for each in (1, 2, 3):
        contenders.progress.start(f"memory, {each} callbacks a message")
        found = [f"{bytes_:,.0f}" for bytes_ in _memory(contenders, each)]
        rows.append([f"{each} callback{'s' * (each > 1)} a message", *found])
    return table(
        [
            "bytes of Redis for a callback of 400 B, without the message store",
            "waits",
            "retrying",
            "delivered",
        ],
        rows,
    )


def _memory(contenders: Contenders, each: int) -> tuple[float, float, float]:
    count, receiver = MEMORY_COUNT, contenders.receiver
    settings = {"DELIVERED_BODY_SECONDS": "0", "BREAKER_FAILURES": "1000000", "BACKOFF_BASE_SECONDS": "900"}
    settings |= {"STATUS_RETENTION_SECONDS": "0"}  # `make bench-store` measures the message store
    with running(workers=0, **settings) as stack:
        stack.load.each, stack.load.pad = each, 60
        made = customers(stack, contenders.urls(100))
        keys = [f"dispatcher:workspace:{one.workspace}" for one in made]

        def limit(rate: str) -> None:
            for key in keys:
                stack.client.hset(key, mapping={"rate_per_second": rate, "revision": rate})

        def used() -> int:
            info = stack.client.info("memory")
            beside = ("used_memory_lua", "mem_clients_normal", "mem_aof_buffer")
            return int(info["used_memory"] - sum(info[name] for name in beside))

        def accept() -> None:
            limit("0.001")
            stack.load.burst("b", made, count)
            wait_until(lambda: stack.client.xlen("dispatcher:events") == 0, 120, "intake")

        stack.start()
        before = used()
        accept()
        waiting = used() - before
        limit("0")
        stack.drained(300)
        delivered = used() - before
        receiver.take()
        receiver.behave("busy")
        accept()
        limit("0")
        wait_until(lambda: receiver.count("b") >= count, 120, "first attempts", every=0.1)
        retrying = used() - before - delivered
        receiver.behave("ok")
        receiver.take()
    return waiting / count, retrying / count, delivered / count


def tables(contenders: Contenders, names: Sequence[str]) -> str:
    """The named tables, with a line about the machine."""
    said = (
        f"{contenders.size.rounds} rounds on {machine()}; `make bench` repeats it. Median, and lowest to highest. "
        "Redis with AOF everysec; receiver, Redis, producer and workers share the cores. "
        "Bodies have some 340 bytes, and the message store is on, where no more is said."
    )
    return "\n\n".join([said, *(TABLES[name][0](contenders) for name in names)])


TABLES: dict[str, tuple[Callable[[Contenders], str], int]] = {
    "throughput": (lambda contenders: contenders.throughput("100 endpoints", 100), 4 + len(POOLS)),
    "one": (lambda contenders: contenders.throughput("1 endpoint", 1, ONE_POOL), 4),
    "wide": (lambda contenders: contenders.throughput("10,000 endpoints", 10_000, ONE_POOL), 4),
    "heavy": (heavy, 5),
    "latency": (latency, len(RATES)),
    "http": (http_intake, 4),
    "slow": (slow, 2 * len(SLOW_MS)),
    "fan-out": (fan_out, 2),
    "spans": (spans, 1),
    "partitions": (partitions, len(COUNTS) + 2),
    "archive": (archive, len(KINDS)),
    "away": (away, len(PHASES)),
    "workers": (workers, 3),
    "durability": (durability, len(AOF)),
    "enqueue": (enqueue, 1),
    "memory": (memory, 1),
}
"""By name: the function that makes the table, and its steps per round."""


def main(arguments: Sequence[str]) -> None:
    """Runs everything and prints the tables; `--keep` puts them into docs/performance.md."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: a look, not a measurement")
    parser.add_argument("--keep", action="store_true", help="write the tables into docs/performance.md")
    parser.add_argument("--rounds", type=int, help="how many, in place of 3 (with --quick: 1)")
    parser.add_argument("tables", nargs="*", help=f"only these: {', '.join(TABLES)}")
    options = parser.parse_args(arguments)
    if unknown := set(options.tables) - TABLES.keys():
        parser.error(f"there is no table {', '.join(sorted(unknown))}")
    size = QUICK if options.quick else FULL
    size = replace(size, rounds=options.rounds or size.rounds)
    names = options.tables or list(TABLES)
    progress = Progress(size.rounds * sum(TABLES[name][1] for name in names))
    with Receiver("ok") as receiver:
        text = tables(Contenders(receiver, size, progress), names)
    progress.end()
    print(text)
    if options.keep and not options.tables:
        keep("bench", text)


if __name__ == "__main__":
    main(sys.argv[1:])
