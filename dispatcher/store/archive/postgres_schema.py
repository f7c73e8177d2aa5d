"""The tables of an archive in PostgreSQL, and their version."""

from typing import Any

import psycopg

from dispatcher.errors import ArchiveUnavailable
from dispatcher.store.archive import postgres_messages_schema
from dispatcher.store.archive.archive import STATUS, VERSION, known_version

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

LOCK = 0x64697370
"""The advisory lock of whoever makes tables."""

ENCODINGS = ("UTF8", "SQL_ASCII")
"""Of databases that have every character; the second one keeps bytes as they come."""
SCHEMA = """
CREATE SCHEMA IF NOT EXISTS dispatcher;
CREATE TABLE dispatcher.archive (version int NOT NULL);
CREATE TABLE dispatcher.workspace (number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE dispatcher.endpoint
    (number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL, name text NOT NULL, UNIQUE (id, name));
CREATE TABLE dispatcher.event_type (number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE dispatcher.callback (
    accepted_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    life_ms bigint NOT NULL,
    workspace int NOT NULL,
    endpoint int NOT NULL,
    event_type int NOT NULL,
    claims int NOT NULL,
    attempts smallint NOT NULL,
    http_status smallint,
    status text NOT NULL,
    state text NOT NULL,
    id text NOT NULL,
    message text NOT NULL,
    digest text NOT NULL,
    error text,
    records text NOT NULL,
    extra text NOT NULL,
    answer bytea,
    body bytea,
    UNIQUE (workspace, id, ended_at)
) PARTITION BY RANGE (ended_at);
CREATE INDEX ON dispatcher.callback (workspace, message);
CREATE INDEX ON dispatcher.callback (workspace, state, ended_at);
CREATE INDEX ON dispatcher.callback (ended_at);
"""
ERASED = """
CREATE TABLE IF NOT EXISTS dispatcher.erased (
    workspace int NOT NULL,
    id bigint NOT NULL,
    day int NOT NULL,
    PRIMARY KEY (workspace, id)
);
"""
"""What version 2 added."""
SINCE_1 = f"{ERASED} {postgres_messages_schema.SCHEMA} {postgres_messages_schema.VIEW}"
"""What later versions than the first one have besides."""
VIEW = f"""
CREATE VIEW dispatcher.history AS
SELECT workspace.name AS workspace, split_part(callback.id, '.', 1) AS event_id, split_part(callback.id, '.', 2) AS subscription,
    message AS message_id, {STATUS} AS status, event_type.name AS event_type, split_part(endpoint.name, ' ', 2) AS endpoint, state,
    accepted_at, ended_at, extract(epoch FROM ended_at - accepted_at)::float8 AS seconds, attempts, http_status,
    nullif(error, '-') AS error
FROM dispatcher.callback
JOIN dispatcher.workspace ON workspace.number = callback.workspace
JOIN dispatcher.endpoint ON endpoint.number = callback.endpoint
JOIN dispatcher.event_type ON event_type.number = callback.event_type;
"""


async def version(db: Connection) -> int:
    """The number of the schema; 0: there are no tables. Raises OtherFormat if it is newer than this program."""
    found = await (await db.execute("SELECT to_regclass('dispatcher.archive')")).fetchone()
    if not found or found[0] is None:
        return 0
    row = await (await db.execute("SELECT version FROM dispatcher.archive")).fetchone()
    return known_version(int(row[0]) if row else 0, VERSION)


async def flaw(db: Connection) -> str:
    """As Archive.flaw."""
    row = await (await db.execute("SHOW server_encoding")).fetchone()
    encoding = row[0] if row else ""
    if encoding in ENCODINGS:
        return ""
    return f"its encoding is {encoding}, which has not every character: it must be a database in UTF8 (CREATE DATABASE … ENCODING 'UTF8')"


async def migrate(db: Connection) -> int:
    """Makes the tables if there are none, or what they lack of this version; returns their version.

    Raises OtherFormat if it is newer than this program, and ArchiveUnavailable if there are none and the database has a flaw.
    """
    await db.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    found = await version(db)
    if not found:
        if wrong := await flaw(db):
            raise ArchiveUnavailable(f"the archive gets no tables: {wrong}")
        await db.execute(SCHEMA)
        await db.execute(VIEW)
        await db.execute(SINCE_1)
        await db.execute("INSERT INTO dispatcher.archive VALUES (%s)", [VERSION])
    elif found < VERSION:
        await db.execute(SINCE_1)
        await db.execute("UPDATE dispatcher.archive SET version = %s", [VERSION])
    return VERSION
