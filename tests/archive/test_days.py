"""PostgreSQL's partitions of days: made ahead and dropped, while reports read the table and upkeep holds its locks."""

import asyncio
from collections.abc import Iterator

import psycopg
import pytest
from structlog.testing import capture_logs

from dispatcher.errors import ArchiveUnavailable
from dispatcher.store.archive import postgres, postgres_days
from dispatcher.store.archive.postgres import PostgresArchive
from dispatcher.store.archive.postgres_days import TABLES, start_of
from dispatcher.store.archive.postgres_schema import Connection
from tests.archive.conftest import Run
from tests.archive.test_archives import DAY, callback

READS = "SELECT count(*) FROM dispatcher.history"
UPKEEP = "LOCK TABLE dispatcher.callback IN SHARE UPDATE EXCLUSIVE MODE"
"""What ANALYZE of the table takes, and holds for as long as it runs."""


@pytest.fixture
def other(postgres_url: str) -> Iterator[psycopg.Connection]:
    """Another program's connection; its first statement opens a transaction."""
    with psycopg.connect(postgres_url) as connection:
        yield connection


@pytest.fixture
def days(postgres_url: str, other: psycopg.Connection) -> Iterator[Run]:
    """An archive in PostgreSQL that has had a callback of the day DAY."""
    other.execute("DROP SCHEMA IF EXISTS dispatcher CASCADE")
    other.commit()
    with asyncio.Runner() as runner:
        archive = PostgresArchive(postgres_url, "the test's PostgreSQL")
        runner.run(archive.migrate())
        runner.run(archive.put([callback(0)]))
        yield Run(archive, runner)
        other.rollback()
        runner.run(archive.aclose())


def partitions(postgres_url: str) -> list[str]:
    """The days that have a partition."""
    query = (
        "SELECT substr(relname, 10) FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent = 'dispatcher.callback'::regclass ORDER BY 1"
    )
    with psycopg.connect(postgres_url) as connection:
        return [name for (name,) in connection.execute(query)]


def test_made_ahead(days: Run, postgres_url: str) -> None:
    """The first callback of a day makes partitions for two days more, each with the indexes of the table."""
    assert ["2026_02_16", "2026_02_17", "2026_02_18"] == partitions(postgres_url)
    query = "SELECT tablename, count(*) FROM pg_indexes WHERE schemaname = 'dispatcher' GROUP BY 1 ORDER BY 1"
    with psycopg.connect(postgres_url) as connection:
        indexes = dict(connection.execute(query).fetchall())
        attached = connection.execute("SELECT count(*) FROM pg_inherits").fetchone()
    assert {4} == {number for table, number in indexes.items() if table.startswith("callback")}
    assert (3 * (3 + 4 + 1 + 1),) == attached  # tables, and their indexes with the indexes of the whole


def test_days_side_by_side(days: Run, postgres_url: str) -> None:
    """Workers that need the same day at once make it once."""

    async def all_at_once() -> None:
        archives = [PostgresArchive(postgres_url, "the test's PostgreSQL") for _ in range(5)]
        await asyncio.gather(
            *(one.put([callback(number, DAY + 7)]) for number, one in enumerate(archives, 10))
        )
        for one in archives:
            await one.aclose()

    days(all_at_once())
    assert ["2026_02_23", "2026_02_24", "2026_02_25"] == partitions(postgres_url)[3:]


def test_a_report_holds_up_nothing(days: Run, other: psycopg.Connection) -> None:
    """While a transaction that has read the table stays open, today's callbacks are put, tomorrow's, and those of a day not made yet."""
    other.execute(READS)
    for number, day in enumerate([DAY, DAY + 1, DAY + 30], 1):
        days(days.archive.put([callback(number, day)]))
    assert 4 == len(days(days.archive.get([("acme", f"e{n}") for n in range(9)])))


