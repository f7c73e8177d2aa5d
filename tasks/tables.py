"""Formats tables, texts, times and durations for people. No I/O, and imports none of our modules, so it loads fast.

No line is wider than the terminal, except for a single word that is: ids and URLs stay whole, so that they can be copied.
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
"""Longest field name that shares a line with its value."""

WIDE_HELP = "Print each row on one line, however narrow the terminal is."

_TIME = re.compile(r"(?<![\w\"-])\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
_UNITS = (("day", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


_is_wide = False


def set_wide(value: bool) -> None:
    """Sets `--wide` for all tables of this process."""
    global _is_wide
    _is_wide = value


def is_wide() -> bool:
    """Whether `--wide` was given: each row of a table is one line."""
    return _is_wide


def duration(seconds: float) -> str:
    """A duration for people: 250 ms, 1.5 s, 40 s, 1 min 30 s, 17 h, 1 day, 2 days 3 h."""
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


def counted(count: int, one: str, many: str) -> str:
    """A number and what it counts: `1 event`, `1,200 events`."""
    return f"{count:,} {one if count == 1 else many}"


def distance(seconds: float) -> str:
    """How far a moment is from now, in one unit: `4 min ago`, `in 3 days`, `now`."""
    far = abs(seconds)
    if far < 0.5:
        return "now"
    unit, length = next(((u, s) for u, s in _UNITS if far >= 1.5 * s), _UNITS[-1])
    text = _counted(max(1, round(far / length)), unit)
    return f"{text} ago" if seconds < 0 else f"in {text}"


def moment(text: str, now: datetime | None = None) -> str:
    """An ISO 8601 time (UTC) with its distance from now; without its date if within 12 hours: `12:03:10Z, 4 min ago`."""
    seconds = (datetime.fromisoformat(text) - (now or datetime.now(UTC))).total_seconds()
    shown = text.partition("T")[2] if abs(seconds) < 43_200 else text
    return f"{re.sub(r'[.][0-9]+Z', 'Z', shown)}, {distance(seconds)}"


def with_distances(text: str, now: datetime | None = None) -> str:
    """The text with the distance from now added to each ISO 8601 time in it."""
    return _TIME.sub(lambda found: moment(found[0], now), text)


def width_of(text: str) -> int:
    """Terminal columns that a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def wrapped(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Wraps a text between words; `first` and `rest` prefix the first and the further lines. Never breaks a word."""
    lines, line, empty = [], first, True
    for word in text.split(" "):
        if not empty and width_of(line) + 1 + width_of(word) > width:
            lines.append(line.rstrip())
            line, empty = rest, True
        line += word if empty else f" {word}"
        empty = False
    return [*lines, line.rstrip()]


def lines(columns: Sequence[str], rows: Sequence[Sequence[str | None]], width: int | None) -> list[str]:
    """A table within a width: one line for each row if that fits, else a group of lines. None is an empty cell.

    Without a width each row is one line, however long.
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
    """Whether a table's first line is its column heads."""
    return bool(table) and table[0].split() == " ".join(columns).split()


def _flat(columns: Sequence[str], rows: Sequence[Sequence[str | None]]) -> list[str]:
    cells = [list(columns), *(["-" if cell is None else cell for cell in row] for row in rows)]
    widths = [max(map(width_of, column)) for column in zip(*cells, strict=True)]
    return [
        GAP.join(cell + " " * (w - width_of(cell)) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _field(name: str, value: str, rows: Sequence[Sequence[str | None]], width: int) -> Iterator[str]:
    """One field: its value on the line of its name, or below if it does not fit there."""
    beside = min(max(width_of(row[0] or "") for row in rows), LONGEST_NAME) + len(GAP)
    longest = max(map(width_of, value.split(" ")))
    if width_of(name) + len(GAP) <= beside and beside + longest <= width:
        yield from wrapped(value, width, name + " " * (beside - width_of(name)), " " * beside)
        return
    yield from wrapped(name, width)
    indent = INDENT if len(INDENT) + longest <= width else ""
    yield from wrapped(value, width, indent, indent)


def _record(columns: Sequence[str], row: Sequence[str | None], width: int) -> Iterator[str]:
    """A row as a group of lines: its first cell, then `name: value` of the others, as many per line as fit."""
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
    """A `name: value` pair that does not fit on one line."""
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
    """Columns of the terminal; 80 if there is none."""
    return shutil.get_terminal_size().columns
