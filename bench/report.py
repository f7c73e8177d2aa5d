"""Formats result tables, describes the machine, shows progress."""

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tasks.redis_server import find_server

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def median(values: Sequence[float]) -> float:
    """The median; 0 if there are no values."""
    return statistics.median(values) if values else 0.0


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The median, with lowest to highest if there are several values."""
    text = f"{median(values):,.{digits}f}"
    return text if len(values) < 2 else f"{text} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def bars(values: Sequence[float], width: int = 30) -> list[str]:
    """A bar for each value, scaled to the largest."""
    return ["█" * max(1, round(value / max(values) * width)) for value in values]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """A Markdown table with aligned columns; the first `texts` hold text, the others numbers."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            c.ljust(w) if place < texts else c.rjust(w)
            for place, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(aligned) + " |"

    rule = (
        "|"
        + "|".join("-" * (w + 2) if i < texts else "-" * (w + 1) + ":" for i, w in enumerate(widths))
        + "|"
    )
    return "\n".join([line(head), rule, *map(line, rows)])


def machine() -> str:
    """The machine and software versions, in one line."""
    cores = 0
    model = platform.processor()
    for text in Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("model name"):
            model, cores = text.partition(": ")[2], cores + 1
    said = subprocess.run([find_server(), "--version"], capture_output=True, text=True, check=True).stdout
    version = next((word[2:] for word in said.split() if word.startswith("v=")), "?")
    return f"{cores} cores of {model}, Linux {platform.release()}, Python {platform.python_version()}, Redis {version}"


class Progress:
    """Prints on standard error which step runs, and of how many."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._began = time.monotonic()
        self._text = ""

    def start(self, text: str) -> None:
        """Begins the next step."""
        self._done += 1
        self._text = f"[{self._done}/{self._steps}] {time.monotonic() - self._began:5.0f} s  {text}"
        self._say()

    def part(self, share: float) -> None:
        """Shows which share of the step is done."""
        if sys.stderr.isatty():
            self._say(f" {share:.0%}")

    def end(self) -> None:
        """Prints the total time."""
        self._text = f"done in {time.monotonic() - self._began:.0f} s"
        self._say()
        print(file=sys.stderr)

    def _say(self, more: str = "") -> None:
        start, end = ("\r\x1b[K", "") if sys.stderr.isatty() else ("", "\n")
        print(f"{start}{self._text}{more}", end=end, file=sys.stderr, flush=True)


def keep(name: str, text: str) -> None:
    """Writes a text between its marks in docs/performance.md."""
    put_between_marks(DOCUMENT, name, text)


def between_marks(path: Path, name: str) -> str:
    """The text between a document's marks of that name."""
    return _divided(path, name)[1].strip()


def put_between_marks(path: Path, name: str, text: str) -> None:
    """Replaces the text between a document's marks of that name."""
    before, _, after = _divided(path, name)
    path.write_text(f"{before}\n{text}\n\n{after}")


def _divided(path: Path, name: str) -> tuple[str, str, str]:
    """What is before the text between the marks, with the first mark; the text; what is after it, with the last one."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = path.read_text().partition(start)
    text, _, after = rest.partition(end)
    if not after:
        raise SystemExit(f"error: {path} has no marks for {name!r}")
    return before + start, text, end + after
