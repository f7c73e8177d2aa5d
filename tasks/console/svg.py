"""Line plots as SVG, drawn here: they need no script, print, and have a table of the same values beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import msgspec
from markupsafe import Markup

from dispatcher.codec import iso_seconds

WIDTH, HEIGHT = 640, 180
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 24
"""Margins, in the same units."""
STEPS = 4
"""Grid lines above zero."""
LABELS = 5
"""Times below the plot."""


@dataclass(frozen=True)
class Line:
    """One line of a plot."""

    name: str
    values: Sequence[float | None]
    """None: not known, which leaves a gap."""


@dataclass(frozen=True)
class Plot:
    """Values over time; all lines have one value for each time."""

    title: str
    unit: str
    """What the values count: `a minute`, `ms`."""
    times_ms: Sequence[int]
    lines: Sequence[Line]

    @property
    def rows(self) -> list[tuple[int, list[float | None]]]:
        """The table beside it: times with their values, latest first."""
        of = list(zip(self.times_ms, zip(*(line.values for line in self.lines), strict=True), strict=True))
        return [(at, list(values)) for at, values in reversed(of)]


def draw(plot: Plot) -> Markup:
    """The plot as an `<svg>`. Lines differ by class (`line-0`, …) and by dashes; `data-plot` has the values for the script."""
    top = _round_up(max((v for line in plot.lines for v in line.values if v is not None), default=0))
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_label(plot)}"'
        f' data-plot="{escape(_data(plot))}">'
    ]
    parts += [_grid(step * top / STEPS, top) for step in range(STEPS + 1)]
    parts += _times(plot.times_ms)
    parts += [
        f'<path class="line line-{number}" d="{_path(line.values, top)}"/>'
        for number, line in enumerate(plot.lines)
    ]
    parts += [dot for number, line in enumerate(plot.lines) for dot in _dots(number, line.values, top)]
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704  all that comes from elsewhere was escaped


def _label(plot: Plot) -> str:
    of = ", ".join(f"{line.name}: last {_last(line.values)}" for line in plot.lines)
    return escape(f"{plot.title}, {plot.unit}. {of}. The table below has all values.")


def _last(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return short(known[-1]) if known else "not known"


def _data(plot: Plot) -> str:
    of = {
        "t": list(plot.times_ms),
        "lines": [{"name": one.name, "v": list(one.values)} for one in plot.lines],
    }
    box = {"x0": LEFT, "x1": WIDTH - RIGHT, "w": WIDTH, "unit": plot.unit}
    return msgspec.json.encode(of | box).decode()


def _round_up(value: float) -> float:
    """The end of the axis: 1, 2 or 5 times a power of ten, at least as large as the value."""
    size = 1.0
    while size < value:
        size *= 10
    return next((size * share for share in (0.1, 0.2, 0.5) if size * share >= max(value, 1)), size)


def _x(number: int, count: int) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * (number / max(1, count - 1)), 1)


def _y(value: float, top: float) -> float:
    return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top, 1)


def _grid(value: float, top: float) -> str:
    y = _y(value, top)
    text = f'<text class="axis" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{short(value)}</text>'
    return f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>{text}'


def _times(times_ms: Sequence[int]) -> list[str]:
    count = len(times_ms)
    at = sorted({round(number * (count - 1) / (LABELS - 1)) for number in range(LABELS)}) if count else []
    anchors = {0: "start", count - 1: "end"}
    return [
        f'<text class="axis" data-ms="{times_ms[n]}" x="{_x(n, count)}" y="{HEIGHT - 6}"'
        f' text-anchor="{anchors.get(n, "middle")}">{_clock(times_ms[n], times_ms)}</text>'
        for n in at
    ]


def _clock(ms: int, times_ms: Sequence[int]) -> str:
    day, _, time = iso_seconds(ms).partition("T")
    return f"{day[5:]} {time[:5]}" if times_ms[-1] - times_ms[0] > 86_400_000 else time[:5]


def _path(values: Sequence[float | None], top: float) -> str:
    """Moves and lines through the values; a gap begins anew."""
    parts, drawing = list[str](), False
    for number, value in enumerate(values):
        if value is not None:
            parts.append(f"{'L' if drawing else 'M'}{_x(number, len(values))} {_y(value, top)}")
        drawing = value is not None
    return "".join(parts)


def _dots(line: int, values: Sequence[float | None], top: float) -> list[str]:
    """A dot for each value between two gaps: no line leads to it, so that it would not be seen."""
    known = [None, *values, None]
    return [
        f'<circle class="dot line-{line}" cx="{_x(number, len(values))}" cy="{_y(value, top)}" r="2.5"/>'
        for number, value in enumerate(values)
        if value is not None and known[number] is None and known[number + 2] is None
    ]


def short(value: float) -> str:
    """A value as an axis has it: 0.5, 12, 1.5k, 2M."""
    for least, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= least:
            return f"{value / least:.3g}{unit}"
    return f"{value:.3g}"
