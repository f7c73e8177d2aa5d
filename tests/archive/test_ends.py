"""A list of what has ended, page by page, on SQLite and on PostgreSQL."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from dispatcher.store.archive.archive import After
from dispatcher.store.archive.archived_callback import ArchivedCallback
from dispatcher.store.archive.which import FOREVER_MS, Which
from tests.archive.conftest import Run
from tests.archive.test_archives import DAY, DAY_MS, callback

NAMES = "acme", "Zulu", "bluefin"
STATES = "delivered", "failed", "expired"


def made(count: int) -> list[ArchivedCallback]:
    """Callbacks of several workspaces, subscriptions, endpoints, states and errors; some ended in the same ms."""
    return [
        msgspec.structs.replace(
            callback(n, workspace=NAMES[n % 3]),
            id=f"e{n}.crm" if n % 7 == 0 else f"e{n}",
            endpoint_name=f"{NAMES[n % 3]}{'.crm' if n % 7 == 0 else ''} https://{'ab'[n % 2]}.example:443",
            state=STATES[n // 3 % 3],
            error="timeout" if n % 11 == 0 else "http_500",
            ended_ms=(DAY + n % 5) * DAY_MS + n // 200,
        )
        for n in range(count)
    ]


def place(one: ArchivedCallback) -> After:
    """Its place in the list."""
    return one.ended_ms, one.workspace, one.id


def read(run: Run, which: Which, look: int) -> tuple[list[ArchivedCallback], list[After]]:
    """The whole list, and where its pages ended."""
    found: list[ArchivedCallback] = []
    ends: list[After] = []
    while True:
        page = run(run.archive.ended(which, ends[-1] if ends else None, look))
        found += page.found
        if page.end is None:
            return found, ends
        ends.append(page.end)


FILTERS: Sequence[tuple[dict[str, Any], Callable[[ArchivedCallback], bool]]] = (
    ({}, lambda one: True),
    ({"workspace": "acme"}, lambda one: one.workspace == "acme"),
    ({"workspace": "nobody"}, lambda one: False),
    ({"states": ("failed",)}, lambda one: one.state == "failed"),
    (
        {"workspace": "Zulu", "states": ("failed", "expired")},
        lambda one: one.workspace == "Zulu" and one.state != "delivered",
    ),
    ({"error": "timeout"}, lambda one: one.error == "timeout"),
    (
        {"workspace": "acme", "subscription": "crm"},
        lambda one: one.workspace == "acme" and one.id.endswith(".crm"),
    ),
    ({"subscription": ""}, lambda one: "." not in one.id),
    ({"origin": "https://b.example:443"}, lambda one: "//b" in one.endpoint_name),
    (
        {"since_ms": (DAY + 1) * DAY_MS, "until_ms": (DAY + 3) * DAY_MS - 1},
        lambda one: DAY + 1 <= one.ended_ms // DAY_MS < DAY + 3,
    ),
)


@pytest.mark.parametrize(
    ("fields", "has"), FILTERS, ids=lambda one: ",".join(one) if isinstance(one, dict) else ""
)
@pytest.mark.parametrize("look", [7, 1000])
def test_pages(run: Run, look: int, fields: dict[str, Any], has: Callable[[ArchivedCallback], bool]) -> None:
    """The pages together are what matches, once, latest end first and, of the same time, by names backwards."""
    some = made(400)
    for part in (1, 0):  # not in the order in which they are listed
        run(run.archive.put(some[part::2]))
    found, ends = read(run, Which(**fields), look)
    assert sorted(filter(has, some), key=place, reverse=True) == found
    assert all(later > earlier for later, earlier in pairwise(ends))
    assert look < 1000 or not ends


def test_a_page_looks_at_so_many(run: Run) -> None:
    """A page in which nothing matches ends where it has looked at as many as it was asked for."""
    some = made(400)
    run(run.archive.put(some))
    [*_, last] = sorted(some, key=place, reverse=True)[:50]
    assert ([], place(last)) == run(run.archive.ended(Which(error="tls"), None, 50))


@pytest.mark.parametrize("workspace", ["", "acme"])
def test_a_page_reads_a_page(run: Run, workspace: str, request: pytest.FixtureRequest) -> None:
    """What is read for a page does not grow with what is kept: it is found by an index, in the order of the list."""
    run(run.archive.put(made(5000)))
    which = Which(workspace, error="tls")
    after = (DAY + 3) * DAY_MS, "acme", "e1"
    if "sqlite" in request.node.callspec.id:
        plan = sqlite_plan(run, which, after)
        assert "SCAN callback" not in " ".join(plan)
        index = (
            "callback_state (workspace=? AND state=? AND ended_ms"
            if workspace
            else "callback_ended (ended_ms"
        )
        assert any(index in one for one in plan), plan
    else:
        assert rows_read(run, request.getfixturevalue("postgres_url"), which, after) <= 30 * 30


def sqlite_plan(run: Run, which: Which, after: After) -> list[str]:
    """The steps of SQLite's plan for a page."""
    from dispatcher.store.archive.sqlite import FIELDS, SqliteArchive
    from dispatcher.store.archive.sqlite_ends import ends

    assert isinstance(run.archive, SqliteArchive)
    query, values = ends(which, after, 20, FIELDS)
    return run(
        run.archive._run(lambda db: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}", values)])
    )


def rows_read(run: Run, url: str, which: Which, after: After) -> int:
    """How many rows PostgreSQL takes from tables and indexes for a page."""
    import psycopg

    from dispatcher.store.archive.postgres_days import time_of
    from dispatcher.store.archive.postgres_ends import ends
    from dispatcher.store.archive.postgres_rows import READ

    query, values = ends(which, after, 20, READ, time_of(0), time_of(min(after[0], FOREVER_MS)))
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("ANALYZE dispatcher.callback")
        row = db.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}".encode(), values).fetchone()
    assert row
    return _rows(row[0][0]["Plan"])


def _rows(plan: dict[str, Any]) -> int:
    own = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return ("Relation Name" in plan) * round(own) + sum(map(_rows, plan.get("Plans", ())))
