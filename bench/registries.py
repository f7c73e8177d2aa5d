"""`python -m bench.registries`: what the heartbeats of many workers cost a registry and each worker, and the bytes of a callback."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bench.capacity import DOCUMENT
from bench.contenders import customers
from bench.receiver import Receiver
from bench.report import machine, put_between_marks, table
from bench.stack import running
from config.settings import Settings
from dispatcher.rules.ownership import Candidate
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import keys_of
from dispatcher.store.members import Registry, mask_of
from dispatcher.store.wire import Wire
from dispatcher.worker.heartbeat import Heartbeat
from dispatcher.worker.load import Load
from dispatcher.worker.partition_owner import MembersRead
from dispatcher.worker.slots import Slots
from tasks import wiring
from tasks.redis_server import RedisServer

T = TypeVar("T")

WORKERS = (3, 30, 100, 300, 1000)
PARTITIONS = 1024
LOOKS = 50
CALLBACKS, WORKSPACES = 5_000, 100


def name_of(number: int) -> str:
    """A worker's name, as Celery gives it on a host of some cluster."""
    return f"celery@dispatcher-worker-7d9c5b-{number:05}/0123456789abcdef"


def heartbeats(workers: int) -> dict[str, str]:
    """A heartbeat of each worker, by name; together they lead all partitions."""
    made = {}
    for number in range(workers):
        one: Any = Heartbeat(name_of(number), (), Slots(1), Load())  # type: ignore[arg-type]  # of turns it asks the number
        owns = mask_of(set(range(number, PARTITIONS, workers)))
        made[one.name] = one.if_due(leads=True, watched=False, owns=owns, cannot="0")
    return made


class Cost:
    """What something costs that is done again and again: CPU of Redis and of the worker, in seconds."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.redis = self.worker = 0.0

    async def of(self, doing: Awaitable[T]) -> T:
        """Does it once more."""
        before, began = await _redis_cpu(self._client), time.thread_time()
        done = await doing
        self.worker += time.thread_time() - began
        self.redis += await _redis_cpu(self._client) - before
        return done


async def look(url: str, workers: int) -> tuple[float, ...]:
    """ms for what a worker does once a second, with a registry that knows so many workers.

    Of Redis and of the worker to store a heartbeat and to read all, and of the worker to decide.
    """
    client = connect_async(url)
    wire = Wire(client)
    keys = keys_of("dispatcher", PARTITIONS)[0]
    ledger = wiring.ledger(Settings(_env_file=None), wire.call, of=keys, url=url)
    texts = heartbeats(workers)
    for name, text in texts.items():
        await ledger.beat(name, text)
    own = name_of(0)
    registry, candidate, others = Registry([ledger], own), Candidate(range(PARTITIONS), own), MembersRead()
    storing, reading, deciding = Cost(client), Cost(client), 0.0
    for _ in range(LOOKS):
        members = await reading.of(registry.read())
        began = time.thread_time()
        candidate.decide(others.of(members.heartbeats))
        deciding += time.thread_time() - began
        await storing.of(registry.store(texts[own]))
    await wire.close()
    await client.aclose()
    costs = storing.redis, storing.worker, reading.redis, reading.worker, deciding
    return tuple(one / LOOKS * 1000 for one in costs)


async def _redis_cpu(client: Any) -> float:
    info = await client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def of_workers() -> str:
    """The table of heartbeats."""
    rows = []
    for workers in WORKERS:
        sizes = [len(text) for text in heartbeats(workers).values()]
        with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
            found = asyncio.run(look(server.url, workers))
        rows.append([f"{workers:,}", f"{max(sizes)}", *(f"{one:.2f}" for one in found)])
    head = [f"workers that share {PARTITIONS:,} partitions", "bytes of a heartbeat"]
    costs = ["Redis, ms to store one", "worker, ms for it", "Redis, ms for a reading", "worker, ms for it"]
    return table([*head, *costs, "worker, ms to decide"], rows)


def of_callbacks() -> str:
    """The bytes that a callback moves."""
    with Receiver("ok") as receiver, running(PARTITIONS="16") as stack:
        made = customers(stack, [receiver.url(number + 1) for number in range(WORKSPACES)])
        stack.load.burst("w", made, WORKSPACES)
        stack.drained()
        before = _bytes(stack)
        stack.load.burst("b", made, CALLBACKS)
        stack.drained()
        found = [(after - was) / CALLBACKS for was, after in zip(before, _bytes(stack), strict=True)]
    names = ("to Redis", "from Redis", "append-only file, and to each replica")
    rows = [[name, f"{value:,.0f}"] for name, value in zip(names, found, strict=True)]
    return table(["bytes of a callback", "each"], rows)


def _bytes(stack: Any) -> tuple[int, int, int]:
    info = stack.client.info("everything")
    return info["total_net_input_bytes"], info["total_net_output_bytes"], info["aof_current_size"]


def main(arguments: Sequence[str]) -> None:
    """Measures, and prints; `--keep` puts it into docs/capacity.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.registries", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="write the tables into docs/capacity.md")
    options = parser.parse_args(arguments)
    text = f"{machine()}; `python -m bench.registries` repeats it.\n\n{of_workers()}\n\n{of_callbacks()}"
    print(text)
    if options.keep:
        put_between_marks(DOCUMENT, "registries", text)


if __name__ == "__main__":
    main(sys.argv[1:])
