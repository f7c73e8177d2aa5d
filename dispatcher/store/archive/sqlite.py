"""An archive in a file, for one machine: SQLite."""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar

from dispatcher.errors import ArchiveUnavailable, InvalidInput
from dispatcher.store.archive import sqlite_messages
from dispatcher.store.archive.archive import (
    NO_TABLES,
    NO_VALUE,
    STATUS,
    VERSION,
    After,
    Page,
    known_version,
    page,
)
from dispatcher.store.archive.archived_callback import ArchivedCallback, Id
from dispatcher.store.archive.erased import fingerprint
from dispatcher.store.archive.sqlite_ends import ends
from dispatcher.store.archive.sqlite_messages import SqliteMessages
from dispatcher.store.archive.which import Which

T = TypeVar("T")
DropSome = Callable[[sqlite3.Connection, int, int], int]
"""Takes out at most so many rows from before a time (ms since 1970); returns how many."""

CACHE_KB = 32_000
"""Pages of the indexes that are kept in memory: with less, each row that is written reads some of them."""
BUSY_SECONDS = 5.0
"""How long a call waits for another process that writes."""
AT_ONCE = 200
"""Ids in one query; SQLite takes 32,766 values, older ones 999."""
DAY_MS = 86_400_000
DROPPED_AT_ONCE = 2000
"""Rows that one transaction drops: a tenth of a second."""
SCHEMA = """
CREATE TABLE archive (version INTEGER NOT NULL);
CREATE TABLE workspace (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE endpoint (number INTEGER PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (id, name));
CREATE TABLE event_type (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE callback (
    workspace INTEGER NOT NULL REFERENCES workspace,
    id TEXT NOT NULL,
    endpoint INTEGER NOT NULL REFERENCES endpoint,
    message TEXT NOT NULL,
    event_type INTEGER NOT NULL REFERENCES event_type,
    status TEXT NOT NULL,
    state TEXT NOT NULL,
    accepted_ms INTEGER NOT NULL,
    ended_ms INTEGER NOT NULL,
    life_ms INTEGER NOT NULL,
    claims INTEGER NOT NULL,
    digest TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    http_status INTEGER,
    error TEXT,
    records TEXT NOT NULL,
    extra TEXT NOT NULL,
    answer BLOB,
    body BLOB,
    UNIQUE (workspace, id)
);
CREATE INDEX callback_message ON callback (workspace, message);
CREATE INDEX callback_ended ON callback (ended_ms);
CREATE INDEX callback_state ON callback (workspace, state, ended_ms);
"""
ERASED = """
CREATE TABLE IF NOT EXISTS erased (
    workspace INTEGER NOT NULL REFERENCES workspace,
    id INTEGER NOT NULL,
    day INTEGER NOT NULL,
    PRIMARY KEY (workspace, id)
) WITHOUT ROWID;
"""
"""Since version 2."""
SINCE_1 = f"{ERASED} {sqlite_messages.SCHEMA} {sqlite_messages.VIEW}"
"""What later versions than the first one have besides."""
VIEW = f"""
CREATE VIEW history AS
SELECT workspace.name AS workspace,
    substr(callback.id || '.', 1, instr(callback.id || '.', '.') - 1) AS event_id,
    substr(callback.id, instr(callback.id || '.', '.') + 1) AS subscription,
    message AS message_id, {STATUS} AS status, event_type.name AS event_type,
    substr(endpoint.name, instr(endpoint.name, ' ') + 1) AS endpoint, state,
    strftime('%Y-%m-%d %H:%M:%f', accepted_ms / 1000.0, 'unixepoch') AS accepted_at,
    strftime('%Y-%m-%d %H:%M:%f', ended_ms / 1000.0, 'unixepoch') AS ended_at,
    (ended_ms - accepted_ms) / 1000.0 AS seconds, attempts, http_status, nullif(error, '-') AS error
FROM callback
JOIN workspace ON workspace.number = callback.workspace
JOIN endpoint ON endpoint.number = callback.endpoint
JOIN event_type ON event_type.number = callback.event_type;
"""
FIELDS = """
workspace.name, callback.id, endpoint.id, endpoint.name, message, event_type.name, status, state, accepted_ms, ended_ms,
    life_ms, claims, digest, attempts, http_status, error, records, extra, answer, body
"""
SELECT = f"""
SELECT {FIELDS} FROM callback
JOIN workspace ON workspace.number = callback.workspace
JOIN endpoint ON endpoint.number = callback.endpoint
JOIN event_type ON event_type.number = callback.event_type
"""


def _base(table: str) -> str:
    """How many attempts a callback had before it was replayed; -1: it was not."""
    extra = f"(' ' || {table}.extra || ' base=-1')"
    return f"CAST(substr({extra}, instr({extra}, ' base=') + 6) AS INTEGER)"


