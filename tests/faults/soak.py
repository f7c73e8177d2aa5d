"""`make soak`: half an hour at a steady rate with random faults; memory, descriptors and latency, minute by minute."""

import argparse
import asyncio
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from bench.report import bars, machine, percentile, put_between_marks, table
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import Keys
from dispatcher.store.ledger import Ledger
from tests.acceptance.stack import Worker, running_stack
from tests.faults.__main__ import DOCUMENT
from tests.faults.scene import Scene

RATE = 100
SETTINGS = {"DELIVERED_BODY_SECONDS": "10", "STATUS_RETENTION_SECONDS": "10", "EXPIRY_SECONDS": "60"}
"""So short that a minute's callbacks have ended in the next. Then they are forgotten, as after the retention: what
grows is a leak."""


def rss_mb(pid: int) -> float:
    """Memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def descriptors(pid: int, port: int) -> tuple[int, int]:
    """Open connections of a process to a port, and its other descriptors."""
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    there = {f"socket:[{row[9]}]" for row in rows if int(row[2].split(":")[1], 16) == port}
    opened = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            opened.append(str(link.readlink()))
    connections = sum(one in there for one in opened)
    return connections, len(opened) - connections


class Soak:
    """One run."""

    def __init__(self, scene: Scene, minutes: int) -> None:
        self._scene = scene
        self._minutes = minutes
        self._chance = random.Random(7)
        self._enqueued: dict[str, float] = {}
        self._latencies: list[float] = []
        self._forgotten = self._to_forget = 0
        self._stopped = threading.Event()
        scene.failure_rate = 0.05
        note = scene.stack._receiver._on_received

        def timed(received: object) -> None:
            note(received)  # type: ignore[arg-type]
            began = self._enqueued.pop(received.event_id, None)  # type: ignore[attr-defined]
            if began:
                self._latencies.append(time.monotonic() - began)

        scene.stack._receiver._on_received = timed

    def run(self) -> list[list[str]]:
        """A row for each minute."""
        url = self._scene.stack.add_workspace("acme", "zeckta", "", "--max-concurrency", "50")
        self._port = urlsplit(url).port or 0
        workers = [self._scene.worker(**SETTINGS), self._scene.worker(**SETTINGS)]
        steady = workers[0]  # never killed: its memory is looked at
        thread = threading.Thread(target=self._load)
        thread.start()
        rows = []
        try:
            for minute in range(1, self._minutes + 1):
                self._latencies.clear()
                until = time.monotonic() + 60
                faults = []
                while time.monotonic() < until:
                    time.sleep(self._chance.uniform(5, 25))
                    faults.append(self._fault(workers))
                asyncio.run(self._forget())
                rows.append(self._row(minute, steady, faults))
                print("  ".join(rows[-1]), file=sys.stderr, flush=True)
        finally:
            self._stopped.set()
            thread.join()
        return rows

    def _load(self) -> None:
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                for event_id in self._scene.enqueue(RATE // 10):
                    self._enqueued[event_id] = began
            except Exception as error:  # Redis is being restarted
                print(f"producer: {error}", file=sys.stderr)
            time.sleep(max(0.0, 0.1 - (time.monotonic() - began)))

    async def _forget(self) -> None:
        """What the ledger has of the minute before last."""
        ids = [event_id for _, event_id in self._scene.event_ids[self._forgotten : self._to_forget]]
        client = connect_async(self._scene.stack.server.url)
        ledger = Ledger(client.execute_command, Keys())
        for first in range(0, len(ids), 500):
            await ledger.forget("acme", ids[first : first + 500])
        await client.aclose()
        self._forgotten, self._to_forget = self._to_forget, len(self._scene.event_ids)

    def _fault(self, workers: list[Worker]) -> str:
        client = self._scene.stack.redis
        kind = self._chance.choice(["kill", "cut", "flush", "restart", "nothing"])
        match kind:
            case "kill":
                workers[1].kill()
                workers[1] = self._scene.worker(ready=False, **SETTINGS)
            case "cut":
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            case "flush":
                client.script_flush()
            case "restart":
                self._scene.stack.server.kill()
                self._scene.stack.server.start()
        return kind

    def _row(self, minute: int, worker: Worker, faults: list[str]) -> list[str]:
        pid = worker.process.pid
        used = self._scene.stack.redis.info("memory")["used_memory"] / 1e6
        connections, others = descriptors(pid, self._port)
        latencies = [one * 1000 for one in list(self._latencies)]
        return [
            str(minute),
            f"{rss_mb(pid):.1f}",
            str(connections),
            str(others),
            f"{used:.1f}",
            f"{len(latencies):,}",
            f"{percentile(latencies, 0.5):.0f}",
            f"{percentile(latencies, 0.95):.0f}",
            ", ".join(faults),
        ]


def main(arguments: Sequence[str]) -> int:
    """0 if nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--keep", action="store_true", help="write the table into docs/reliability.md")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder)) as stack:
        scene = Scene(stack, 7, short=False)
        rows = Soak(scene, options.minutes).run()
        time.sleep(70)  # what was due comes to its end, and the ledger forgets it
        left = stack.redis.xlen("dispatcher:events") + stack.redis.zcard("dispatcher:expiries")
    for row, bar in zip(rows, bars([float(row[1]) for row in rows], 20), strict=True):
        row.insert(2, bar)
    head = [
        "minute",
        "worker MB",
        "",
        "connections",
        "other descriptors",
        "Redis MB",
        "callbacks",
        "p50 ms",
        "p95 ms",
        "faults",
    ]
    text = (
        f"{RATE} status changes a second, 5 % of the POSTs answered 503, two workers, one of them never killed: its memory is shown. "
        f"On {machine()}; `make soak` repeats it. {left} status changes were left at the end. "
        "A minute in which the worker that led intake was killed has a p95 of seconds: another leads when its lease of 5 s ends."
        f"\n\n{table(head, rows)}"
    )
    print(text)
    if options.keep:
        put_between_marks(DOCUMENT, "soak", text)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
