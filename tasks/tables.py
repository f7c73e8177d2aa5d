"""How tables, texts, times and durations look to people. Pure, and light: it loads nothing of ours.

A line is never longer than the terminal, unless by one word that is: ids and URLs stay whole, so that they can be copied.
"""

import re
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

GAP = "  "
"""Between columns."""
INDENT = "  "
LONGEST_NAME = 28
"""Of a field that has its value beside it."""

WIDE_HELP = "Whole rows, a line each, however narrow the terminal is."

_TIME = re.compile(r"(?<![\w\"-])\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
_UNITS = (("day", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


_is_wide = False


def set_wide(value: bool) -> None:
    """Of `--wide`, for the tables of this process."""
    global _is_wide
    _is_wide = value


def is_wide() -> bool:
    """Whether each row of a table is to be one line."""
    return _is_wide


def duration(seconds: float) -> str:
    """A duration as people say it: 250 ms, 1.5 s, 40 s, 1 min 30 s, 17 h, 1 day, 2 days 3 h."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    left, parts = round(seconds), []
    for unit, length in _UNITS:
        count, left = divmod(left, length)
        if count:
            parts.append(_counted(count, unit))
        if parts and (not count or len(parts) == 2):
            break
    return " ".join(parts)


def distance(seconds: float) -> str:
    """How far a moment is from now, in one unit: `4 min ago`, `in 3 days`, `now`."""
    far = abs(seconds)
    if far < 0.5:
        return "now"
    unit, length = next(((u, s) for u, s in _UNITS if far >= 1.5 * s), _UNITS[-1])
    text = _counted(max(1, round(far / length)), unit)
    return f"{text} ago" if seconds < 0 else f"in {text}"


def moment(text: str, now: datetime | None = None) -> str:
    """A time in ISO 8601 (UTC) with its distance; within 12 hours without its date: `12:03:10Z, 4 min ago`."""
    seconds = (datetime.fromisoformat(text) - (now or datetime.now(UTC))).total_seconds()
    shown = text.partition("T")[2] if abs(seconds) < 43_200 else text
    return f"{re.sub(r'[.][0-9]+Z', 'Z', shown)}, {distance(seconds)}"


def with_distances(text: str, now: datetime | None = None) -> str:
    """A text whose times have their distance from now beside them."""
    return _TIME.sub(lambda found: moment(found[0], now), text)


def width_of(text: str) -> int:
    """Columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def wrapped(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """A text in lines that end between words; `first` and `rest` are what lines begin with. A word is never broken."""
    lines, line, empty = [], first, True
    for word in text.split(" "):
        if not empty and width_of(line) + 1 + width_of(word) > width:
            lines.append(line.rstrip())
            line, empty = rest, True
        line += word if empty else f" {word}"
        empty = False
    return [*lines, line.rstrip()]


def lines(columns: Sequence[str], rows: Sequence[Sequence[str | None]], width: int | None) -> list[str]:
    """A table within a width: a line for each row if that fits, else a group of lines. None is an empty cell.

    Without a width there is a line for each row, however long.
    """
    flat = _flat(columns, rows)
    if width is None or all(width_of(line) <= width for line in flat):
        return flat
    if len(columns) == 2:
        return [line for name, value in rows for line in _field(name or "", value or "-", rows, width)]
    found: list[str] = []
    before = 1
    for row in rows:
        record = list(_record(columns, row, width))
        if found and max(before, len(record)) > 1:
            found.append("")
        found += record
        before = len(record)
    return found


def has_head(columns: Sequence[str], table: Sequence[str]) -> bool:
    """Whether the first of a table's lines names its columns."""
    return bool(table) and table[0].split() == " ".join(columns).split()


def _flat(columns: Sequence[str], rows: Sequence[Sequence[str | None]]) -> list[str]:
    cells = [list(columns), *(["-" if cell is None else cell for cell in row] for row in rows)]
    widths = [max(map(width_of, column)) for column in zip(*cells, strict=True)]
    return [
        GAP.join(cell + " " * (w - width_of(cell)) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _field(name: str, value: str, rows: Sequence[Sequence[str | None]], width: int) -> Iterator[str]:
    """A field of one thing, its value beside its name, or below where it has no room there."""
    beside = min(max(width_of(row[0] or "") for row in rows), LONGEST_NAME) + len(GAP)
    longest = max(map(width_of, value.split(" ")))
    if width_of(name) + len(GAP) <= beside and beside + longest <= width:
        yield from wrapped(value, width, name + " " * (beside - width_of(name)), " " * beside)
        return
    yield from wrapped(name, width)
    indent = INDENT if len(INDENT) + longest <= width else ""
    yield from wrapped(value, width, indent, indent)


def _record(columns: Sequence[str], row: Sequence[str | None], width: int) -> Iterator[str]:
    """A row as a group of lines: its first cell, then `name: value` of the others, as many in a line as fit."""
    line = row[0] or ""
    if width_of(line) > width:
        yield from wrapped(line, width)
        line = ""
    for name, cell in zip(columns[1:], row[1:], strict=True):
        if not cell:
            continue
        pair = f"{name}: {cell}" if name else cell
        if line and width_of(line) + 3 + width_of(pair) <= width:
            line += f"   {pair}"
            continue
        if line:
            yield line
        line = INDENT + pair
        if width_of(line) > width:
            yield from _pair(name, cell, width)
            line = ""
    if line:
        yield line


def _pair(name: str, cell: str, width: int) -> Iterator[str]:
    """A pair that is longer than a line."""
    longest = max(map(width_of, cell.split(" ")))
    deeper, first = INDENT * 2, f"{INDENT}{name}: " if name else INDENT
    if max(len(deeper), width_of(first)) + longest <= width:
        yield from wrapped(cell, width, first, deeper)
        return
    if name:
        yield first.rstrip()
    indent = deeper if len(deeper) + longest <= width else ""
    yield from wrapped(cell, width, indent, indent)


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}{'s' if unit == 'day' and count != 1 else ''}"


def terminal_width() -> int:
    """Columns of this terminal."""
    return shutil.get_terminal_size().columns