INSERT = f"""
INSERT INTO callback
SELECT (SELECT number FROM workspace WHERE name = ?), ?, (SELECT number FROM endpoint WHERE id = ? AND name = ?), ?,
    (SELECT number FROM event_type WHERE name = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
WHERE true ON CONFLICT (workspace, id) DO UPDATE SET endpoint = excluded.endpoint, message = excluded.message,
    event_type = excluded.event_type, status = excluded.status, accepted_ms = excluded.accepted_ms, digest = excluded.digest,
    state = excluded.state, ended_ms = excluded.ended_ms, life_ms = excluded.life_ms,
    claims = excluded.claims, attempts = excluded.attempts, http_status = excluded.http_status, error = excluded.error,
    records = excluded.records, extra = excluded.extra, answer = excluded.answer, body = excluded.body
WHERE excluded.ended_ms > callback.ended_ms OR {_base("excluded")} > {_base("callback")}
"""
"""An end after a replay is later than the one before, whatever the clock said."""


class SqliteArchive:
    """One file. Its calls run in a thread, one after the other."""

    def __init__(self, path: Path) -> None:
        self.messages = SqliteMessages(self._run)
        """As Archive.messages."""
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="archive")
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        """Which file that is to."""

    async def version(self) -> int:
        """As Archive.version."""
        return await self._run(_version)

    async def migrate(self) -> int:
        """As Archive.migrate."""
        return await self._run(_migrate)

    async def flaw(self) -> str:
        """As Archive.flaw."""
        return ""

    async def put(self, callbacks: Sequence[ArchivedCallback]) -> None:
        """As Archive.put."""
        await self._run(lambda db: _put(db, callbacks))

    async def get(self, ids: Collection[Id], days: Collection[int] = ()) -> list[ArchivedCallback]:
        """As Archive.get. An index over all days finds them as fast."""
        return await self._run(lambda db: [one for some in _parts(ids) for one in _read(db, *_of(some))])

    async def digests(self, ids: Collection[Id]) -> dict[Id, str]:
        """As Archive.digests."""
        query = "SELECT workspace.name, callback.id, digest FROM callback JOIN workspace ON workspace.number = callback.workspace"

        def read(db: sqlite3.Connection) -> dict[Id, str]:
            conditions = map(_of, _parts(ids))
            rows = (row for where, of in conditions for row in db.execute(f"{query} {where}", of))
            return {(workspace, id_): digest for workspace, id_, digest in rows}

        return await self._run(read)

    async def of_message(self, workspace: str, message: str) -> list[ArchivedCallback]:
        """As Archive.of_message."""
        where = "WHERE workspace.name = ? AND message = ? ORDER BY accepted_ms, callback.id"
        return await self._run(lambda db: _read(db, where, [workspace, message]))

    async def ended(self, which: Which, after: After | None, look: int) -> Page:
        """As Archive.ended."""
        query, values = ends(which, after, look, FIELDS)
        return await self._run(lambda db: page(db.execute(query, values).fetchall(), look))

    async def remove(self, ids: Collection[Id]) -> int:
        """As Archive.remove."""

        return await self._run(lambda db: _remove(db, ids))

    async def erase(self, ids: Collection[Id], day: int) -> int:
        """As Archive.erase."""
        return await self._run(lambda db: _erase(db, ids, day))

    async def erased(self, ids: Collection[Id]) -> set[Id]:
        """As Archive.erased."""
        return await self._run(lambda db: _erased(db, ids))

    async def drop_days(self, before: int) -> int:
        """As Archive.drop_days. A transaction takes out only some, so that others can write in between."""
        await self._run(lambda db: db.execute("DELETE FROM erased WHERE day < ?", [before]))
        await self._drop(sqlite_messages.drop_some_keys, before)
        return await self._drop(sqlite_messages.drop_some, before) + await self._drop(_drop_some, before)

    async def _drop(self, drop_some: DropSome, before: int) -> int:
        dropped = 0
        while some := await self._run(lambda db: drop_some(db, before * DAY_MS, DROPPED_AT_ONCE)):
            dropped += some
        return dropped

    async def aclose(self) -> None:
        """As Archive.aclose."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def _run(self, do: Callable[[sqlite3.Connection], T]) -> T:
        """What `do` returns, within a transaction."""

        def call() -> T:
            with _translated(self._path):
                try:
                    with self._connected() as db:
                        return do(db)
                except sqlite3.DatabaseError as error:
                    if not isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                        self._close()  # the file may be another one when it is asked next
                    raise

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _connected(self) -> sqlite3.Connection:
        """A connection to the file that has this name now."""
        if self._connection and self._file != _file(self._path):
            self._close()
        if not self._connection:
            self._connection = _connect(self._path)
            self._file = _file(self._path)
        return self._connection

    def _close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None


def _file(path: Path) -> tuple[int, int] | None:
    """Tells a file from another one of its name; None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, BUSY_SECONDS, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KB}")
    return connection


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except NO_VALUE as error:
        raise InvalidInput(f"the archive cannot keep this: {error}") from error
    except sqlite3.Error as error:
        text = NO_TABLES if "no such table" in str(error) else str(error)
        raise ArchiveUnavailable(f"the archive {path} cannot be used: {text}") from error


