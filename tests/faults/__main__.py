"""`make faults`: every fault in its long form, with what was counted; writes the table of docs/reliability.md."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.report import between_marks, machine, put_between_marks, table
from tests.faults import damage, on_cluster, owners  # noqa: F401  they add their faults
from tests.faults.catalogue import ELSEWHERE, FAULTS, Fault
from tests.faults.scene import play

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"


HEAD = [
    "#",
    "fault",
    "promise",
    "seed",
    "status changes",
    "lost",
    "forgotten by Redis",
    "repeated POSTs, of so many allowed",
    "seconds to recover",
    "kept",
]


def run(fault: Fault, *, short: bool) -> tuple[list[str], bool]:
    """A row of the table, and whether the promise was kept."""
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"\r\x1b[K  {time.monotonic() - began:5.0f} s  {text}", end="", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        watched = tell if sys.stderr.isatty() else print_nothing
        try:
            counts, scene = play(fault.run, Path(folder), fault.seed, short=short, tell=watched)
        except Exception as error:  # the other faults are tried all the same
            print(f"  broken: {type(error).__name__}: {error}", file=sys.stderr)
            return [str(fault.number), fault.name, fault.promise, str(fault.seed), *["-"] * 5, "NO"], False
    allowed = fault.duplicates(scene)
    kept = not counts.problems and not counts.lost and counts.duplicates <= allowed
    for problem in counts.problems[:5]:
        print(f"  broken: {problem}", file=sys.stderr)
    return [
        str(fault.number),
        fault.name,
        fault.promise,
        str(fault.seed),
        f"{counts.accepted:,}",
        str(counts.lost),
        str(counts.forgotten),
        f"{counts.duplicates} of {allowed}",
        f"{counts.seconds:.1f}",
        "yes" if kept else "NO",
    ], kept


def print_nothing(_text: str) -> None:
    """Where nobody watches."""


def run_elsewhere() -> list[list[str]]:
    """The faults that other tests do, by running them."""
    passed = {}
    for test in dict.fromkeys(one.test for one in ELSEWHERE):
        print(test, file=sys.stderr)
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", test], capture_output=True, check=False)
        passed[test] = done.returncode == 0
    return [[str(o.number), o.promise, o.test, "yes" if passed[o.test] else "NO"] for o in ELSEWHERE]


def with_earlier(rows: Sequence[list[str]]) -> str:
    """The document's text with these rows in place of those of the same faults, in the catalogue's order."""
    faults, elsewhere = (
        block for block in between_marks(DOCUMENT, "faults").split("\n\n") if block.startswith("| #")
    )
    earlier = [[cell.strip() for cell in line.strip("|").split("|")] for line in faults.splitlines()[2:]]
    known = {row[1]: row for row in [*earlier, *rows]}
    shown = table(HEAD, [known[fault.name] for fault in FAULTS if fault.name in known], texts=3)
    return f"Run on machines like {machine()}, not all at one time; `make faults` repeats it.\n\n{shown}\n\n{elsewhere}"


def main(arguments: Sequence[str]) -> int:
    """0 if every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="few kills in place of 200")
    parser.add_argument(
        "--keep", action="store_true", help="write the tables into docs/reliability.md; with names these rows"
    )
    parser.add_argument("names", nargs="*", help="only faults whose name holds one of these words")
    options = parser.parse_args(arguments)
    chosen = [f for f in FAULTS if not options.names or any(name in f.name for name in options.names)]
    if not chosen:
        parser.error(f"no fault has one of these words in its name: {', '.join(options.names)}")
    rows, all_kept = [], True
    for place, fault in enumerate(chosen, 1):
        print(f"[{place}/{len(chosen)}] {fault.number}: {fault.name} (seed {fault.seed})", file=sys.stderr)
        row, kept = run(fault, short=options.short)
        rows.append(row)
        all_kept &= kept
    text = f"Run on {machine()}; `make faults` repeats it.\n\n{table(HEAD, rows, texts=3)}"
    if not options.names:
        others = run_elsewhere()
        all_kept &= all(row[-1] == "yes" for row in others)
        text += f"\n\n{table(['#', 'promise', 'test', 'kept'], others, texts=3)}"
    print(text)
    if options.keep:
        put_between_marks(DOCUMENT, "faults", with_earlier(rows) if options.names else text)
    return 0 if all_kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
