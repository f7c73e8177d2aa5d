"""The contenders: real processes that deliver a number of callbacks as fast as they can."""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from celery import Celery
from kombu.connection import Connection

from bench.load import Customer
from bench.plain_celery import app, body_of, deliver
from bench.receiver import Group, Receiver
from bench.report import Progress, bars, median, spread, table
from bench.stack import CELERY, ROOT, Stack, running, wait_until

Contender = Callable[[], Group]
"""Delivers callbacks; returns what the receiver saw."""

BARE = "bare aiohttp loop"
PREFORK = "plain Celery, prefork 2"
DJANGO = "django-webhook, prefork 2"
DJANGO_TASK = "django_webhook.tasks.fire_webhook"
POOLS = {
    PREFORK: ("-P", "prefork", "-c", "2"),
    "plain Celery, threads 20": ("-P", "threads", "-c", "20"),
    "plain Celery, gevent 100": ("-P", "gevent", "-c", "100"),
}


@dataclass(frozen=True)
class Size:
    """How many rounds, callbacks and seconds a run has."""

    rounds: int
    ours: int
    plain: int
    seconds: float


class Contenders:
    """All contenders, with one receiver."""

    def __init__(self, receiver: Receiver, size: Size, progress: Progress) -> None:
        self.receiver = receiver
        self.size = size
        self.progress = progress
        self.note = 0
        """Extra bytes per body; if set, ours use a dialect that passes them on."""

    def ours(
        self,
        urls: Sequence[str],
        *,
        workers: int = 1,
        aof: str = "everysec",
        dialect: str = "",
        statuses: Sequence[str] = ("DELIVERED",),
        **settings: str,
    ) -> Group:
        """Our workers; the queue is filled before they start."""
        count = self.size.ours
        with running(workers=0, aof=aof, **settings) as stack:
            stack.load.note, stack.load.statuses, stack.load.each = self.note, statuses, len(statuses)
            stack.load.named = bool(dialect)
            made = customers(stack, urls, dialect or ("namirial" if self.note else "zeckta"))
            stack.load.burst("b", made, count)
            for _ in range(workers):
                stack.start()
            return self._arrived(count)

    def plain(self, urls: Sequence[str], pool: Sequence[str]) -> Group:
        """Plain Celery; its queue is filled before its workers start."""
        count = self.size.plain
        with running(workers=0) as stack:
            enqueue = _plain_celery(stack)
            stack.load.note = self.note
            for number in range(count):
                enqueue(stack.load.change("b", Customer("w", urls[number % len(urls)])))
            stack.start(*CELERY, "-A", "bench.plain_celery", "worker", "-l", "INFO", *pool)
            return self._arrived(count)

    def django_webhook(self, urls: Sequence[str]) -> Group:
        """django-webhook; its queue is filled before its worker starts."""
        count = self.size.plain
        with running(workers=0) as stack:
            broker = stack.server.url.replace("unix://", "redis+socket://")
            stack.environment |= {
                "PLAIN_REDIS_URL": broker,
                "PEER_DATABASE": str(stack.folder / "peer.sqlite3"),
            }
            command = [sys.executable, "-m", "bench.django_webhook"]
            subprocess.run(
                command,
                input=json.dumps(urls),
                env=stack.environment | {"PYTHONWARNINGS": "ignore"},
                cwd=ROOT,
                text=True,
                check=True,
            )
            with Celery(broker=broker) as client, client.connection() as connection:
                producer = client.amqp.Producer(connection)
                for number in range(count):
                    which = number % len(urls)
                    change = json.loads(stack.load.change("b", Customer("w", urls[which])))
                    client.send_task(DJANGO_TASK, (which + 1, body_of(change)), producer=producer)
            stack.start(*CELERY, "-A", "bench.django_webhook", "worker", "-l", "INFO", *POOLS[PREFORK])
            return self._arrived(count)

    def bare(self, urls: Sequence[str], *, concurrency: int = 100, count: int = 0) -> Group:
        """The bare aiohttp loop."""
        count = count or self.size.ours
        command = [sys.executable, "-m", "bench.bare_loop"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, text=True
        ) as process:
            assert process.stdin
            task = {"urls": list(urls), "count": count, "concurrency": concurrency, "note": self.note}
            json.dump(task, process.stdin)
            process.stdin.close()
            return self._arrived(count)

    def _arrived(self, count: int) -> Group:
        wait_until(lambda: self.receiver.count("b") >= count, 300, f"{count} callbacks", every=0.05)
        return self.receiver.take()["b"]

    def urls(self, count: int) -> list[str]:
        """URLs of `count` endpoints."""
        return [self.receiver.url(number + 1) for number in range(count)]

    def rates(self, name: str, contenders: dict[str, Contender]) -> dict[str, list[float]]:
        """Callbacks a second of each contender, round by round."""
        found: defaultdict[str, list[float]] = defaultdict(list)
        for _ in range(self.size.rounds):
            for contender, run in contenders.items():
                self.progress.start(f"{name}: {contender}")
                found[contender].append(_rate(run()))
        return found

    def throughput(self, name: str, endpoints: int, pools: Sequence[str] = tuple(POOLS)) -> str:
        """A table of all contenders, plain Celery with these pools. All callbacks wait before a contender starts."""
        urls = self.urls(endpoints)
        contenders: dict[str, Contender] = {
            "one worker": lambda: self.ours(urls),
            "two workers": lambda: self.ours(urls, workers=2),
        }
        for plain in pools:
            contenders[plain] = lambda pool=POOLS[plain]: self.plain(urls, pool)  # type: ignore[misc]
        if endpoints == 100:
            contenders[DJANGO] = lambda: self.django_webhook(urls)
        contenders[BARE] = lambda: self.bare(urls)
        rates = self.rates(name, contenders)
        best = max(pools, key=lambda plain: median(rates[plain]))
        head = [name, "callbacks/s", "÷ best plain Celery", "÷ bare loop", ""]
        lengths = bars([median(found) for found in rates.values()])
        rows = [
            [contender, spread(found, 0), ratio(found, rates[best], 1), ratio(found, rates[BARE], 2), bar]
            for (contender, found), bar in zip(rates.items(), lengths, strict=True)
        ]
        return table(head, rows)


def ratio(found: Sequence[float], base: Sequence[float], digits: int = 2) -> str:
    """The ratio round by round, so that a disturbance of a round affects both sides."""
    return spread([a / b for a, b in zip(found, base, strict=True)], digits)


def customers(stack: Stack, urls: Sequence[str], dialect: str = "zeckta") -> list[Customer]:
    """A customer for each URL, in at most 100 workspaces, so that many endpoints do not need many workspaces."""
    made = stack.customers("w", urls[:100], dialect)
    return [Customer(made[number % len(made)].workspace, url) for number, url in enumerate(urls)]


def _plain_celery(stack: Stack) -> Callable[[bytes], object]:
    """Sets up a stack for plain Celery; returns the function that enqueues a status change."""
    broker = stack.server.url.replace("unix://", "redis+socket://")
    stack.environment |= {"PLAIN_REDIS_URL": broker, "PLAIN_LEDGER_URL": stack.server.url}
    producer = app.amqp.Producer(Connection(broker))  # type: ignore[no-untyped-call]
    return lambda change: deliver.apply_async((json.loads(change),), producer=producer)


def _rate(group: Group) -> float:
    return (group.distinct - 1) / max(group.last_at - group.first_at, 0.001)
