"""The queries of docs/archive.md run on each kind of archive, and say the same."""

import re
import sqlite3
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dispatcher.store.archive.archived_message import ArchivedMessage
from dispatcher.store.archive.sqlite import SqliteArchive
from tests.archive.conftest import Run
from tests.archive.test_archives import DAY, callback
from tests.archive.test_messages import made

DOCUMENT = Path(__file__).parents[2] / "docs" / "archive.md"
OF_CALLBACKS, _, OF_MESSAGES = DOCUMENT.read_text().partition("### Messages by SQL")


def queries(text: str) -> list[str]:
    """Those of a part of the document."""
    return re.findall(r"```sql\n(.*?);\n```", text, re.DOTALL)


def columns(text: str) -> list[str]:
    """Those of a table of it."""
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, re.MULTILINE)
    return [name for names in rows for name in re.findall(r"`(\w+)`", names)]


QUERIES = queries(OF_CALLBACKS)
COLUMNS = columns(OF_CALLBACKS)


def rows(run: Run, request: pytest.FixtureRequest, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """What a query finds: names of columns, and rows with times as text."""
    if isinstance(run.archive, SqliteArchive):
        with sqlite3.connect(run.archive._path) as file:
            found = file.execute(query)
            return [one[0] for one in found.description], found.fetchall()
    with psycopg.connect(request.getfixturevalue("postgres_url"), options="-c TimeZone=UTC") as server:
        server.execute("SET search_path TO dispatcher")
        answer = server.execute(query)
        return [one.name for one in answer.description or ()], [
            tuple(map(shown, row)) for row in answer.fetchall()
        ]


def shown(value: object) -> object:
    """A value as SQLite has it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return value


@pytest.fixture
def filled(run: Run) -> Run:
    """An archive with callbacks of three days."""
    some = [callback(n, DAY + n % 3, failed=n % 4 == 0) for n in range(60)]
    run(run.archive.put([*some, callback(7, workspace="bluefin")]))
    return run


def test_the_view(filled: Run, request: pytest.FixtureRequest) -> None:
    """It has the columns that the document names, in this order, and what is in them is the same in both."""
    names, found = rows(
        filled, request, "SELECT * FROM history WHERE workspace = 'acme' ORDER BY accepted_at"
    )
    assert COLUMNS == names
    assert 60 == len(found)
    assert (
        "acme", "e0", "", "m0", "DELIVERED", "message.delivered", "https://a.example:443", "failed", "2026-02-16 00:00:00.000",
        "2026-02-16 00:00:00.035", 0.035, 1, 500, "http_500",
    ) == found[0]  # fmt: skip


def test_there_are_ten() -> None:
    """The document promises so many."""
    assert 10 == len(QUERIES)


@pytest.mark.parametrize("number", range(10))
def test_queries(filled: Run, request: pytest.FixtureRequest, number: int) -> None:
    """Each runs, and finds what a look at all rows finds."""
    query = QUERIES[number].replace("'evt_1'", "'e1'")
    _, found = rows(filled, request, query)
    _, every = rows(
        filled,
        request,
        "SELECT workspace, event_id, message_id, state, ended_at, error, attempts FROM history",
    )
    mine = [one for one in every if one[0] == "acme"]
    expected = [
        1,
        sum(one[2] == "m1" for one in mine),
        len({(str(one[4])[:10], one[3]) for one in mine}),
        2,
        1,
        1,
        1,
        0,
        sum(one[3] == "failed" for one in every),
        3,
    ]
    assert expected[number] == len(found), found


def told(number: int, status: str, **of: str) -> ArchivedMessage:
    """A message of that number."""
    at = DAY * 86_400_000 + number
    history = f"s{at} {status}{at + 1500}"
    return made(f"m{number}", sent_ms=at, kept_ms=at, history=history, **of)


@pytest.fixture
def with_messages(filled: Run) -> Run:
    """An archive with messages too."""
    some = [
        told(0, "d", campaign="spring", network="MTN", cost="0.05", currency="GHS", segments="2"),
        told(1, "f", campaign="spring", network="MTN", cost="0.10", currency="GHS", error_code="E1"),
        told(2, "d", network="Vodafone"),
    ]
    filled(filled.archive.messages.put(some))
    return filled


def test_the_view_of_messages(with_messages: Run, request: pytest.FixtureRequest) -> None:
    """The same of messages."""
    names, found = rows(with_messages, request, "SELECT * FROM messages ORDER BY message_id")
    assert columns(OF_MESSAGES) == names
    assert (
        "acme", "m0", None, "SMS", "", "+1", "DELIVERED", "2026-02-16 00:00:00.000", "2026-02-16 00:00:01.500", 1.5,
        2, None, 0.05, "GHS", "MTN", "spring", None, None,
    ) == found[0]  # fmt: skip


@pytest.mark.parametrize("number", range(4))
def test_queries_about_messages(with_messages: Run, request: pytest.FixtureRequest, number: int) -> None:
    """Each runs, and finds what is there."""
    _, found = rows(with_messages, request, queries(OF_MESSAGES)[number])
    as_text = [tuple(str(one)[:10] if isinstance(one, str | date) else one for one in row) for row in found]
    expected: list[Any] = [
        [("DELIVERED", 1), ("FAILED", 1)],
        [("MTN", 2, 0.5, 1.5), ("Vodafone", 1, 1.0, 1.5)],
        [("acme", "2026-02-16", "GHS", pytest.approx(0.15)), ("acme", "2026-02-16", None, None)],
        [("m0", "DELIVERED", "http_500")] * 3 + [("m2", "DELIVERED", "http_500")] * 3,
    ][number]
    assert sorted(expected, key=str) == sorted(as_text, key=str)
