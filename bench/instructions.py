"""`python -m bench.instructions`: instructions of Redis for a callback, counted by callgrind.

Counts hardly differ from run to run, whatever else the machine does, so a change of one hundredth is seen.
What is counted is accept, claim and settle, with reading these calls and answering them; not how entries come onto the queue.
"""

import argparse
import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import redis

from bench.report import table
from dispatcher.model import Status, StatusChange, iso
from dispatcher.rules.callback import Callback, Claimed
from dispatcher.rules.outcomes import Attempt, Delivered, EndpointHealth
from dispatcher.store.arguments import Room, ToAccept
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import Keys
from dispatcher.store.ledger import Ledger
from dispatcher.store.replies import Claim, Settled, Settlement, ToClaim, ToSettle
from dispatcher.store.wire import Wire
from dispatcher.worker.recorder import Recorder
from tasks.redis_server import WHEELS, RedisServer, find_in_wheel

ALONE, BURST, ENDPOINTS = 200, 1_280, (20, 100)
AT_ONCE, SETTLED_AT_ONCE, CLAIMED_AT_ONCE = 64, 16, 16
"""Callbacks in one accept, endpoints in one settle, and callbacks that a settle claims of one endpoint."""
TOKEN, BODY, KEPT_MS = "leader", b"x" * 340, 604_800_000


class Callgrind:
    """A server that runs under callgrind."""

    def __init__(self, url: str, folder: Path) -> None:
        self._folder = folder
        with redis.Redis.from_url(url) as client:
            self._process = str(client.info("server")["process_id"])

    def _control(self, *options: str) -> None:
        subprocess.run(["callgrind_control", *options, self._process], check=True, capture_output=True)

    @contextmanager
    def counting(self, name: str) -> Iterator[list[int]]:
        """Counts the server's instructions within `with`: afterwards the list has their number."""
        found: list[int] = []
        self._control("--zero")
        self._control("--instr=on")
        yield found
        self._control("--instr=off")
        before = set(self._folder.glob("callgrind.*"))
        self._control(f"--dump={name}")
        [dump] = set(self._folder.glob("callgrind.*")) - before
        total = re.search(r"^totals: (\d+)$", dump.read_text(), re.M)
        found.append(int(total[1]) if total else 0)
        dump.rename(self._folder / f"{name}.callgrind")


