"""The days of an archive in PostgreSQL: each has a partition, which is made ahead, and dropped when its time is over.

A partition is made as a table of its own and then attached, which queries do not hold up: ATTACH waits only for others that change
the table, and for ANALYZE and the like. Whatever waits for a lock here gives up soon, since others may queue behind it.
"""

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from psycopg.errors import LockNotAvailable

from dispatcher.store.archive.postgres_schema import LOCK, Connection

DAY_MS = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TABLES = ("callback", "message", "message_key")
"""Those that have a partition for each day."""
DAY = "_%Y_%m_%d"
"""The end of its name."""
OURS = re.compile(rf"(?:{'|'.join(TABLES)})(_[0-9]{{4}}_[0-9]{{2}}_[0-9]{{2}})")
"""The name of a day's partition; others were made by hand."""
LOCK_TIMEOUT = "500ms"
"""Longest wait for a lock; shorter than the second after which PostgreSQL ends one of two that wait for each other."""


def time_of(ms: int) -> datetime:
    """A time, from ms since 1970."""
    return EPOCH + timedelta(milliseconds=ms)


def start_of(day: int) -> datetime:
    """When a day begins, from its number since 1970, UTC."""
    return EPOCH + timedelta(days=day)


async def make_days(db: Connection, days: Collection[int]) -> None:
    """Makes the partitions of those days that have none. Raises LockNotAvailable if others' locks are in the way."""
    wanted = {_name(table, day): (table, day) for day in sorted(days) for table in TABLES}
    if wanted.keys() <= await _partitions(db):
        return
    await db.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    await db.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    found = await _partitions(db)
    for name, (table, day) in wanted.items():
        if name not in found:
            # a day that somebody detached is attached again
            await db.execute(
                f"CREATE TABLE IF NOT EXISTS dispatcher.{name} (LIKE dispatcher.{table} INCLUDING ALL)"
            )
            await db.execute(
                f"ALTER TABLE dispatcher.{table} ATTACH PARTITION dispatcher.{name}"
                f" FOR VALUES FROM ('{start_of(day).isoformat()}') TO ('{start_of(day + 1).isoformat()}')"
            )


async def old_days(db: Connection, before: int) -> dict[str, list[str]]:
    """The partitions of all days before one, by the end of their names, the oldest day first."""
    end = _name("", before)
    found: dict[str, list[str]] = {}
    for name in await _partitions(db):
        if (ours := OURS.fullmatch(name)) and ours[1] < end:
            found.setdefault(ours[1], []).append(name)
    return dict(sorted(found.items()))


async def drop_day(db: Connection, names: Collection[str]) -> bool:
    """Drops the partitions of a day; returns False, and drops none of them, while a query uses one."""
    try:
        async with db.transaction():
            await db.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            for name in sorted(names):
                await db.execute(f"DROP TABLE IF EXISTS dispatcher.{name}")
    except LockNotAvailable:
        return False
    return True


def _name(table: str, day: int) -> str:
    return table + start_of(day).strftime(DAY)


async def _partitions(db: Connection) -> set[str]:
    """The names of all partitions."""
    found = await db.execute(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent = ANY(%s::regclass[])",
        [[f"dispatcher.{table}" for table in TABLES]],
    )
    return {name for (name,) in await found.fetchall()}
