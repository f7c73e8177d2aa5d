"""`make bench`: throughput and latency beside plain Celery and a bare loop, and what a callback costs.

Contenders are real processes on one machine and take turns, round by round; the ratios are of one round.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kombu import Connection

from bench.load import Customer
from bench.plain_celery import app, deliver
from bench.receiver import Group, Receiver
from bench.report import Progress, keep, machine, median, percentile, spread, table
from bench.stack import CELERY, ROOT, Stack, running, wait_until

Contender = Callable[[Sequence[str], int], Group]
"""Delivers so many callbacks to these URLs; what the receiver saw."""


@dataclass(frozen=True)
class Size:
    """How much of everything a run does."""

    rounds: int
    ours: int
    plain: int
    seconds: float


FULL, QUICK = Size(3, 10_000, 2_000, 8), Size(1, 3_000, 500, 3)


class Bench:
    """All measurements, on one receiver."""

    def __init__(self, receiver: Receiver, size: Size, progress: Progress) -> None:
        self._receiver = receiver
        self._size = size
        self._progress = progress

    # Contenders.

    def ours(self, urls: Sequence[str], count: int, workers: int = 1) -> Group:
        """Our workers, the queue filled before they start."""
        with running(workers=0) as stack:
            customers = _customers(stack, urls)
            stack.load.burst("b", customers, count)
            for _ in range(workers):
                stack.start()
            return self._arrived(count)

    def plain(self, urls: Sequence[str], count: int, *pool: str) -> Group:
        """Plain Celery, its queue filled before its workers start."""
        with running(workers=0) as stack:
            enqueue = _plain_celery(stack)
            for number in range(count):
                enqueue(stack.load.change("b", Customer("w", urls[number % len(urls)])))
            stack.start(*CELERY, "-A", "bench.plain_celery", "worker", "-l", "INFO", *pool)
            return self._arrived(count)

    def bare(self, urls: Sequence[str], count: int) -> Group:
        """An aiohttp loop that does nothing else."""
        command = [sys.executable, "-m", "bench.bare_loop"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, text=True
        ) as process:
            assert process.stdin
            json.dump({"urls": list(urls), "count": count}, process.stdin)
            process.stdin.close()
            return self._arrived(count)

    def _arrived(self, count: int) -> Group:
        wait_until(lambda: self._receiver.count("b") >= count, 300, f"{count} callbacks", every=0.05)
        return self._receiver.take()["b"]

    # Measurements.

    def throughput(self, name: str, urls: Sequence[str]) -> str:
        """Callbacks a second, all that are waiting."""
        size = self._size
        contenders: dict[str, tuple[Contender, int]] = {
            "one worker": (self.ours, size.ours),
            "two workers": (lambda urls, count: self.ours(urls, count, 2), size.ours),
            "plain Celery, prefork 2": (
                lambda urls, count: self.plain(urls, count, "-P", "prefork", "-c", "2"),
                size.plain,
            ),
            "plain Celery, threads 20": (
                lambda urls, count: self.plain(urls, count, "-P", "threads", "-c", "20"),
                size.plain,
            ),
            "bare aiohttp loop": (self.bare, size.ours),
        }
        rates: defaultdict[str, list[float]] = defaultdict(list)
        for _ in range(size.rounds):
            for contender, (run, count) in contenders.items():
                self._progress.start(f"{name}: {contender}")
                rates[contender].append(_rate(run(urls, count)))
        best = max((c for c in rates if c.startswith("plain")), key=lambda c: median(rates[c]))
        rows = [
            [
                contender,
                spread(found, 0),
                spread([a / b for a, b in zip(found, rates[best], strict=True)], 1),
                spread([a / b for a, b in zip(found, rates["bare aiohttp loop"], strict=True)], 2),
            ]
            for contender, found in rates.items()
        ]
        return table([name, "callbacks/s", "÷ best plain Celery", "÷ bare loop"], rows)

    def latency(self) -> str:
        """From XADD to arrival, at steady rates."""
        rows = []
        for rate, endpoints in ((50, 100), (300, 100), (1000, 100), (2000, 1000)):
            found: defaultdict[str, list[float]] = defaultdict(list)
            for _ in range(self._size.rounds):
                self._progress.start(f"latency at {rate}/s over {endpoints} endpoints")
                with running() as stack:
                    customers = _customers(stack, self._urls(endpoints))
                    stack.load.steady(rate, 2, {"w": customers})
                    stack.drained()
                    self._receiver.take()
                    worker, server = stack.worker_cpu(), stack.redis_cpu()
                    stack.load.steady(rate, self._size.seconds, {"b": customers}, tell=self._progress.part)
                    stack.drained()
                    arrived = self._receiver.take()["b"]
                    found["worker"].append((stack.worker_cpu() - worker) / arrived.posts * 1000)
                    found["redis"].append((stack.redis_cpu() - server) / arrived.posts * 1000)
                for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
                    found[name].append(percentile(arrived.latencies_us, share) / 1000)
            cells = [spread(found[name]) for name in ("p50", "p95", "p99")]
            rows.append(
                [f"{rate}/s over {endpoints}", *cells, spread(found["worker"], 2), spread(found["redis"], 2)]
            )
        head = ["XADD to arrival", "p50 ms", "p95 ms", "p99 ms", "CPU s/1,000 worker", "CPU s/1,000 Redis"]
        return table(head, rows)

    def enqueue(self) -> str:
        """Status changes a second that one producer puts on the queue by the Python client."""
        from dispatcher import Dispatcher

        many, single = [], []
        for _ in range(self._size.rounds):
            self._progress.start("enqueue")
            with running(workers=0) as stack, Dispatcher.from_url(stack.server.url) as dispatcher:
                changes = [
                    json.loads(stack.load.change("b", Customer("w", "https://a.example/")))
                    for _ in range(20_000)
                ]
                began = time.monotonic()
                dispatcher.enqueue_many(changes)
                many.append(len(changes) / (time.monotonic() - began))
                began = time.monotonic()
                for change in changes[:1000]:
                    dispatcher.enqueue(change)
                single.append(1000 / (time.monotonic() - began))
        rows = [["enqueue_many", spread(many, 0)], ["enqueue, one at a time", spread(single, 0)]]
        return table(["one producer", "status changes/s"], rows)

    def memory(self) -> str:
        """Bytes of Redis for a callback of some 330 bytes that waits, and that was delivered."""
        count = self._size.ours
        with running(workers=0, DELIVERED_BODY_SECONDS="0") as stack:
            self._progress.start("memory")
            customers = _customers(stack, self._urls(100))
            stopped = [f"dispatcher:workspace:{one.workspace}" for one in customers]
            for key in stopped:
                stack.client.hset(key, "rate_per_second", "0.001")
            stack.start()
            before = stack.client.info("memory")["used_memory"]
            stack.load.burst("b", customers, count)
            wait_until(lambda: stack.client.xlen("dispatcher:events") == 0, 120, "intake")
            waiting = (stack.client.info("memory")["used_memory"] - before) / count
            for key in stopped:
                stack.client.hset(key, mapping={"rate_per_second": "0", "revision": "again"})
            stack.drained(300)
            delivered = (stack.client.info("memory")["used_memory"] - before) / count
            self._receiver.take()
        rows = [["waiting", f"{waiting:,.0f}"], ["delivered, its body gone", f"{delivered:,.0f}"]]
        return table(["one callback, one message", "bytes of Redis"], rows)

    def _urls(self, count: int) -> list[str]:
        return [self._receiver.url(number + 1) for number in range(count)]

    def all(self) -> str:
        """Every table."""
        parts = [
            f"{self._size.rounds} rounds on {machine()}; `make bench` repeats it. Median, and lowest to highest. "
            "Redis with AOF everysec; receiver, Redis, producer and workers share the cores.",
            *(self.throughput(f"{n:,} endpoint{'s' * (n > 1)}", self._urls(n)) for n in (1, 100, 10_000)),
            self.latency(),
            self.enqueue(),
            self.memory(),
        ]
        return "\n\n".join(parts)


def _customers(stack: Stack, urls: Sequence[str]) -> list[Customer]:
    """A workspace for up to 100 URLs each, so that many endpoints need not many workspaces."""
    made = stack.customers("w", urls[:100])
    return [Customer(made[number % len(made)].workspace, url) for number, url in enumerate(urls)]


def _plain_celery(stack: Stack) -> Callable[[bytes], object]:
    """Has a stack run plain Celery; returns what enqueues a status change there."""
    broker = stack.server.url.replace("unix://", "redis+socket://")
    stack.environment |= {"PLAIN_REDIS_URL": broker, "PLAIN_LEDGER_URL": stack.server.url}
    producer = app.amqp.Producer(Connection(broker))
    return lambda change: deliver.apply_async((json.loads(change),), producer=producer)


def _rate(group: Group) -> float:
    return (group.distinct - 1) / max(group.last_at - group.first_at, 0.001)


def main(arguments: Sequence[str]) -> None:
    """Runs everything and prints the tables; `--keep` puts them into docs/performance.md."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: a look, not a measurement")
    parser.add_argument("--keep", action="store_true", help="write the tables into docs/performance.md")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else FULL
    progress = Progress(size.rounds * (3 * 5 + 4 + 1) + 1)
    with Receiver("ok") as receiver:
        text = Bench(receiver, size, progress).all()
    progress.end()
    print(text)
    if options.keep:
        keep("bench", text)


if __name__ == "__main__":
    main(sys.argv[1:])
