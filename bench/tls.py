"""`make bench-tls`: callbacks over https beside http, to endpoints by name, and beside a bare aiohttp loop.

Every run has a fresh Redis, worker and pool of connections. http and https, and both loops, take turns, round by round;
ratios are within one round.
"""

import argparse
import dataclasses
import json
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.authority import LEAVES, make_chain
from bench.contenders import ratio
from bench.named_receivers import DOMAIN, NamedReceivers
from bench.names import NameServer
from bench.receiver import Group, Terms
from bench.report import Progress, keep, machine, median, percentile, spread, table
from bench.senders import GROUP, Place, Sender, bare, bare_burst, worker, worker_burst

Figures = dict[str, float]
"""Of one run, by name."""
Found = dict[str, dict[str, list[float]]]
"""Of one row, by contender and name: the figures of all rounds."""

SPARE_DESCRIPTORS = 1_000
"""What a process needs beside one for each endpoint's connection."""


@dataclass(frozen=True)
class Size:
    """How long a run is."""

    rounds: int
    waiting: int
    seconds: float


FULL, QUICK = Size(3, 8_000, 10), Size(1, 3_000, 3)


@dataclass(frozen=True)
class Row:
    """Callbacks at a steady rate to so many endpoints."""

    endpoints: int
    per_second: int
    cold: bool = False
    """Whether the warm-up, one POST to each endpoint at that rate, is measured too."""
    bare: bool = False
    """Whether the bare loop is measured too."""


ROWS = {
    "waiting": Row(100, 0, bare=True),
    "100": Row(100, 300),
    "2000": Row(2_000, 300, cold=True, bare=True),
    "10000": Row(10_000, 1_000, cold=True),
}
"""The row "waiting" has its callbacks all at once, so no rate."""

HEADINGS = {
    "rate": "callbacks/s",
    "p50": "p50 ms",
    "p95": "p95 ms",
    "p99": "p99 ms",
    "cpu": "CPU ms",
    "handshakes": "handshakes",
    "receiver": "receiver %",
}


class Bench:
    """Runs rows over http and https."""

    def __init__(self, places: dict[str, Place], size: Size, rest_seconds: float, progress: Progress) -> None:
        self._places = places
        self._size = size
        self._rest_seconds = rest_seconds
        self._progress = progress

    def run(self, row: Row) -> dict[str, Found]:
        """All rounds of a row: what was found, by phase (waiting, cold, warm)."""
        found: dict[str, Found] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
        for _ in range(self._size.rounds):
            for contender in ("worker", "bare") if row.bare else ("worker",):
                for scheme, place in self._places.items():
                    self._progress.start(f"{_title(row)}: {contender}, {scheme}")
                    for phase, figures in self._once(row, contender, place):
                        for name, value in figures.items():
                            found[phase][f"{contender} {scheme}"][name].append(value)
        return found

    def _once(self, row: Row, contender: str, place: Place) -> Iterator[tuple[str, Figures]]:
        if not row.per_second:
            burst = worker_burst if contender == "worker" else bare_burst
            yield "waiting", self._waiting(burst, row, place)
            return
        with (worker if contender == "worker" else bare)(place, row.endpoints) as sender:
            if row.cold:
                count = row.endpoints
                yield "cold", self._steady(sender, row, place, count / row.per_second, in_turn=True)
            else:
                count = 2 * row.endpoints
                sender.load.burst(GROUP, sender.customers, count)
                sender.finish(count)
                place.receivers.take(GROUP)
            time.sleep(self._rest_seconds)
            yield "warm", self._steady(sender, row, place, self._size.seconds)

    def _waiting(self, burst: Callable[[Place, int, int], float], row: Row, place: Place) -> Figures:
        """Callbacks that all wait when the sender starts."""
        receivers, count = place.receivers, self._size.waiting
        opened, receiving = receivers.opened(), receivers.cpu_seconds()
        cpu = burst(place, row.endpoints, count)
        receiving, opened = receivers.cpu_seconds() - receiving, receivers.opened() - opened
        arrived = receivers.take(GROUP)
        seconds = arrived.last_at - arrived.first_at
        return {
            "rate": (arrived.distinct - 1) / seconds,
            "cpu": cpu / arrived.posts * 1000,
            "handshakes": opened / arrived.posts,
            "receiver": receiving / seconds * 100,
        }

    def _steady(
        self, sender: Sender, row: Row, place: Place, seconds: float, *, in_turn: bool = False
    ) -> Figures:
        """Callbacks at the row's rate."""
        receivers = place.receivers
        opened, receiving, cpu = receivers.opened(), receivers.cpu_seconds(), sender.cpu()
        began = time.monotonic()
        groups = {GROUP: sender.customers}
        sent = sender.load.steady(row.per_second, seconds, groups, in_turn=in_turn, tell=self._progress.part)
        sender.finish(sent[GROUP])
        lasted = time.monotonic() - began
        cpu, opened = sender.cpu() - cpu, receivers.opened() - opened
        receiving = receivers.cpu_seconds() - receiving
        arrived = receivers.take(GROUP)
        return {
            **_latencies(arrived),
            "cpu": cpu / arrived.posts * 1000,
            "handshakes": opened / arrived.posts,
            "receiver": receiving / lasted * 100,
            "posts": arrived.posts / arrived.distinct,
        }


def _latencies(arrived: Group) -> Figures:
    shares = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    return {name: percentile(arrived.latencies_us, share) / 1000 for name, share in shares}


