"""`make bench-growth`: rate, memory and the time of commands as waiting callbacks, endpoints and workspaces grow.

One number grows at a time; in one table a callback waits for each endpoint, so both grow. Callbacks are accepted while
no worker runs; then the commands are timed, and one worker delivers for some seconds. A figure that grows faster than
its number shows as a ratio that rises from size to size.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.growth_run import COMMANDS, EXPORT, WORKER, Found, Run, Size
from bench.receiver import Receiver
from bench.report import Progress, machine, put_between_marks, table
from bench.stack import ROOT

DOCUMENT = ROOT / "docs" / "capacity.md"
BYTES_EACH = 1_400
"""Memory to have free for each waiting callback: what Redis takes, its spare room included."""
BYTES_BESIDE = 1_500_000_000
"""Memory to have free for everything else."""


@dataclass(frozen=True)
class Growing:
    """A table: one number grows, and what `about` says stays as it is."""

    name: str
    grows: str
    """The field of Size."""
    about: str
    """With the names of fields of Size."""
    sizes: tuple[Size, ...]
    quick: tuple[Size, ...]
    idle: bool = False
    """Whether everything is delivered, and the worker's memory is then measured while it has nothing to do."""


TABLES = (
    Growing(
        "waiting",
        "waiting",
        "{endpoints:,} endpoints and {workspaces:,} workspaces",
        tuple(Size(waiting, 1_000, 100) for waiting in (10_000, 1_000_000, 10_000_000)),
        tuple(Size(waiting, 100, 10) for waiting in (1_000, 5_000, 25_000)),
    ),
    Growing(
        "endpoints",
        "endpoints",
        "{waiting:,} callbacks that wait and {workspaces:,} workspaces",
        tuple(Size(100_000, endpoints, 100) for endpoints in (1_000, 10_000, 100_000)),
        tuple(Size(5_000, endpoints, 10) for endpoints in (50, 500, 5_000)),
        idle=True,
    ),
    Growing(
        "single",
        "endpoints",
        "one callback that waits for each endpoint and {workspaces:,} workspaces",
        tuple(Size(number, number, 100) for number in (10_000, 30_000, 100_000)),
        tuple(Size(number, number, 10) for number in (2_000, 5_000, 10_000)),
    ),
    Growing(
        "workspaces",
        "workspaces",
        "{waiting:,} callbacks that wait and {endpoints:,} endpoints",
        tuple(Size(100_000, 10_000, workspaces) for workspaces in (100, 1_000, 10_000)),
        tuple(Size(5_000, 500, workspaces) for workspaces in (5, 50, 500)),
        idle=True,
    ),
)
ROWS = {
    "delivered_per_s": ("delivered/s", 0),
    "worker_ms_each": ("CPU of the worker each, ms", 3),
    "redis_ms_each": ("CPU of Redis each, ms", 3),
    "redis_bytes_each": ("Redis, bytes each while it waits", 0),
    "started_mb": ("worker's memory at the start, MB", 0),
    "worker_mb": ("the same while it delivers, MB", 0),
    "idle_mb": ("the same once all is delivered, MB", 0),
    "wake_ms": ("between two wakes, ms", 0),
    "sweep_s": ("between two sweeps, s", 2),
    "heartbeat_s": ("longest between two heartbeats, s", 2),
}
"""Figures of a run, in order: what the table calls them, and their decimals."""


def free_bytes(meminfo: str) -> int:
    """The memory that can be had without swapping, from the text of /proc/meminfo (Linux)."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def require_memory(sizes: Sequence[Size], free: int) -> None:
    """Raises SystemExit if the largest of these sizes needs more than `free` bytes."""
    most = max(one.waiting for one in sizes)
    needed = most * BYTES_EACH + BYTES_BESIDE
    if needed > free:
        raise SystemExit(
            f"error: {most:,} waiting callbacks need {needed / 1e9:.1f} GB of free memory, and here are "
            f"{free / 1e9:.1f}; `python -m bench.growth --most 1000000` leaves out what is larger"
        )


def column(growing: Growing, sizes: Sequence[Size], found: Sequence[Found]) -> str:
    """The table of one growing number: a column for each size."""
    head = [growing.grows, *(f"{getattr(size, growing.grows):,}" for size in sizes)]
    rows = [
        [name, *(_shown(one.figures.get(key), digits) for one in found)]
        for key, (name, digits) in ROWS.items()
        if any(key in one.figures for one in found)
    ]
    longest = [one.commands[WORKER] for one in found]
    rows.append(
        ["the worker's longest Redis command", *(f"{one.longest_ms:.1f} {one.longest}" for one in longest)]
    )
    for command in (*COMMANDS, EXPORT):
        timed = [one.commands[command] for one in found]
        rows.append([command, *(f"{one.seconds:.1f} / {one.longest_ms:.1f}" for one in timed)])
    about = growing.about.format(**asdict(sizes[0]))
    return f"With {about}:\n\n{table(head, rows)}{_idle_each(growing, found[-1])}"


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _idle_each(growing: Growing, last: Found) -> str:
    """What is left of an endpoint or workspace in the worker's memory, at the largest size."""
    if not growing.idle:
        return ""
    each = (last.figures["idle_mb"] - last.figures["started_mb"]) * 1e6 / getattr(last.size, growing.grows)
    return f"\n\nOf each of these {growing.grows} at most {each:,.0f} bytes are left in the worker."


def main(arguments: Sequence[str]) -> None:
    """Runs everything and prints the tables; `--keep` puts them into docs/capacity.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers: a look, not a measurement")
    parser.add_argument("--keep", action="store_true", help="write the tables into docs/capacity.md")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the tables")
    parser.add_argument("--most", type=int, default=10**9, help="leave out sizes with more waiting callbacks")
    parser.add_argument("tables", nargs="*", help=f"only these: {', '.join(one.name for one in TABLES)}")
    options = parser.parse_args(arguments)
    if unknown := set(options.tables) - {one.name for one in TABLES}:
        parser.error(f"there is no table {', '.join(sorted(unknown))}")
    wanted = {
        one: [size for size in (one.quick if options.quick else one.sizes) if size.waiting <= options.most]
        for one in TABLES
        if not options.tables or one.name in options.tables
    }
    if not any(wanted.values()):
        parser.error(f"no size has at most {options.most:,} waiting callbacks; raise --most")
    require_memory(
        [size for sizes in wanted.values() for size in sizes], free_bytes(Path("/proc/meminfo").read_text())
    )
    progress = Progress(Run.STEPS * sum(map(len, wanted.values())))
    with Receiver("ok") as receiver:
        run = Run(receiver, progress, *((3, 1, 5) if options.quick else (40, 10, 30)))
        found = {one: [run.measure(size, idle=one.idle) for size in sizes] for one, sizes in wanted.items()}
    progress.end()
    text = "\n\n".join(
        [
            f"One worker on {machine()}; delivered over the first {run.seconds:.0f} s; `make bench-growth` repeats it. "
            "Without append-only file and message store. A command's two figures are the seconds that it takes, and the "
            "milliseconds of the longest command that it sends to Redis.",
            *(column(one, wanted[one], runs) for one, runs in found.items()),
        ]
    )
    print(json.dumps(_document(found), indent=2) if options.json else text)
    if options.keep and not options.tables:
        put_between_marks(DOCUMENT, "growth", text)


def _document(found: dict[Growing, list[Found]]) -> dict[str, list[dict[str, object]]]:
    return {one.name: [run.as_json() for run in runs] for one, runs in found.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
