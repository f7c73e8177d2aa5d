"""What operators may ask for, as values: which of it is refused, and what a filter takes in."""

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.store.rejected import RejectedEntry
from tasks.actions.event_pages import cursor_of, place_of
from tasks.actions.events import Filter, time_ms
from tasks.actions.rejected import Choice
from tasks.actions.workspaces import Wanted

NOW_MS = 1_781_010_297_123


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"state": "open"},
            "a state is one of waiting, pending, sending, retrying, ended, failed, expired, superseded, delivered, not 'open'",
        ),
        ({"state": "failed", "endpoint": "https://a.example"}, "--endpoint needs --workspace"),
        ({"state": "waiting", "since": "6h"}, "--since and --until go with ends"),
        ({"state": ""}, "give --message or --state, or both"),
        ({"state": "failed", "subscription": "crm"}, "--subscription needs --workspace"),
        ({"state": "retrying", "since": "6h"}, "--since and --until go with ends"),
        ({"state": "waiting", "until": "6h"}, "--since and --until go with ends"),
    ],
)
def test_a_filter_that_cannot_be(options: dict[str, str], problem: str) -> None:
    """What does not go together is refused before Redis is asked."""
    with pytest.raises(InvalidInput, match=problem):
        Filter(**options)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        (None, None),
        ("90m", NOW_MS - 5_400_000),
        ("2d", NOW_MS - 172_800_000),
        ("2026-06-09T13:00", 1_781_010_000_000),
        ("2026-06-09T15:00+02:00", 1_781_010_000_000),
    ],
)
def test_times(text: str | None, ms: int | None) -> None:
    """A time is a distance into the past, or ISO 8601, in UTC where it names no zone."""
    assert ms == time_ms(text, NOW_MS)


@pytest.mark.parametrize("text", ["yesterday", "90", "-6h", "6w"])
def test_no_times(text: str) -> None:
    """What is no time is refused with examples of what is one."""
    with pytest.raises(InvalidInput, match="is no time: say 2026-06-09T13:00, or 90m"):
        time_ms(text, NOW_MS)


@pytest.mark.parametrize(
    "text",
    ["9999999d", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.9999999"],
)
def test_times_that_no_archive_has(text: str) -> None:
    """What lies outside of the years 1 to 9999 in UTC is refused: PostgreSQL's driver can neither take nor give it."""
    with pytest.raises(InvalidInput, match="lies outside of the years 1 to 9999"):
        time_ms(text, NOW_MS)


def entry(reason: str, workspace: str | None = None) -> RejectedEntry:
    """A rejected entry."""
    return RejectedEntry("1-1", "5-1", NOW_MS, reason, "why", workspace, None, "{}")


@pytest.mark.parametrize(
    ("choice", "one", "has", "requeues"),
    [
        (Choice(), entry("invalid"), True, True),
        (Choice(), entry("poisoned"), True, False),
        (Choice(reason="poisoned"), entry("poisoned"), True, True),
        (Choice(entry="5-1"), entry("no_event_field"), True, True),
        (Choice(entry="5-2"), entry("invalid"), False, False),
        (Choice(reason="conflict"), entry("invalid"), False, False),
        (Choice(workspace="acme"), entry("invalid", "beta"), False, False),
        (Choice(workspace="acme"), entry("poisoned", "acme"), True, False),
    ],
)
def test_which_rejected_entries(choice: Choice, one: RejectedEntry, has: bool, requeues: bool) -> None:
    """One by its entry, or many; what killed its readers is requeued only where it was named."""
    assert (has, requeues) == (choice.has(one), choice.requeues(one))


def test_nothing_to_change() -> None:
    """A change without any option is none; one to an empty URL, or to a rate of 0, is one."""
    assert not Wanted(headers={})
    assert Wanted(callback_url="")
    assert Wanted(rate_per_second=0)
    assert Wanted(headers={"X-A": ""})


def test_cursors() -> None:
    """A cursor is read where the same list is asked for; one that was changed, or is of another list, is refused."""
    asked, other = Filter("failed", "acme"), Filter("failed", "acme", error="timeout")
    place = NOW_MS, "acme", "é1.crm"
    cursor = cursor_of(place, asked)
    assert place == place_of(cursor, asked)
    broken = (cursor[:-1], cursor[1:], cursor.swapcase(), f"{cursor}AAAA", "", "x", "é", cursor + "=")
    for wrong, of in [(cursor, other), *((one, asked) for one in broken)]:
        with pytest.raises(InvalidInput, match="--after is not a cursor of this list"):
            place_of(wrong, of)
