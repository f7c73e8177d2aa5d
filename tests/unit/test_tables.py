"""How tables, times and durations look to people."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import tables

NOW = datetime(2026, 6, 9, 13, 5, tzinfo=UTC)
WORDS = st.lists(
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=120),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0421, "42 ms"),
        (0.9999, "1 s"),
        (1.52, "1.5 s"),
        (9.97, "10 s"),
        (40, "40 s"),
        (59.7, "1 min"),
        (90, "1 min 30 s"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (86_400, "1 day"),
        (86_460, "1 day"),
        (90_000, "1 day 1 h"),
        (172_800, "2 days"),
        (604_800, "7 days"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    """A duration is said in the units that people use, at most two of them."""
    assert text == tables.duration(seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "now"),
        (-1, "1 s ago"),
        (30, "in 30 s"),
        (-240, "4 min ago"),
        (240, "in 4 min"),
        (-7200, "2 h ago"),
        (86_400 * 1.2, "in 29 h"),
        (-86_400 * 3, "3 days ago"),
    ],
)
def test_distance(seconds: float, text: str) -> None:
    """How far a moment is from now, in one unit."""
    assert text == tables.distance(seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-240, "13:01:00Z, 4 min ago"),
        (240, "13:09:00Z, in 4 min"),
        (-90_000, "2026-06-08T12:05:00Z, 25 h ago"),
    ],
)
def test_moment(seconds: float, text: str) -> None:
    """A time of today has no date: its distance says which day is meant."""
    at = (NOW + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert f"at {text}!" == tables.with_distances(f"at {at}!", NOW)
    assert f'"{at}"' == tables.with_distances(f'"{at}"', NOW), "JSON is left alone"


@given(
    st.integers(2, 6).flatmap(
        lambda count: st.tuples(
            st.lists(
                st.sampled_from(["endpoint", "what to do", "state", ""]), min_size=count, max_size=count
            ),
            st.lists(
                st.lists(st.none() | WORDS.map(" ".join), min_size=count, max_size=count),
                min_size=1,
                max_size=4,
            ),
        )
    ),
    st.integers(40, 120),
)
def test_no_word_is_broken_and_no_line_too_long(
    table: tuple[list[str], list[list[str | None]]], width: int
) -> None:
    """Every word of every cell is in one line, whole; a line is longer than the terminal by one long word only."""
    columns, rows = table
    found = tables.lines(columns, rows, width)
    shown = [word for line in found for word in line.split()]
    for row in rows:
        for word in [word for cell in row if cell for word in cell.split()]:
            assert word in shown
    for line in found:
        words = line.split()
        assert tables.width_of(line) <= width or len(words) == 1


def test_what_fits_is_a_table() -> None:
    """Rows that fit are a line each, below the names of their columns; those that do not are groups of lines."""
    columns, rows = (
        ("event", "state", "endpoint"),
        [["evt_1", "failed", "https://a.example"], ["evt_2", None, ""]],
    )
    assert [
        "event  state   endpoint",
        "evt_1  failed  https://a.example",
        "evt_2  -",
    ] == tables.lines(columns, rows, 40)
    assert tables.lines(columns, rows, 40) == tables.lines(columns, rows, None)
    assert [
        "evt_1   state: failed",
        "  endpoint: https://a.example",
        "",
        "evt_2",
    ] == tables.lines(columns, rows, 30)


def test_fields() -> None:
    """Of one thing, each value is beside its name; one that has no room there is below, whole."""
    url = "https://hooks.acme.example/" + "x" * 20
    assert [
        "state     failed",
        "detail    it did not answer in",
        "          time",
        "endpoint",
        url,
    ] == tables.lines(
        ("field", "value"),
        [["state", "failed"], ["detail", "it did not answer in time"], ["endpoint", url]],
        30,
    )


@pytest.mark.parametrize(("count", "text"), [(0, "0 events"), (1, "1 event"), (1200, "1,200 events")])
def test_counted(count: int, text: str) -> None:
    """One of a thing is not several."""
    assert text == tables.counted(count, "event", "events")
