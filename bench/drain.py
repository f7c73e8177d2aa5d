"""`make bench-drain`: delivery rate and memory per callback while 10,000, 100,000 or 1,000,000 callbacks wait."""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from bench.contenders import Contenders, Size, customers
from bench.receiver import Receiver
from bench.report import Progress, keep, machine, table
from bench.stack import Stack, running, wait_until

ENDPOINTS, WORKERS = 1000, 1
MEASURED_SECONDS = 40
FULL, QUICK = (10_000, 100_000, 1_000_000), (3_000, 30_000)


def drain(contenders: Contenders, count: int) -> list[float]:
    """Returns callbacks accepted a second while none is sent, bytes of Redis each, and callbacks delivered a second."""
    progress, receiver = contenders.progress, contenders.receiver
    with running(workers=0) as stack:
        made = customers(stack, contenders.urls(ENDPOINTS))
        limit(stack, "0.001")
        progress.start(f"{count:,} are enqueued")
        stack.start()
        before = stack.client.info("memory")["used_memory"]
        began = time.monotonic()
        stack.load.burst("b", made, count)
        progress.start(f"{count:,} are accepted")
        wait_until(lambda: stack.client.xlen("dispatcher:events") == 0, 600, "intake", every=0.1)
        accepted = count / (time.monotonic() - began)
        each = (stack.client.info("memory")["used_memory"] - before) / count
        progress.start(f"{count:,} go out")
        receiver.take()
        limit(stack, "0")
        _look_now(stack)
        began = time.monotonic()
        wait_until(
            lambda: stack.waiting() == 0 or time.monotonic() - began > MEASURED_SECONDS,
            600,
            "callbacks",
            every=0.1,
        )
        out = receiver.take()["b"]
        rate = out.distinct / (out.last_at - out.first_at)
    return [accepted, each, rate]


def limit(stack: Stack, rate: str) -> None:
    """Sets the rate limit of all workspaces, in callbacks a second to each endpoint; "0" removes it."""
    for key in stack.client.scan_iter("dispatcher:workspace:*"):
        stack.client.hset(key, mapping={"rate_per_second": rate, "revision": rate})


def _look_now(stack: Stack) -> None:
    """Makes all endpoints due now, so that the workers do not wait for the old rate's tokens."""
    client: Any = stack.client  # its types do not say that names come as bytes
    for workspace in client.zrange("dispatcher:schedule", 0, -1):
        for endpoint in client.zrange(b"dispatcher:schedule:" + workspace, 0, -1):
            client.hdel(b"dispatcher:endpoint:" + endpoint, "hinted_until")
            client.zadd(b"dispatcher:schedule:" + workspace, {endpoint: 0})
        client.zadd("dispatcher:schedule", {workspace: 0})


def main(arguments: Sequence[str]) -> None:
    """Runs everything and prints the table; `--keep` puts it into docs/performance.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.drain", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer callbacks: a look, not a measurement")
    parser.add_argument("--keep", action="store_true", help="write the table into docs/performance.md")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else FULL
    progress = Progress(3 * (len(sizes) + 1))
    with Receiver("ok") as receiver:
        contenders = Contenders(receiver, Size(1, 0, 0, 0), progress)
        found = [drain(contenders, count) for count in (*sizes, sizes[0])]
    progress.end()
    base = (found[0][2] + found[-1][2]) / 2  # mean of before and after, since the machine's speed drifts
    rows = [
        [f"{count:,}", f"{accepted:,.0f}", f"{each:,.0f}", f"{rate:,.0f}", f"{rate / base:.2f}"]
        for count, (accepted, each, rate) in zip((*sizes, sizes[0]), found, strict=True)
    ]
    head = [
        "waiting",
        "enqueued and accepted/s",
        "bytes of Redis each",
        "delivered/s",
        f"÷ with {sizes[0]:,} waiting",
    ]
    text = (
        f"One worker, {ENDPOINTS:,} endpoints, on {machine()}; delivered over the first {MEASURED_SECONDS} s; "
        f"`make bench-drain` repeats it.\n\n{table(head, rows)}"
    )
    print(text)
    if options.keep:
        keep("drain", text)


if __name__ == "__main__":
    main(sys.argv[1:])
