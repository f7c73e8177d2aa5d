"""How large a row of the archive is, and how fast rows are written: made-up callbacks, straight into the archive."""

import asyncio
import random
import tempfile
import time
import uuid
from pathlib import Path

from bench.report import table
from dispatcher.store.archive.archive import Archive
from dispatcher.store.archive.archived_callback import ArchivedCallback, Kept
from dispatcher.store.archive.sqlite import SqliteArchive

ROWS, BATCH, CUSTOMERS = 100_000, 1000, 100
DAY_MS = 86_400_000
FIRST_MS, APART_MS = 20_500 * DAY_MS, 800
"""When the first was accepted, and how far apart they are: all within a day."""


def archive_rows(postgres: str) -> str:
    """A table for SQLite and for the PostgreSQL server with this URL."""
    from dispatcher.store.archive.postgres import PostgresArchive

    rows = [_delivered(number) for number in range(ROWS)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "archive.db"
        lite = asyncio.run(_rate(SqliteArchive(path), rows))
        file_bytes = path.stat().st_size
    server = asyncio.run(_rate(PostgresArchive(postgres, "PostgreSQL"), rows))
    heap, indexes = _sizes(postgres)
    return table(
        [f"archive, {ROWS:,} delivered callbacks", "rows/s", "bytes a row", "of these, indexes"],
        [
            ["SQLite", f"{lite:,.0f}", f"{file_bytes / ROWS:.0f}", ""],
            ["PostgreSQL", f"{server:,.0f}", f"{(heap + indexes) / ROWS:.0f}", f"{indexes / ROWS:.0f}"],
        ],
    )


async def _rate(archive: Archive, rows: list[ArchivedCallback]) -> float:
    """Rows a second, over one connection."""
    await archive.migrate()
    began = time.monotonic()
    for first in range(0, ROWS, BATCH):
        await archive.put(rows[first : first + BATCH])
    took = time.monotonic() - began
    await archive.aclose()
    return ROWS / took


def _sizes(postgres: str) -> tuple[int, int]:
    """Bytes of the rows, and of their indexes."""
    import psycopg

    query = (
        "SELECT sum(pg_relation_size(inhrelid))::bigint, sum(pg_indexes_size(inhrelid))::bigint FROM pg_inherits"
        " JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'dispatcher.callback'::regclass AND relname = %s"
    )
    day = time.strftime("callback_%Y_%m_%d", time.gmtime(FIRST_MS / 1000))
    with psycopg.connect(postgres) as connection:
        found = connection.execute(query, [day]).fetchone()
    assert found
    return found[0], found[1]


def _delivered(number: int) -> ArchivedCallback:
    """A callback that was delivered at the first attempt, with random ids of the usual length."""
    chance, customer = random.Random(number), f"customer{number % CUSTOMERS}"
    message, event_id = (str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(2))
    accepted = FIRST_MS + number * APART_MS
    entry = (
        f"{chance.getrandbits(64):016x} MESSAGE_DELIVERED d {accepted} d 1 {'A' * 12} {message} 172800000 "
        f"{chance.randrange(20, 90)}\n3 12 200"
    )
    return Kept(
        customer, event_id, entry.encode(), f"{customer} https://hooks.{customer}.example:443"
    ).archived()
