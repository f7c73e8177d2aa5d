"""An archive in PostgreSQL: a partition for each day, so that forgetting a day costs nothing.

All tables are in the schema `dispatcher`. A table that is partitioned by when callbacks ended cannot be unique by their ids
alone; a callback that is told again has the same time, so (workspace, id, time) is enough.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
from psycopg.errors import UniqueViolation

from dispatcher.errors import ArchiveUnavailable, InvalidInput
from dispatcher.store.archive import postgres_erased
from dispatcher.store.archive.archive import STATUS, After, Page, known_version, page
from dispatcher.store.archive.archived_callback import ArchivedCallback, Id
from dispatcher.store.archive.postgres_ends import ends
from dispatcher.store.archive.which import Which

T = TypeVar("T")
Connection = psycopg.AsyncConnection[tuple[Any, ...]]

VERSION = 2
CONNECT_SECONDS = 5
ANSWER_SECONDS = 20.0
"""Longest time of one call; by then the connection is given up."""
DAY_MS = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOCK = 0x64697370
"""The advisory lock of whoever makes tables."""

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
"""
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
WANTED = "unnest(%s::text[], %s::text[]) AS wanted (workspace, id)"


class PostgresArchive:
    """One connection, which is made when it is needed, and anew after it broke."""

    def __init__(self, url: str, shown: str) -> None:
        """`shown` names it in error texts, without a password."""
        self._url = url
        self._shown = shown
        self._connection: Connection | None = None
        self._one_call = asyncio.Lock()
        self._left: set[asyncio.Task[Any]] = set()
        """Calls that were given up."""
        self._numbers: dict[tuple[str, ...], int] = {}
        """Of workspaces, endpoints and event types, by table and names."""
        self._days: set[int] = set()
        """Those with a partition."""

    async def version(self) -> int:
        """As Archive.version."""
        return await self._run(_version)

    async def migrate(self) -> int:
        """As Archive.migrate."""
        return await self._run(_migrate)

    async def put(self, callbacks: Sequence[ArchivedCallback]) -> None:
        """As Archive.put. Those of a batch that is told again are compared row by row, which takes longer."""
        await self._run(lambda db: self._prepare(db, callbacks))
        if again := [
            one for one in callbacks if "base=" in one.extra
        ]:  # they had ended before, and were replayed
            await self._run(lambda db: _remove_older(db, again))
        rows = {one.key: self._row(one) for one in sorted(callbacks, key=lambda one: one.key)}
        try:
            await self._run(lambda db: _copy_unless_erased(db, "dispatcher.callback", rows))
        except UniqueViolation:
            await self._run(lambda db: _add_missing(db, rows))

    async def get(self, ids: Collection[Id], days: Collection[int] = ()) -> list[ArchivedCallback]:
        """As Archive.get."""
        between, values = "", _columns(ids)
        if days:
            between = "AND ended_at >= %s AND ended_at < %s"
            values += [_day(min(days)), _day(max(days) + 1)]
        query = (
            f"SELECT {READ} FROM {WANTED} JOIN dispatcher.workspace ON workspace.name = wanted.workspace"
            f" {OF_WORKSPACE} AND callback.id = wanted.id {between} {NAMES}"
        )
        return await self._run(lambda db: _read(db, query, values))

    async def digests(self, ids: Collection[Id]) -> dict[Id, str]:
        """As Archive.digests."""
        query = (
            f"SELECT wanted.workspace, wanted.id, digest FROM {WANTED}"
            f" JOIN dispatcher.workspace ON workspace.name = wanted.workspace {OF_WORKSPACE} AND callback.id = wanted.id"
        )

        async def read(db: Connection) -> dict[Id, str]:
            rows = await (await db.execute(query, _columns(ids))).fetchall()
            return {(workspace, id_): digest for workspace, id_, digest in rows}

        return await self._run(read)

    async def of_message(self, workspace: str, message: str) -> list[ArchivedCallback]:
        """As Archive.of_message."""
        query = (
            f"SELECT {READ} FROM dispatcher.workspace {OF_WORKSPACE} {NAMES}"
            " WHERE workspace.name = %s AND message = %s ORDER BY accepted_at, callback.id"
        )
        return await self._run(lambda db: _read(db, query, [workspace, message]))

    async def ended(self, which: Which, after: After | None, look: int) -> Page:
        """As Archive.ended."""
        until = _time(min(which.until_ms, after[0]) if after else which.until_ms)
        query, values = ends(which, after, look, READ, _time(which.since_ms), until)

        async def run(db: Connection) -> Page:
            return page(await (await db.execute(query, values)).fetchall(), look)

        return await self._run(run)

    async def remove(self, ids: Collection[Id]) -> int:
        """As Archive.remove."""
        delete = (
            f"DELETE FROM dispatcher.callback USING {WANTED}, dispatcher.workspace WHERE workspace.name = wanted.workspace"
            " AND callback.workspace = workspace.number AND callback.id = wanted.id"
        )

        async def run(db: Connection) -> int:
            return (await db.execute(delete, _columns(ids))).rowcount

        return await self._run(run)

    async def erase(self, ids: Collection[Id], day: int) -> int:
        """As Archive.erase."""
        return await self._run(lambda db: postgres_erased.erase(db, ids, day))

    async def erased(self, ids: Collection[Id]) -> set[Id]:
        """As Archive.erased."""
        return await self._run(lambda db: postgres_erased.erased(db, ids))

    async def drop_days(self, before: int) -> int:
        """As Archive.drop_days; returns how many days those were."""
        self._days = set()
        return await self._run(lambda db: _drop_days(db, before))

    async def aclose(self) -> None:
        """As Archive.aclose."""
        if self._connection:
            await self._connection.close()

    async def _run(self, do: Callable[[Connection], Awaitable[T]]) -> T:
        """What `do` returns, within a transaction. UniqueViolation passes through; other errors become ArchiveUnavailable."""
        async with self._one_call, self._translated():
            call = asyncio.create_task(self._call(do))
            # not `asyncio.timeout`: a server that hangs does not let a call be cancelled either
            try:
                done, _ = await asyncio.wait({call}, timeout=ANSWER_SECONDS)
            except asyncio.CancelledError:
                self._give_up(call)
                raise
            if done:
                return call.result()
            self._give_up(call)
            raise psycopg.OperationalError(f"no answer within {ANSWER_SECONDS:g} s")

    async def _call(self, do: Callable[[Connection], Awaitable[T]]) -> T:
        if not self._connection or self._connection.closed:
            self._connection = await _connect(self._url)
        async with self._connection.transaction():
            return await do(self._connection)

    def _give_up(self, call: "asyncio.Task[T]") -> None:
        """Leaves a call and its connection to themselves."""
        self._left.add(call)
        call.add_done_callback(self._left.discard)
        call.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen: nobody waits for it
        call.cancel()
        self._numbers, self._days = {}, set()  # what it made may not have been committed
        if self._connection:
            self._connection.pgconn.finish()
            self._connection = None

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except UniqueViolation:
            raise
        except psycopg.DataError as error:
            raise InvalidInput(f"the archive cannot keep this: {' '.join(str(error).split())}") from error
        except psycopg.Error as error:
            self._numbers, self._days = {}, set()  # what was rolled back; and next it may be another server
            why = " ".join(str(error).split())
            raise ArchiveUnavailable(f"the archive {self._shown} cannot be used: {why}") from error

    async def _prepare(self, db: Connection, callbacks: Sequence[ArchivedCallback]) -> None:
        """Makes what the rows refer to: numbers of names, and partitions of days."""
        names = {("workspace", one.workspace) for one in callbacks}
        names |= {("event_type", one.event_type) for one in callbacks}
        endpoints = {("endpoint", one.endpoint, one.endpoint_name) for one in callbacks}
        for table, *of in sorted((names | endpoints) - self._numbers.keys()):
            self._numbers[table, *of] = await _number(db, table, of)
        for day in sorted({one.ended_ms // DAY_MS for one in callbacks} - self._days):
            await _make_day(db, day)
            self._days.add(day)

    def _row(self, one: ArchivedCallback) -> tuple[object, ...]:
        return (
            _time(one.accepted_ms),
            _time(one.ended_ms),
            one.life_ms,
            self._numbers["workspace", one.workspace],
            self._numbers["endpoint", one.endpoint, one.endpoint_name],
            self._numbers["event_type", one.event_type],
            *(
                one.claims,
                one.attempts,
                one.http_status,
                one.status,
                one.state,
                one.id,
                one.message,
                one.digest,
            ),
            *(one.error, one.records, one.extra, one.answer, one.body),
        )


async def _connect(url: str) -> Connection:
    """Prepares no statements, so that pgbouncer may give each transaction another connection."""
    return await psycopg.AsyncConnection.connect(
        url, autocommit=True, prepare_threshold=None, connect_timeout=CONNECT_SECONDS
    )


async def _version(db: Connection) -> int:
    found = await (await db.execute("SELECT to_regclass('dispatcher.archive')")).fetchone()
    if not found or found[0] is None:
        return 0
    version = await (await db.execute("SELECT version FROM dispatcher.archive")).fetchone()
    return known_version(int(version[0]) if version else 0, VERSION)


async def _migrate(db: Connection) -> int:
    await db.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    found = await _version(db)
    if not found:
        await db.execute(SCHEMA)
        await db.execute(postgres_erased.SCHEMA)
        await db.execute(VIEW)
        await db.execute("INSERT INTO dispatcher.archive VALUES (%s)", [VERSION])
    elif found < VERSION:
        await db.execute(postgres_erased.SCHEMA)
        await db.execute("UPDATE dispatcher.archive SET version = %s", [VERSION])
    return VERSION


async def _number(db: Connection, table: str, of: Sequence[str]) -> int:
    columns, marks = ("id, name", "%s, %s") if len(of) > 1 else ("name", "%s")
    await db.execute(
        f"INSERT INTO dispatcher.{table} ({columns}) VALUES ({marks}) ON CONFLICT DO NOTHING", of
    )
    found = await (
        await db.execute(f"SELECT number FROM dispatcher.{table} WHERE ({columns}) = ({marks})", of)
    ).fetchone()
    assert found
    return int(found[0])


def _time(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)


def _day(number: int) -> datetime:
    return EPOCH + timedelta(days=number)


def _table(day: int) -> str:
    return f"callback_{_day(day):%Y_%m_%d}"


async def _make_day(db: Connection, day: int) -> None:
    await db.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    await db.execute(
        f"CREATE TABLE IF NOT EXISTS dispatcher.{_table(day)} PARTITION OF dispatcher.callback"
        f" FOR VALUES FROM ('{_day(day).isoformat()}') TO ('{_day(day + 1).isoformat()}')"
    )


async def _drop_days(db: Connection, before: int) -> int:
    await postgres_erased.forget(db, before)
    tables = await db.execute(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent = 'dispatcher.callback'::regclass"
    )
    old = sorted(name for (name,) in await tables.fetchall() if name < _table(before))
    for name in old:
        await db.execute(f"DROP TABLE dispatcher.{name}")
    return len(old)


async def _copy(db: Connection, table: str, rows: Sequence[tuple[object, ...]]) -> None:
    async with (
        db.cursor() as cursor,
        cursor.copy(f"COPY {table} ({COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types(TYPES)
        for row in rows:
            await copy.write_row(row)


async def _copy_unless_erased(db: Connection, table: str, rows: Mapping[Id, tuple[object, ...]]) -> None:
    await _copy(db, table, await postgres_erased.without_erased(db, rows))


async def _remove_older(db: Connection, callbacks: Sequence[ArchivedCallback]) -> None:
    """Takes out what an earlier end of these callbacks left."""
    await db.execute(
        "DELETE FROM dispatcher.callback USING unnest(%s::text[], %s::text[], %s::timestamptz[]) AS told (workspace, id, ended_at),"
        " dispatcher.workspace WHERE workspace.name = told.workspace AND callback.workspace = workspace.number"
        " AND callback.id = told.id AND callback.ended_at < told.ended_at",
        [*_columns([one.key for one in callbacks]), [_time(one.ended_ms) for one in callbacks]],
    )


async def _add_missing(db: Connection, rows: Mapping[Id, tuple[object, ...]]) -> None:
    await db.execute("CREATE TEMP TABLE told (LIKE dispatcher.callback) ON COMMIT DROP")
    await _copy_unless_erased(db, "told", rows)
    await db.execute(
        f"INSERT INTO dispatcher.callback ({COLUMNS}) SELECT {COLUMNS} FROM told ON CONFLICT DO NOTHING"
    )


def _columns(ids: Collection[Id]) -> list[Any]:
    return [[workspace for workspace, _ in ids], [id_ for _, id_ in ids]]


async def _read(db: Connection, query: str, values: Sequence[object]) -> list[ArchivedCallback]:
    return [ArchivedCallback(*row) for row in await (await db.execute(query, values)).fetchall()]
