"""A page of an archive reads about as many rows as it has, wherever it begins."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest

from dispatcher.store.archive.archive import Archive
from dispatcher.store.archive.postgres import PostgresArchive
from dispatcher.store.archive.postgres_schema import Connection
from dispatcher.store.archive.sqlite import SqliteArchive
from dispatcher.store.archive.which import Which
from tests.archive.conftest import Run
from tests.archive.test_archives import DAY, DAY_MS, callback

T = TypeVar("T")
DAYS, OF_A_DAY, PAGE = 5, 4000, 50
READ = """
SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables
WHERE schemaname = 'dispatcher' AND relname LIKE 'callback\\_%'
"""
"""How many rows of callbacks this connection has read."""


def fill(archive: Archive, runner: asyncio.Runner) -> None:
    """Puts many rows of some days, of two workspaces and states."""
    for day in range(DAYS):
        rows = [
            callback(n + day * OF_A_DAY, DAY + day, workspace=("acme", "bluefin")[n % 2], failed=n % 3 == 0)
            for n in range(OF_A_DAY)
        ]
        runner.run(archive.put(rows))


@pytest.fixture(scope="module")
def full(postgres_url: str) -> Iterator[Run]:
    """An archive in PostgreSQL with these rows; PostgreSQL knows how many there are."""
    with psycopg.connect(postgres_url, autocommit=True) as connection, asyncio.Runner() as runner:
        connection.execute("DROP SCHEMA IF EXISTS dispatcher CASCADE")
        archive = PostgresArchive(postgres_url, "the test's PostgreSQL")
        runner.run(archive.migrate())
        fill(archive, runner)
        connection.execute("VACUUM ANALYZE")
        yield Run(archive, runner)
        runner.run(archive.aclose())


@pytest.mark.parametrize("day", [0, 2, DAYS - 1])
@pytest.mark.parametrize("state", ["", "failed"])
@pytest.mark.parametrize("workspace", ["acme", ""])
def test_what_a_page_reads(
    full: Run, workspace: str, state: str, day: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one workspace and of all, at the beginning and later: a few pages at most, and never a day."""
    archive, read = full.archive, 0
    assert isinstance(archive, PostgresArchive)
    call = archive._call

    async def count(db: Connection) -> int:
        [(rows,)] = await (await db.execute(READ)).fetchall()
        return int(rows or 0)

    async def counted(do: Callable[[Connection], Awaitable[T]]) -> T:
        """As PostgresArchive._call; adds what it read."""

        async def counted_too(db: Connection) -> T:
            nonlocal read
            before = await count(db)  # of transactions before it, as long as PostgreSQL has not added them up
            found = await do(db)
            read += await count(db) - before
            return found

        return await call(counted_too)

    monkeypatch.setattr(archive, "_call", counted)
    after = (DAY + day) * DAY_MS + (day + 1) * OF_A_DAY - 100, "acme", "e0"
    which = Which(workspace, (state,) if state else ())
    assert PAGE == len(full(archive.ended(which, after, PAGE)).found)
    assert PAGE <= read <= 10 * PAGE


def test_what_a_page_reads_in_sqlite(tmp_path: Path) -> None:
    """The same in SQLite, whose steps are counted."""
    with asyncio.Runner() as runner:
        archive = SqliteArchive(tmp_path / "archive.db")
        runner.run(archive.migrate())
        fill(archive, runner)
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        assert archive._connection
        archive._connection.set_progress_handler(step, 100)
        for workspace in ("acme", ""):
            for state in ("", "failed"):
                for day in range(DAYS):
                    after = (DAY + day) * DAY_MS + (day + 1) * OF_A_DAY - 100, "acme", "e0"
                    steps = 0
                    which = Which(workspace, (state,) if state else ())
                    page = runner.run(
                        archive.ended(which, after, PAGE)
                    )  # of all, it looks at other states too
                    assert len(page.found) == PAGE if workspace or not state else page.end
                    assert steps < 200  # hundreds of steps; to read a day takes some thousands
        runner.run(archive.aclose())
