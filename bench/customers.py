"""`make bench-isolation`, second part: what one customer with very many bad endpoints costs the others.

One worker with default settings unless a row says otherwise. Each row has a fresh Redis and worker; the rows of a
round follow one another, and ratios are within one round. The measurement begins once intake has accepted all
callbacks to the bad endpoints, and lasts beyond their first wave of retries, after 15 s.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench.isolation import Phase, phase
from bench.load import Customer
from bench.receiver import Receiver
from bench.report import Progress, keep, machine, spread, table
from bench.stack import Stack, running, wait_until

RATE, HEALTHY = 50, 100
KINDS = ("ok", "hang", "late")
"""The receiver's ports. `refuse` is not among them: it is a port without a listener."""
LATE_MS = 9000


@dataclass(frozen=True)
class Row:
    """The other customers' load during a measurement."""

    name: str
    kind: str = "refuse"
    callbacks: int = 0
    endpoints: int = 1
    workspaces: int = 1
    max_in_flight: int = 4000


MANY = 20_000
ROWS = (
    Row("nobody"),
    Row("20,000 callbacks to 1 dead endpoint", "refuse", MANY),
    Row("to 1,000 dead endpoints of one workspace", "refuse", MANY, 1000),
    Row("to 20,000 dead endpoints of one workspace", "refuse", MANY, MANY),
    Row("to 20,000 of 100 workspaces", "refuse", MANY, MANY, 100),
    Row("to 20,000 that hang, of one workspace", "hang", MANY, MANY),
    Row("to 20,000 that say 200 after 9 s, of one", "late", MANY, MANY),
    Row("nobody, MAX_IN_FLIGHT 100", max_in_flight=100),
    Row("1,800 to 60 that say 200 after 9 s, of one", "late", 1800, 60, max_in_flight=100),
)


class Customers:
    """Measures the rows, with one receiver."""

    def __init__(self, receiver: Receiver, seconds: float, share: float, progress: Progress) -> None:
        self._receiver = receiver
        self._seconds = seconds
        self._share = share
        self._progress = progress
        receiver.behave("ok", LATE_MS, port=KINDS.index("late"))

    def measure(self, row: Row) -> Phase:
        """The healthy endpoints' latency during a row's load."""
        with running(MAX_IN_FLIGHT=str(row.max_in_flight)) as stack:
            healthy = stack.customers("w", [self._receiver.url(n + 1) for n in range(HEALTHY)])
            bad = stack.customers("x", [self._receiver.url(0)] * row.workspaces)
            stack.load.steady(RATE, 3, {"warm": healthy})
            stack.drained()
            self._receiver.take()
            self._burst(stack, row, bad)
            sent = stack.load.steady(RATE, self._seconds, {"h": healthy}, tell=self._progress.part)
            wait_until(lambda: self._receiver.count("h") >= sent["h"], 60, "the healthy endpoints' callbacks")
            arrived = self._receiver.take()["h"]
        return phase(arrived, sent["h"])

    def _burst(self, stack: Stack, row: Row, bad: Sequence[Customer]) -> None:
        """Enqueues the row's callbacks and waits until intake has accepted them."""
        if not row.callbacks:
            return
        endpoints = max(1, round(row.endpoints * self._share))
        to = [
            Customer(bad[n % len(bad)].workspace, self._url(row.kind, n % endpoints))
            for n in range(endpoints)
        ]
        stack.load.burst("b", to, round(row.callbacks * self._share))
        wait_until(lambda: stack.client.xlen("dispatcher:events") == 0, 120, "intake")

    def _url(self, kind: str, number: int) -> str:
        place = 10_000 + number
        if kind == "refuse":
            return f"http://127.{place >> 16}.{place >> 8 & 255}.{place & 255}:9/hooks"
        return self._receiver.url(place, KINDS.index(kind))


def main(arguments: Sequence[str]) -> None:
    """Measures all rows and prints the table; `--keep` puts it into docs/performance.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.customers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: a look, not a measurement")
    parser.add_argument("--keep", action="store_true", help="write the table into docs/performance.md")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds, unless --quick")
    options = parser.parse_args(arguments)
    rounds, seconds, share = (1, 6, 0.1) if options.quick else (options.rounds, 30, 1.0)
    progress = Progress(rounds * len(ROWS))
    found: defaultdict[Row, list[Phase]] = defaultdict(list)
    with Receiver(*KINDS) as receiver:
        customers = Customers(receiver, seconds, share, progress)
        for _ in range(rounds):
            for row in ROWS:
                progress.start(row.name)
                found[row].append(customers.measure(row))
    progress.end()
    head = [f"beside {HEALTHY} healthy endpoints", "p50 ms", "p95 ms", "p99 ms", "p99 ratio", "missing"]
    rows = []
    for row, phases in found.items():
        base = found[
            next(one for one in ROWS if not one.callbacks and one.max_in_flight == row.max_in_flight)
        ]
        ratios = [one.p99 / other.p99 for one, other in zip(phases, base, strict=True)]
        times = [spread([getattr(one, share) for one in phases]) for share in ("p50", "p95", "p99")]
        rows.append([row.name, *times, spread(ratios, 2), str(sum(one.lost for one in phases))])
    text = (
        f"{rounds} rounds on {machine()}; `make bench-isolation` repeats it. Median, and lowest to highest.\n\n"
        f"{RATE} status changes a second to the healthy endpoints, each of a workspace of its own, for {seconds} s from when "
        "intake has accepted the others' burst: from XADD to the POST's arrival. The ratio is to nobody, with the same settings "
        f"and in the same round.\n\n{table(head, rows)}"
    )
    print(text)
    if options.keep:
        keep("customers", text)


if __name__ == "__main__":
    main(sys.argv[1:])
