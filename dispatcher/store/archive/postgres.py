"""An archive in PostgreSQL: a partition for each day, so that forgetting a day costs nothing.

All tables are in the schema `dispatcher`. A table that is partitioned by when callbacks ended cannot be unique by their ids
alone; a callback that is told again has the same time, so (workspace, id, time) is enough.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg import IsolationLevel
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import InvalidSchemaName, UndefinedTable, UniqueViolation

from dispatcher.errors import ArchiveUnavailable, InvalidInput
from dispatcher.store.archive import postgres_erased, postgres_rows, postgres_schema
from dispatcher.store.archive.archive import NO_TABLES, NO_VALUE, After, Page, page
from dispatcher.store.archive.archived_callback import ArchivedCallback, Id
from dispatcher.store.archive.archived_message import ArchivedMessage
from dispatcher.store.archive.postgres_days import DAY_MS, drop_day, make_days, old_days, start_of, time_of
from dispatcher.store.archive.postgres_ends import ends
from dispatcher.store.archive.postgres_messages import PostgresMessages
from dispatcher.store.archive.postgres_rows import NAMES, OF_WORKSPACE, READ, WANTED, columns, read
from dispatcher.store.archive.postgres_schema import Connection
from dispatcher.store.archive.which import Which
from dispatcher.store.redis_url import ENCODE

T = TypeVar("T")

CONNECT_SECONDS = 5
ANSWER_SECONDS = 20.0
"""Longest time of one call, and longest wait for those before it; by then the connection is given up."""
AHEAD_DAYS = 2
"""So many days after the one of the last callback have a partition too."""
AHEAD_SECONDS = 600.0
"""Pause after their partitions could not be made."""

OF_ROWS = psycopg.DataError, UniqueViolation
"""Errors that say nothing of the connection."""

log = structlog.get_logger()


class PostgresArchive:
    """One connection, which is made when it is needed, and anew after it broke."""

    def __init__(self, url: str, shown: str, answer_seconds: float | None = None) -> None:
        """`shown` names it in error texts, without a password; `answer_seconds`: in place of ANSWER_SECONDS."""
        self._answer_seconds = answer_seconds or ANSWER_SECONDS
        self._limit = f"SET LOCAL statement_timeout = {max(1, round(self._answer_seconds * 1000))}"
        """Has the server end what nobody waits for any more; pgbouncer lets it through."""
        self.messages = PostgresMessages(self._run, self._prepare_messages)
        """As Archive.messages."""
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
        self._try_ahead_at = 0.0
        """When partitions may be made ahead again."""

    async def version(self) -> int:
        """As Archive.version."""
        return await self._run(postgres_schema.version)

    async def migrate(self) -> int:
        """As Archive.migrate."""
        return await self._run(postgres_schema.migrate)

    async def flaw(self) -> str:
        """As Archive.flaw."""
        return await self._run(postgres_schema.flaw)

    async def put(self, callbacks: Sequence[ArchivedCallback]) -> None:
        """As Archive.put. Those of a batch that is told again are compared row by row, which takes longer."""
        await self._run(lambda db: self._prepare(db, callbacks))
        if again := [
            one for one in callbacks if "base=" in one.extra
        ]:  # they had ended before, and were replayed
            await self._run(lambda db: postgres_rows.remove_older(db, again))
        rows = {one.key: self._row(one) for one in sorted(callbacks, key=lambda one: one.key)}
        try:
            await self._run(lambda db: postgres_rows.add(db, rows))
        except UniqueViolation:
            await self._run(lambda db: postgres_rows.add_missing(db, rows))
        if callbacks:
            await self._make_ahead(max(one.ended_ms for one in callbacks) // DAY_MS)

    async def get(self, ids: Collection[Id], days: Collection[int] = ()) -> list[ArchivedCallback]:
        """As Archive.get."""
        between, values = "", columns(ids)
        if days:
            between = "AND ended_at >= %s AND ended_at < %s"
            values += [start_of(min(days)), start_of(max(days) + 1)]
        query = (
            f"SELECT {READ} FROM {WANTED} JOIN dispatcher.workspace ON workspace.name = wanted.workspace"
            f" {OF_WORKSPACE} AND callback.id = wanted.id {between} {NAMES}"
            " ORDER BY ended_at"
        )
        return await self._run(lambda db: read(db, query, values))

    async def digests(self, ids: Collection[Id]) -> dict[Id, str]:
        """As Archive.digests."""
        query = (
            f"SELECT wanted.workspace, wanted.id, digest FROM {WANTED}"
            f" JOIN dispatcher.workspace ON workspace.name = wanted.workspace {OF_WORKSPACE} AND callback.id = wanted.id"
            " ORDER BY ended_at"  # of an eventId that was used again, the last one counts
        )

        async def run(db: Connection) -> dict[Id, str]:
            rows = await (await db.execute(query, columns(ids))).fetchall()
            return {(workspace, id_): digest for workspace, id_, digest in rows}

        return await self._run(run)

    async def of_message(self, workspace: str, message: str) -> list[ArchivedCallback]:
        """As Archive.of_message."""
        query = (
            f"SELECT {READ} FROM dispatcher.workspace {OF_WORKSPACE} {NAMES}"
            " WHERE workspace.name = %s AND message = %s ORDER BY accepted_at, callback.id"
        )
        try:
            return await self._run(lambda db: read(db, query, [workspace, message]))
        except InvalidInput:  # no row has what the database cannot have
            return []

    async def ended(self, which: Which, after: After | None, look: int) -> Page:
        """As Archive.ended."""
        until = time_of(min(which.until_ms, after[0]) if after else which.until_ms)
        query, values = ends(which, after, look, READ, time_of(which.since_ms), until)

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
            return (await db.execute(delete, columns(ids))).rowcount

        return await self._run(run)

    async def erase(self, ids: Collection[Id], day: int) -> int:
        """As Archive.erase."""
        return await self._run(lambda db: postgres_erased.erase(db, ids, day))

    async def erased(self, ids: Collection[Id]) -> set[Id]:
        """As Archive.erased."""
        return await self._run(lambda db: postgres_erased.erased(db, ids))

    async def drop_days(self, before: int) -> int:
        """As Archive.drop_days; returns how many days those were: none from the first on that a query uses, so call it again later.

        Each day is a transaction of its own, so that it needs no more locks the more days there are.
        """
        self._days = set()
        await self._run(lambda db: postgres_erased.forget(db, before))
        dropped = 0
        failed: ArchiveUnavailable | None = None
        for names in (await self._run(lambda db: old_days(db, before))).values():
            try:
                if not await self._run(partial(drop_day, names=names)):
                    break
                dropped += 1
            except ArchiveUnavailable as error:  # somebody's view uses that day, say
                failed = failed or error
                if isinstance(error.__cause__, psycopg.OperationalError):
                    break
        if failed:
            raise failed
        return dropped

    async def aclose(self) -> None:
        """As Archive.aclose."""
        if self._connection:
            await self._connection.close()

    async def _run(self, do: Callable[[Connection], Awaitable[T]]) -> T:
        """What `do` returns, within a transaction. UniqueViolation passes through; other errors become ArchiveUnavailable."""
        async with self._translated(), self._turn():
            call = asyncio.create_task(self._call(do))
            # not `asyncio.timeout`: a server that hangs does not let a call be cancelled either
            try:
                done, _ = await asyncio.wait({call}, timeout=self._answer_seconds)
            except asyncio.CancelledError:
                self._give_up(call)
                raise
            if done:
                return call.result()
            self._give_up(call)
            raise self._silent()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Waits for the calls before, as long as one of them may take."""
        try:
            async with asyncio.timeout(self._answer_seconds):
                await self._one_call.acquire()
        except TimeoutError:
            raise self._silent() from None
        try:
            yield
        finally:
            self._one_call.release()

    def _silent(self) -> psycopg.OperationalError:
        return psycopg.OperationalError(f"no answer within {self._answer_seconds:g} s")

    async def _call(self, do: Callable[[Connection], Awaitable[T]]) -> T:
        if not self._connection or self._connection.closed:
            self._connection = await _connect(self._url)
        connection = self._connection
        try:
            async with connection.transaction():
                await connection.execute(self._limit)
                return await do(connection)
        except psycopg.Error as error:
            if not isinstance(
                error, OF_ROWS
            ):  # the next one may reach another server, or this one as it is then
                await connection.close()
            raise

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
        except Exception as error:
            self._numbers, self._days = {}, set()  # what was rolled back; and next it may be another server
            if isinstance(error, (psycopg.DataError, *NO_VALUE)):
                problem = " ".join(str(error).split())
                raise InvalidInput(f"the archive cannot keep this: {problem}") from error
            if isinstance(error, UniqueViolation) or not isinstance(error, psycopg.Error):
                raise
            is_empty = isinstance(error, UndefinedTable | InvalidSchemaName)
            why = NO_TABLES if is_empty else " ".join(str(error).split())
            raise ArchiveUnavailable(f"the archive {self._shown} cannot be used: {why}") from error

    async def _prepare(self, db: Connection, callbacks: Sequence[ArchivedCallback]) -> None:
        """Makes what the rows refer to: numbers of names, and partitions of days."""
        names = {("workspace", one.workspace) for one in callbacks}
        names |= {("event_type", one.event_type) for one in callbacks}
        endpoints = {("endpoint", one.endpoint, one.endpoint_name) for one in callbacks}
        await self._make(db, names | endpoints, {one.ended_ms // DAY_MS for one in callbacks})

    async def _prepare_messages(self, db: Connection, messages: Sequence[ArchivedMessage]) -> dict[str, int]:
        """The same for messages; returns the numbers of workspaces."""
        names: set[tuple[str, ...]] = {("workspace", one.workspace) for one in messages}
        await self._make(db, names, {one.kept_ms // DAY_MS for one in messages})
        return {name: self._numbers[table, name] for table, name in names}

    async def _make(self, db: Connection, names: set[tuple[str, ...]], days: set[int]) -> None:
        for table, *of in sorted(names - self._numbers.keys()):
            self._numbers[table, *of] = await postgres_rows.number(db, table, of)
        if missing := days - self._days:
            await make_days(db, missing)
            self._days |= missing

    async def _make_ahead(self, day: int) -> None:
        """Makes the partitions of the days after this one, so that nothing waits for that when they come; or tries again later."""
        ahead = set(range(day + 1, day + 1 + AHEAD_DAYS)) - self._days
        if not ahead or time.monotonic() < self._try_ahead_at:
            return
        try:
            await self._run(lambda db: make_days(db, ahead))
            self._days |= ahead
        except ArchiveUnavailable as error:
            self._try_ahead_at = time.monotonic() + AHEAD_SECONDS
            log.warning("archive.no_day_ahead", problem=str(error), action="trying again in some minutes")

    def _row(self, one: ArchivedCallback) -> tuple[object, ...]:
        return (
            time_of(one.accepted_ms),
            time_of(one.ended_ms),
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


def check_readable(url: str) -> None:
    """Raises InvalidInput if libpq cannot read a URL. Its own text quotes what it cannot read, which may be a password."""
    try:
        conninfo_to_dict(url)
    except (psycopg.ProgrammingError, UnicodeDecodeError):
        raise InvalidInput(f"the archive's URL cannot be read: look at its options, and {ENCODE}") from None


async def _connect(url: str) -> Connection:
    """Prepares no statements, so that pgbouncer may give each transaction another connection.

    Nothing depends on the server's defaults: text goes over as UTF-8, also to a database in SQL_ASCII, which would give back
    bytes; and a transaction sees what others have committed, as the locks of postgres_erased.py expect.
    """
    connection = await psycopg.AsyncConnection.connect(
        url,
        autocommit=True,
        prepare_threshold=None,
        connect_timeout=CONNECT_SECONDS,
        client_encoding="utf8",
    )
    await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    return connection