class Bench:
    """Accepts and settles callbacks as a worker does, and counts."""

    def __init__(self, url: str, callgrind: Callgrind, *, records: bool) -> None:
        self._client = connect_async(url)
        self._wire = Wire(self._client)
        self._ledger = Ledger(self._wire.call, Keys(), url)
        self._callgrind = callgrind
        self._recorder = Recorder(KEPT_MS) if records else None
        self._numbers = count()

    async def counts(self) -> list[float]:
        """Instructions for a callback: alone, and in a burst over each number of `ENDPOINTS`."""
        await self._ledger.lead(TOKEN, 10**9)
        found = []
        for name, endpoints, at_once in (("alone", 20, 1), *((f"burst-{n}", n, AT_ONCE) for n in ENDPOINTS)):
            number = ALONE if at_once == 1 else BURST
            for _ in range(3 if at_once > 1 else 1):  # opens the windows, so that none limits what follows
                await self._run(await self._batches(number, endpoints, at_once))
            batches = await self._batches(number, endpoints, at_once)
            kind = "recorded" if self._recorder else "plain"
            with self._callgrind.counting(f"{name}-{kind}") as counted:
                await self._run(batches)
            found.append(counted[0] / number)
        await self._wire.close()
        await self._client.aclose()
        return found

    async def _batches(self, number: int, endpoints: int, at_once: int) -> list[ToAccept]:
        made = [await self._batch(at_once, endpoints) for _ in range(number // at_once)]
        await self._wire.call(
            "XREADGROUP", "GROUP", "workers", "intake", "COUNT", number, "STREAMS", Keys().events, ">"
        )
        return made

    async def _batch(self, size: int, endpoints: int) -> ToAccept:
        batch = ToAccept()
        for place in range(1, size + 1):
            number = next(self._numbers)
            entry = await self._wire.call("XADD", Keys().events, "*", "event", BODY)
            one = callback(number, f"acme https://{number % endpoints}.example:443", self._ledger.now_ms())
            batch.add(entry.decode(), one)
            if self._recorder:
                told = {"uuid": one.message_uuid, "src": "ACME", "dest": f"+2332{number:08d}"}
                status = StatusChange(
                    workspace="acme", status="SENT", timestamp=iso(one.timestamp_ns // 10**6), message=told
                )
                self._recorder.add(batch, status, "zeckta", place)
        return batch

    async def _run(self, batches: Sequence[ToAccept]) -> None:
        """Accepts the batches, and settles after each what it has been given; then the rest."""
        for batch in batches:
            accepted = await self._ledger.accept(TOKEN, {}, [], batch, Room(AT_ONCE))
            in_hand = [(endpoint, claim.callbacks) for endpoint, claim in accepted.claims]
            hinted = [hint.endpoint for hint in accepted.hints]
            in_hand += [(one, await self._claimed(one)) for one in hinted]
            while in_hand:
                in_hand = await self._settle(in_hand)

    async def _claimed(self, endpoint: str) -> list[Claimed]:
        [claim] = await self._ledger.claim([ToClaim(endpoint, AT_ONCE)])
        assert isinstance(claim, Claim)
        return claim.callbacks

    async def _settle(self, in_hand: Sequence[tuple[str, list[Claimed]]]) -> list[tuple[str, list[Claimed]]]:
        """Settles as delivered what is in hand; returns what was claimed next."""
        following = []
        for first in range(0, len(in_hand), SETTLED_AT_ONCE):
            some = in_hand[first : first + SETTLED_AT_ONCE]
            asked = [
                ToSettle(endpoint, [self._delivered(one) for one in found], CLAIMED_AT_ONCE)
                for endpoint, found in some
            ]
            for (endpoint, _), settled in zip(some, await self._ledger.settle(asked), strict=True):
                assert isinstance(settled, Settled)
                if settled.claim and settled.claim.callbacks:
                    following.append((endpoint, settled.claim.callbacks))
        return following

    def _delivered(self, one: Claimed) -> Settlement:
        attempt = Attempt(self._ledger.now_ms(), 5, 200)
        return Settlement(one.event_id, one.claim, Delivered(), attempt, EndpointHealth.UP)


def callback(number: int, endpoint: str, now_ms: int) -> Callback:
    """A callback as intake renders it, the only one of its message."""
    return Callback(
        workspace="acme",
        event_id=f"5f0c1d9e-7a0b-4c1d-8e2f-{number:012d}",
        event_type="MESSAGE_SENT",
        status=Status.SENT,
        message_uuid=f"7a1c1d9e-7a0b-4c1d-8e2f-{number:012d}",
        url="https://a.example/hooks/of/a/customer",
        endpoint=endpoint,
        body=BODY,
        digest="0123456789abcdef0123456789abcdef",
        timestamp_ns=now_ms * 1_000_000,
        ttl_ms=172_800_000,
    )


def measure(wheel: str, folder: Path) -> list[list[str]]:
    """Rows of the table: a server of a wheel, without message store and with it. Keeps callgrind's files in `folder`."""
    rows = []
    for records in (False, True):
        with tempfile.TemporaryDirectory() as made:
            program = Path(made) / "server"
            valgrind = (
                f"valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file={folder}/callgrind.%p"
            )
            program.write_text(f'#!/bin/sh\nexec {valgrind} {find_in_wheel(wheel)} "$@"\n')
            program.chmod(0o700)
            with RedisServer(Path(made), executable=str(program)) as server:
                bench = Bench(server.url, Callgrind(server.url, folder), records=records)
                found = asyncio.run(bench.counts())
        rows.append(
            [
                f"{wheel}, {'with' if records else 'without'} message store",
                *(f"{one / 1000:,.1f}" for one in found),
            ]
        )
    return rows


def main(arguments: Sequence[str]) -> None:
    """Counts and prints the table, in thousands."""
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__)
    parser.add_argument("--server", choices=tuple(WHEELS), action="append", help="only on this one")
    parser.add_argument("--keep", type=Path, help="a folder for callgrind's files, for callgrind_annotate")
    options = parser.parse_args(arguments)
    if not shutil.which("callgrind_control"):
        sys.exit("valgrind is not installed (Debian, Ubuntu: apt-get install valgrind)")
    head = [
        "thousand instructions for a callback",
        "alone",
        *(f"{BURST:,} over {n} endpoints" for n in ENDPOINTS),
    ]
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [row for wheel in options.server or WHEELS for row in measure(wheel, folder)]
    print(table(head, rows))


if __name__ == "__main__":
    main(sys.argv[1:])
