"""`python -m bench.retired`: bytes of Redis for a callback that only the archive has, and how long Redis takes to retire it.

The archive has no part in it: entries are written as the ledger keeps those of delivered callbacks, and retired.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import redis.asyncio

from bench.report import Progress, table
from dispatcher.store.arguments import WITH_ARCHIVE, Id, LedgerOptions
from dispatcher.store.keys import Keys
from dispatcher.store.ledger import Ledger
from dispatcher.store.wire import Wire
from dispatcher.worker.archiver import RETIRED_AT_ONCE
from tasks.redis_server import WHEELS, RedisServer, find_in_wheel

TOKEN, WRITTEN_AT_ONCE = "leader", 5_000


async def measure(url: str, callbacks: int, progress: Progress, name: str) -> list[str]:
    """A row of the table."""
    client = redis.asyncio.Redis.from_url(url)
    wire, keys = Wire(client), Keys()
    ledger = Ledger(wire.call, keys, url, LedgerOptions(archives=True))
    await client.set(keys.format, WITH_ARCHIVE)
    await ledger.lead(TOKEN, 10**9)
    before, spent, kept = await _memory(client), 0.0, 0
    for first in range(0, callbacks, WRITTEN_AT_ONCE):
        progress.part(first / callbacks)
        entries = [
            _entry(number, ledger.now_ms())
            for number in range(first, min(first + WRITTEN_AT_ONCE, callbacks))
        ]
        pipe = client.pipeline(transaction=False)
        for (workspace, id_), text in entries:
            pipe.set(keys.event(workspace, id_), text)
            pipe.set(keys.message(workspace, f"m{id_}"), id_)
        await pipe.execute()
        if not first:
            kept = await _memory(client) - before
        cpu = await _cpu(client)
        for at in range(0, len(entries), RETIRED_AT_ONCE):
            await ledger.retire(TOKEN, entries[at : at + RETIRED_AT_ONCE], ())
        spent += await _cpu(client) - cpu
    left = await _memory(client) - before
    tables = await client.hlen(keys.fingerprints)
    await wire.close()
    await client.aclose()
    return [
        name,
        f"{callbacks:,}",
        f"{kept / min(callbacks, WRITTEN_AT_ONCE):,.0f}",
        f"{left / callbacks:.1f}",
        str(tables),
        f"{spent / callbacks * 1e6:.0f}",
    ]


def _entry(number: int, now_ms: int) -> tuple[Id, bytes]:
    """A delivered callback's id and entry."""
    id_ = f"5f0c1d9e-7a0b-4c1d-8e2f-{number:012d}"
    text = f"0123456789abcdef0123456789abcdef MESSAGE_SENT s {now_ms} d 1 AbCdEfGhIjKl m{id_} 172800000 25\n3 5 200"
    return ("acme", id_), text.encode()


async def _memory(client: "redis.asyncio.Redis") -> int:
    return int((await client.info("memory"))["used_memory"])


async def _cpu(client: "redis.asyncio.Redis") -> float:
    found = await client.info("cpu")
    return float(found["used_cpu_user"] + found["used_cpu_sys"])


def main(arguments: Sequence[str]) -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.retired", description=__doc__)
    parser.add_argument("--callbacks", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--server", choices=tuple(WHEELS), action="append", help="only on this one")
    options = parser.parse_args(arguments)
    head = [
        "server",
        "callbacks",
        "bytes before",
        "bytes of one retired",
        "tables",
        "µs of Redis to retire it",
    ]
    rows, wheels = [], options.server or [*WHEELS]
    progress = Progress(len(wheels) * len(options.callbacks))
    for wheel in wheels:
        for callbacks in options.callbacks:
            progress.start(f"{wheel}: {callbacks:,}")
            with (
                tempfile.TemporaryDirectory() as folder,
                RedisServer(Path(folder), executable=find_in_wheel(wheel)) as server,
            ):
                rows.append(asyncio.run(measure(server.url, callbacks, progress, wheel)))
    progress.end()
    print(table(head, rows))


if __name__ == "__main__":
    main(sys.argv[1:])
