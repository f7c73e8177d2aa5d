"""The rows of an archive in PostgreSQL: how they are written in bulk, and read."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dispatcher.store.archive.archived_callback import ArchivedCallback, Id
from dispatcher.store.archive.postgres_days import time_of
from dispatcher.store.archive.postgres_erased import without_erased
from dispatcher.store.archive.postgres_schema import Connection

AT_A_STRETCH = 50
"""Rows that are written before the event loop serves others."""
COLUMNS = (
    "accepted_at, ended_at, life_ms, workspace, endpoint, event_type, claims, attempts, http_status, status, state, id, message, "
    "digest, error, records, extra, answer, body"
)
TYPES = (
    "timestamptz", "timestamptz", "int8", "int4", "int4", "int4", "int4", "int2", "int2", "text", "text", "text", "text",
    "text", "text", "text", "text", "bytea", "bytea",
)  # fmt: skip
READ = """
workspace.name, callback.id, endpoint.id, endpoint.name, message, event_type.name, status, state,
(extract(epoch FROM accepted_at) * 1000)::bigint, (extract(epoch FROM ended_at) * 1000)::bigint,
life_ms, claims, digest, attempts, http_status, error, records, extra, answer, body
"""
OF_WORKSPACE = "JOIN dispatcher.callback ON callback.workspace = workspace.number"
NAMES = """
JOIN dispatcher.endpoint ON endpoint.number = callback.endpoint
JOIN dispatcher.event_type ON event_type.number = callback.event_type
"""
Rows = Mapping[Id, tuple[object, ...]]
"""By their ids."""
WANTED = "unnest(%s::text[], %s::text[]) AS wanted (workspace, id)"


async def number(db: Connection, table: str, of: Sequence[str]) -> int:
    """The number of a workspace, an endpoint or an event type, by its names; a new one for new names."""
    columns, marks = ("id, name", "%s, %s") if len(of) > 1 else ("name", "%s")
    await db.execute(
        f"INSERT INTO dispatcher.{table} ({columns}) VALUES ({marks}) ON CONFLICT DO NOTHING", of
    )
    found = await (
        await db.execute(f"SELECT number FROM dispatcher.{table} WHERE ({columns}) = ({marks})", of)
    ).fetchone()
    assert found
    return int(found[0])


async def add(db: Connection, rows: Rows) -> None:
    """Adds rows but for what was erased. Raises UniqueViolation if one of them is there."""
    await copy(db, "dispatcher.callback", COLUMNS, TYPES, await without_erased(db, rows))


async def copy(
    db: Connection, table: str, columns: str, types: Sequence[str], rows: Sequence[tuple[object, ...]]
) -> None:
    """Adds rows to a table."""
    async with (
        db.cursor() as cursor,
        cursor.copy(f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)") as copying,
    ):
        copying.set_types(types)
        for number, row in enumerate(rows):
            if number % AT_A_STRETCH == 0:
                await asyncio.sleep(0)  # let others run in between
            await copying.write_row(row)


def _base(table: str) -> str:
    """How many attempts a callback had before it was replayed; -1: it was not."""
    return f"coalesce(substring({table}.extra FROM '(?:^| )base=([0-9]{{1,18}})')::bigint, -1)"


async def remove_older(db: Connection, callbacks: Sequence[ArchivedCallback]) -> None:
    """Takes out what an earlier end of these callbacks left: also one from before a replay that a clock, set back since, calls later."""
    await db.execute(
        "DELETE FROM dispatcher.callback USING dispatcher.workspace,"
        " unnest(%s::text[], %s::text[], %s::timestamptz[], %s::text[]) AS told (workspace, id, ended_at, extra)"
        " WHERE workspace.name = told.workspace AND callback.workspace = workspace.number AND callback.id = told.id"
        f" AND (callback.ended_at < told.ended_at OR {_base('callback')} < {_base('told')})",
        [
            *columns([one.key for one in callbacks]),
            [time_of(one.ended_ms) for one in callbacks],
            [one.extra for one in callbacks],
        ],
    )


async def add_missing(db: Connection, rows: Rows) -> None:
    """Adds those rows that are not there yet, and were not erased."""
    left = await without_erased(db, rows)
    told = ", ".join(f"%s::{one}[]" for one in TYPES)
    for first in range(0, len(left), AT_A_STRETCH):
        await db.execute(
            f"INSERT INTO dispatcher.callback ({COLUMNS}) SELECT * FROM unnest({told}) ON CONFLICT DO NOTHING",
            [list(column) for column in zip(*left[first : first + AT_A_STRETCH], strict=True)],
        )


def columns(ids: Collection[Id]) -> list[Any]:
    """Ids as the two values of WANTED."""
    return [[workspace for workspace, _ in ids], [id_ for _, id_ in ids]]


async def read(db: Connection, query: str, values: Sequence[object]) -> list[ArchivedCallback]:
    """What a query with the columns READ finds."""
    return [ArchivedCallback(*row) for row in await (await db.execute(query, values)).fetchall()]