def _version(db: sqlite3.Connection) -> int:
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'archive'").fetchone():
        return 0
    return known_version(int(db.execute("SELECT version FROM archive").fetchone()[0]), VERSION)


def _migrate(db: sqlite3.Connection) -> int:
    found = _version(db)
    if not found:
        db.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA} {VIEW} {SINCE_1} INSERT INTO archive VALUES ({VERSION}); COMMIT"
        )
    elif found < VERSION:
        db.executescript(f"BEGIN IMMEDIATE; {SINCE_1} UPDATE archive SET version = {VERSION}; COMMIT")
    return VERSION


def _put(db: sqlite3.Connection, callbacks: Sequence[ArchivedCallback]) -> None:
    for table, names in (
        ("workspace", {(one.workspace,) for one in callbacks}),
        ("endpoint", {(one.endpoint, one.endpoint_name) for one in callbacks}),
        ("event_type", {(one.event_type,) for one in callbacks}),
    ):
        columns = "id, name" if table == "endpoint" else "name"
        marks = "?, ?" if table == "endpoint" else "?"
        db.executemany(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})", sorted(names))
    gone = _erased(db, [one.key for one in callbacks])
    db.executemany(INSERT, [_values(one) for one in callbacks if one.key not in gone])


def _remove(db: sqlite3.Connection, ids: Collection[Id]) -> int:
    conditions = map(_of, _parts(ids))
    return sum(db.execute(f"DELETE FROM callback {where}", of).rowcount for where, of in conditions)


def _erase(db: sqlite3.Connection, ids: Collection[Id], day: int) -> int:
    names = sorted({(workspace,) for workspace, _ in ids})
    db.executemany("INSERT OR IGNORE INTO workspace (name) VALUES (?)", names)
    db.executemany(
        "INSERT OR IGNORE INTO erased VALUES ((SELECT number FROM workspace WHERE name = ?), ?, ?)",
        [(workspace, fingerprint(id_), day) for workspace, id_ in ids],
    )
    return _remove(db, ids)


def _erased(db: sqlite3.Connection, ids: Collection[Id]) -> set[Id]:
    found: set[Id] = set()
    for some in _parts(ids):
        of = {(workspace, fingerprint(id_)): (workspace, id_) for workspace, id_ in some}
        query = (
            f"SELECT column1, column2 FROM (VALUES {', '.join(['(?, ?)'] * len(of))})"
            " CROSS JOIN workspace ON name = column1 CROSS JOIN erased ON erased.workspace = number AND erased.id = column2"
        )
        found |= {of[row] for row in db.execute(query, [value for one in of for value in one])}
    return found


def _drop_some(db: sqlite3.Connection, before_ms: int, most: int) -> int:
    query = "DELETE FROM callback WHERE rowid IN (SELECT rowid FROM callback WHERE ended_ms < ? LIMIT ?)"
    return db.execute(query, [before_ms, most]).rowcount


def _values(one: ArchivedCallback) -> tuple[object, ...]:
    return tuple(getattr(one, name) for name in one.__struct_fields__)


def _parts(ids: Collection[Id]) -> Iterator[list[Id]]:
    left = iter(dict.fromkeys(ids))
    while some := list(islice(left, AT_ONCE)):
        yield some


def _of(ids: Sequence[Id]) -> tuple[str, list[str]]:
    """A condition that callbacks with these ids fulfil, and its values."""
    wanted = ", ".join(["(?, ?)"] * len(ids))
    condition = (
        "WHERE callback.rowid IN (SELECT kept.rowid"
        f" FROM (VALUES {wanted}) CROSS JOIN workspace ON workspace.name = column1"
        " CROSS JOIN callback AS kept ON kept.workspace = workspace.number AND kept.id = column2)"
    )
    return condition, [word for id_ in ids for word in id_]


def _read(db: sqlite3.Connection, condition: str, values: Sequence[object]) -> list[ArchivedCallback]:
    return [ArchivedCallback(*row) for row in db.execute(f"{SELECT} {condition}", values)]
