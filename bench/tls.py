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
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.authority import LEAVES, make_chain
from bench.named_receivers import DOMAIN, NamedReceivers
from bench.names import NameServer
from bench.receiver import Terms
from bench.report import Progress, keep, machine, median, spread, table
from bench.senders import Place
from bench.tls_rows import Bench, Found, Row, Size, title

SPARE_DESCRIPTORS = 1_000
"""What a process needs beside one for each endpoint's connection."""

FULL, QUICK = Size(3, 8_000, 10, 30), Size(1, 3_000, 5, 5)

ROWS = {
    "waiting": Row(100, 0, bare=True),
    "100": Row(100, 300),
    "2000": Row(2_000, 300, cold=True, bare=True),
    "10000": Row(10_000, 1_000, cold=True, first_per_second=250),
}
"""The row "waiting" has its callbacks all at once, so no rate."""

FEWER = 4_000
"""The most endpoints of a quick run: 10,000 first POSTs over https take half a minute."""

SCHEMES = ("http", "https")
HEADINGS = {
    "rate": "POSTs/s",
    "p50": "p50 ms",
    "p95": "p95 ms",
    "p99": "p99 ms",
    "cpu": "CPU ms",
    "connections": "handshakes",
    "resumed": "resumed",
    "posts": "POSTs each",
    "retries": "retries",
    "receiver": "receiver %",
}
NORMAL = {"resumed": 0.0, "posts": 1.0, "retries": 0}
"""Figures that are shown only if they are other than these."""


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


def section(row: Row, phase: str, found: Found) -> str:
    """The tables of a row's phase."""
    tables = [_compared("one worker", found["worker http"], found["worker https"])]
    if row.bare:
        tables.append(_compared("bare loop", found["bare http"], found["bare https"]))
        name, what = ("cpu", "CPU") if row.per_second else ("rate", "POSTs/s")
        http, https = (
            _ratio(found[f"worker {scheme}"][name], found[f"bare {scheme}"][name]) for scheme in SCHEMES
        )
        tables.append(f"{what}, worker ÷ bare loop: http {http}, https {https}.")
    return "\n\n".join([f"**{title(row, phase)}**", *tables])


def _compared(who: str, http: dict[str, list[float]], https: dict[str, list[float]]) -> str:
    """A table of one contender's figures over http and https."""
    rows = []
    for name, heading in HEADINGS.items():
        if name not in http or set(http[name] + https[name]) == {NORMAL.get(name)}:
            continue
        ratios = "" if name in ("connections", "receiver", *NORMAL) else _ratio(https[name], http[name])
        rows.append([heading, _cell(name, http[name]), _cell(name, https[name]), ratios])
    return table([who, "http", "https", "https ÷ http"], rows)


def _cell(name: str, values: Sequence[float]) -> str:
    """One figure of all rounds, narrow enough for 80 columns: latencies of an overload are in seconds."""
    if name in ("receiver", "retries"):
        return _shown(values, 0)
    if name != "rate" and median(values) >= 10_000:
        middle, *span = spread([value / 1000 for value in values], 1).split(" ")
        return " ".join([middle, "s", *span])
    return _shown(values)


def _ratio(found: Sequence[float], base: Sequence[float]) -> str:
    """The ratio round by round, so that a disturbance of a round affects both sides."""
    return _shown([a / max(b, 0.001) for a, b in zip(found, base, strict=True)])


def _shown(values: Sequence[float], digits: int | None = None) -> str:
    """By default with three digits or so."""
    middle = median(values)
    return spread(values, digits if digits is not None else 0 if middle >= 100 else 1 if middle >= 10 else 2)


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
    options = parsed(arguments)
    rows = chosen(options)
    check_descriptors(max(row.endpoints for row in rows.values()))
    size = QUICK if options.quick else FULL
    before = size.before_seconds if options.before is None else options.before
    size = dataclasses.replace(size, rounds=options.rounds or size.rounds, before_seconds=before)
    progress = Progress(size.rounds * sum(4 if row.bare else 2 for row in rows.values()))
    with places(options) as both:
        bench = Bench(both, size, progress)
        found = {name: bench.run(row) for name, row in rows.items()}
    progress.end()
    if options.json:
        print(json.dumps({"machine": machine(), "options": vars(options), "rows": found}))
        return
    sections = [section(rows[name], phase, found[name][phase]) for name in found for phase in found[name]]
    text = "\n\n".join([about(options, size), *sections])
    print(text)
    if options.keep and not options.rows:
        keep("tls", text)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a run. Raises SystemExit."""
    parser = argparse.ArgumentParser(prog="python -m bench.tls", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="one short round: a look, not a measurement")
    add("--keep", action="store_true", help="write the tables into docs/performance.md")
    add("--json", action="store_true", help="print every round's figures instead of tables")
    add("--rounds", type=int, help=f"how often all take their turn (default: {FULL.rounds})")
    add("--leaf", choices=LEAVES, default="ec", help="the leaf's key (default: ec)")
    add("--idle", type=float, default=75, help="seconds that receivers keep idle connections (default: 75)")
    add("--keep-alive", action="store_true", help="receivers say so in a Keep-Alive header")
    add(
        "--before",
        type=float,
        help=f"seconds of posting at a row's rate before its last part (default: {FULL.before_seconds:g})",
    )
    add("--receivers", type=int, default=1, help="receiver processes of each scheme (default: 1)")
    add("rows", nargs="*", help=f"only these: {', '.join(ROWS)}")
    options = parser.parse_args(arguments)
    if unknown := set(options.rows) - ROWS.keys():
        parser.error(f"there is no row {', '.join(sorted(unknown))}")
    return options


def chosen(options: argparse.Namespace) -> dict[str, Row]:
    """The rows of a run, by name."""
    most = FEWER if options.quick else sys.maxsize
    rows = {name: ROWS[name] for name in options.rows or ROWS}
    return {name: dataclasses.replace(row, endpoints=min(row.endpoints, most)) for name, row in rows.items()}


def about(options: argparse.Namespace, size: Size) -> str:
    """What was measured, and where."""
    header = "a" if options.keep_alive else "no"
    text = (
        f"{size.rounds} round{'s' * (size.rounds > 1)} on {machine()}; `make bench-tls` repeats it. "
        f"Median, and lowest to highest. Certificates: {LEAVES[options.leaf]}. "
        f"Receivers close connections that are idle for {options.idle:g} s, and send {header} Keep-Alive header. "
        "Latencies are from XADD to the arrival. CPU is the sender's for each POST, and handshakes are of each POST "
        "as the receiver counts them, over http its connections. "
        f"Later: after {size.before_seconds:g} s more at that rate. "
        "receiver % is the receiver's share of one core."
    )
    return textwrap.fill(text, 80)


if __name__ == "__main__":
    main(sys.argv[1:])