def test_upkeep_holds_up_only_new_days(
    days: Run, other: psycopg.Connection, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While ANALYZE runs, callbacks of days with a partition are put; a day without one is refused until it can be made."""
    monkeypatch.setattr(postgres, "AHEAD_SECONDS", 0.0)
    other.execute(UPKEEP)
    for number, day in enumerate([DAY, DAY + 1, DAY + 2], 1):
        days(days.archive.put([callback(number, day)]))
    with pytest.raises(ArchiveUnavailable, match="lock timeout"):
        days(days.archive.put([callback(4, DAY + 3)]))
    assert 3 == len(partitions(postgres_url))
    other.rollback()
    days(days.archive.put([callback(5, DAY + 2)]))
    assert 5 == len(partitions(postgres_url))
    days(days.archive.put([callback(4, DAY + 3)]))
    assert 6 == len(days(days.archive.get([("acme", f"e{n}") for n in range(9)])))


def test_days_ahead_are_not_asked_for_at_each_put(days: Run, other: psycopg.Connection) -> None:
    """When days ahead cannot be made, that is logged once, and the next puts do not wait for it again."""
    other.execute(UPKEEP)
    with capture_logs() as logs:
        for number in range(1, 4):
            days(days.archive.put([callback(number, DAY + 1)]))
    assert ["archive.no_day_ahead"] == [one["event"] for one in logs]


def test_days_in_use_are_dropped_later(days: Run, other: psycopg.Connection, postgres_url: str) -> None:
    """While a transaction that has read the table stays open no day is dropped, which holds up no put; then all old ones are."""
    days(days.archive.put([callback(1, DAY + 1), callback(2, DAY + 2)]))
    other.execute(READS)
    assert 0 == days(days.archive.drop_days(DAY + 2))
    days(days.archive.put([callback(3, DAY), callback(4, DAY + 2)]))
    assert 5 == len(partitions(postgres_url))
    other.rollback()
    assert 2 == days(days.archive.drop_days(DAY + 2))
    assert ["2026_02_18", "2026_02_19", "2026_02_20"] == partitions(postgres_url)


def test_very_many_days_at_once(days: Run, postgres_url: str) -> None:
    """More days than the server has locks for in one transaction are dropped, the oldest first."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for day in range(DAY - 400, DAY - 100):
            for table in TABLES:
                connection.execute(
                    f"CREATE TABLE dispatcher.{table}{start_of(day):{postgres_days.DAY}} PARTITION OF dispatcher.{table}"
                    f" FOR VALUES FROM ('{start_of(day)}') TO ('{start_of(day + 1)}')"
                )
    assert 300 == days(days.archive.drop_days(DAY))
    assert 3 == len(partitions(postgres_url))


def test_partitions_made_by_hand_stay(days: Run, other: psycopg.Connection, postgres_url: str) -> None:
    """Only what has the name of a day is dropped, however another name ends or compares."""
    other.autocommit = True
    for month, name in enumerate(["2025_12_whole", "archive", "old_2025_10_01"], 10):
        other.execute(
            f"CREATE TABLE dispatcher.callback_{name} PARTITION OF dispatcher.callback"
            f" FOR VALUES FROM ('2025-{month}-01') TO ('2025-{month}-28')"
        )
    assert 1 == days(days.archive.drop_days(DAY + 1))
    left = partitions(postgres_url)
    assert {"2025_12_whole", "archive", "old_2025_10_01", "2026_02_17", "2026_02_18"} == {*left}


def test_a_day_that_was_detached(days: Run, other: psycopg.Connection, postgres_url: str) -> None:
    """What comes for a day whose partitions somebody detached is put: they are attached again, with what they have."""
    other.autocommit = True
    for table in TABLES:
        other.execute(f"ALTER TABLE dispatcher.{table} DETACH PARTITION dispatcher.{table}_2026_02_16")
    assert [] == days(days.archive.get([callback(0).key]))
    days(days.archive.drop_days(0))  # as an hour later: which days there are is asked again
    days(days.archive.put([callback(1)]))
    assert 2 == len(days(days.archive.get([callback(0).key, callback(1).key])))
    assert 3 == len(partitions(postgres_url))


def test_a_database_without_an_encoding(days: Run, other: psycopg.Connection, postgres_url: str) -> None:
    """In SQL_ASCII names are found as they were written, and isolation is as the archive needs it, whatever the defaults are."""
    other.rollback()
    other.autocommit = True
    other.execute("DROP DATABASE IF EXISTS ascii")
    other.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    other.execute("ALTER DATABASE ascii SET default_transaction_isolation = 'serializable'")
    plain = PostgresArchive(postgres_url.replace("/postgres?", "/ascii?"), "the test's PostgreSQL")
    one = callback(1)
    days(plain.migrate())
    days(plain.put([one]))
    assert [one] == days(plain.get([one.key]))
    assert {one.key: one.digest} == days(plain.digests([one.key]))

    async def isolation() -> str:
        async def run(db: Connection) -> str:
            row = await (await db.execute("SHOW transaction_isolation")).fetchone()
            return str(row and row[0])

        return await plain._run(run)

    assert "read committed" == days(isolation())
    days(plain.aclose())
    other.execute("DROP DATABASE ascii")


def test_a_user_who_may_not_make_tables(days: Run, other: psycopg.Connection, postgres_url: str) -> None:
    """Callbacks of days that have a partition are put by one who may only write rows, and it is logged that days ahead are missing."""
    other.execute("DROP ROLE IF EXISTS writer")
    other.execute("CREATE ROLE writer LOGIN")
    other.execute("GRANT USAGE ON SCHEMA dispatcher TO writer")
    other.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dispatcher TO writer")
    other.commit()
    mine = PostgresArchive(postgres_url.replace("postgres:", "writer:", 1), "the test's PostgreSQL")
    with capture_logs() as logs:
        days(mine.put([callback(1), callback(2, DAY + 1)]))
    assert ["archive.no_day_ahead"] == [one["event"] for one in logs]
    assert "permission denied" in str(logs[0]["problem"])
    with pytest.raises(ArchiveUnavailable, match="permission denied"):
        days(mine.put([callback(3, DAY + 3)]))
    days(mine.aclose())
    assert 3 == len(days(days.archive.get([("acme", f"e{n}") for n in range(9)])))
    other.execute("DROP OWNED BY writer")
    other.execute("DROP ROLE writer")
    other.commit()