@contextmanager
def places(options: argparse.Namespace) -> Iterator[dict[str, Place]]:
    """The receivers of both schemes, and the name server, within `with`."""
    with tempfile.TemporaryDirectory() as folder, NameServer() as names:
        chain = make_chain(Path(folder), options.leaf, f"*.{DOMAIN}")
        plain = Terms(None, options.idle, options.keep_alive)
        encrypted = Terms(chain.server, options.idle, options.keep_alive)
        with (
            NamedReceivers("http", plain, options.receivers) as http,
            NamedReceivers("https", encrypted, options.receivers) as https,
        ):
            kept = max(1.0, options.idle - 1)
            yield {
                "http": Place(http, names, None, kept),
                "https": Place(https, names, chain.authority, kept),
            }


def _title(row: Row, phase: str = "") -> str:
    if not row.per_second:
        return f"{row.endpoints:,} endpoints, all callbacks waiting"
    more = {"": "", "cold": ", the first POST to each", "warm": ", each was posted to before"}[phase]
    return f"{row.endpoints:,} endpoints at {row.per_second:,}/s{more}"


def section(row: Row, phase: str, found: Found) -> str:
    """The tables of a row's phase."""
    tables = [_compared("one worker", found["worker http"], found["worker https"])]
    if row.bare:
        tables.append(_compared("bare loop", found["bare http"], found["bare https"]))
        name = "cpu" if row.per_second else "rate"
        ratios = [
            ratio(found[f"worker {scheme}"][name], found[f"bare {scheme}"][name])
            for scheme in ("http", "https")
        ]
        what = "CPU" if row.per_second else "callbacks/s"
        tables.append(f"One worker's {what} ÷ the bare loop's: http {ratios[0]}, https {ratios[1]}.")
    return "\n\n".join([f"**{_title(row, phase)}**", *tables])


def _compared(who: str, http: dict[str, list[float]], https: dict[str, list[float]]) -> str:
    rows = []
    for name, heading in HEADINGS.items():
        if name not in http:
            continue
        ratios = ratio(https[name], http[name]) if all(http[name]) and name != "receiver" else ""
        rows.append([heading, _shown(http[name]), _shown(https[name]), ratios])
    return table([who, "http", "https", "https ÷ http"], rows)


def _shown(values: Sequence[float]) -> str:
    """With three digits or so."""
    middle = median(values)
    return spread(values, 0 if middle >= 100 else 1 if middle >= 10 else 2)


def check_descriptors(endpoints: int) -> None:
    """Raises SystemExit if a process may not open a connection for each endpoint."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = endpoints + SPARE_DESCRIPTORS
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise SystemExit(
            f"error: {endpoints:,} endpoints need {needed:,} open files in a process, "
            f"and the limit is {limit:,}: raise it (ulimit -Hn), or name other rows"
        )


def main(arguments: Sequence[str]) -> None:
    """Runs the rows and prints their tables; `--keep` puts them into docs/performance.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.tls", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: a look, not a measurement")
    parser.add_argument("--keep", action="store_true", help="write the tables into docs/performance.md")
    parser.add_argument("--json", action="store_true", help="print every round's figures instead of tables")
    parser.add_argument("--rounds", type=int, help=f"how often all take their turn (default: {FULL.rounds})")
    parser.add_argument("--leaf", choices=LEAVES, default="ec", help="the leaf's key (default: ec)")
    parser.add_argument(
        "--idle", type=float, default=75, help="seconds that receivers keep idle connections (75)"
    )
    parser.add_argument("--keep-alive", action="store_true", help="receivers say so in a Keep-Alive header")
    parser.add_argument("--rest", type=float, default=0, help="seconds between warm-up and measurement (0)")
    parser.add_argument("--receivers", type=int, default=1, help="receiver processes of each scheme (1)")
    parser.add_argument("rows", nargs="*", help=f"only these: {', '.join(ROWS)}")
    options = parser.parse_args(arguments)
    if unknown := set(options.rows) - ROWS.keys():
        parser.error(f"there is no row {', '.join(sorted(unknown))}")
    rows = {name: ROWS[name] for name in options.rows or ROWS}
    check_descriptors(max(row.endpoints for row in rows.values()))
    size = QUICK if options.quick else FULL
    size = dataclasses.replace(size, rounds=options.rounds or size.rounds)
    progress = Progress(size.rounds * sum(4 if row.bare else 2 for row in rows.values()))
    with places(options) as both:
        bench = Bench(both, size, options.rest, progress)
        found = {name: bench.run(row) for name, row in rows.items()}
    progress.end()
    if options.json:
        print(json.dumps({"machine": machine(), "options": vars(options), "rows": found}))
        return
    text = "\n\n".join(
        [
            about(options, size),
            *(
                section(rows[name], phase, one)
                for name, phases in found.items()
                for phase, one in phases.items()
            ),
        ]
    )
    print(text)
    if options.keep and not options.rows:
        keep("tls", text)


def about(options: argparse.Namespace, size: Size) -> str:
    """What was measured, and where."""
    said = "say so in a Keep-Alive header" if options.keep_alive else "do not say so"
    return (
        f"{size.rounds} round{'s' * (size.rounds > 1)} on {machine()}; `make bench-tls` repeats it. "
        f"Median, and lowest to highest. {LEAVES[options.leaf]}; receivers close connections that are idle for "
        f"{options.idle:g} s, and {said}."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
