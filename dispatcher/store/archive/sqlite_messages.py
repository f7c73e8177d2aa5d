"""The messages of an archive in SQLite."""

import sqlite3
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from dispatcher.store.archive.archive import STATUS
from dispatcher.store.archive.archived_message import ArchivedMessage, together
from dispatcher.store.archive.erased import fingerprint
from dispatcher.store.archive.messages import Counted, Wanted, counted
from dispatcher.store.archive.messages import Place as EndOfPage
from dispatcher.store.fingerprints import id_of_message

T = TypeVar("T")
Place = tuple[int, str]
"""The number of a workspace, and a message."""

AT_ONCE = 400
"""Values in one query; older versions of SQLite take 999."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    workspace INTEGER NOT NULL REFERENCES workspace,
    uuid TEXT NOT NULL,
    kept_ms INTEGER NOT NULL,
    sent_ms INTEGER NOT NULL,
    status TEXT NOT NULL,
    changed_ms INTEGER NOT NULL,
    history TEXT NOT NULL,
    campaign TEXT NOT NULL,
    keys TEXT NOT NULL,
    names TEXT NOT NULL,
    src TEXT NOT NULL,
    dest TEXT NOT NULL,
    channel TEXT NOT NULL,
    segments TEXT NOT NULL,
    units TEXT NOT NULL,
    attempts TEXT NOT NULL,
    cost TEXT NOT NULL,
    currency TEXT NOT NULL,
    customer_message_id TEXT NOT NULL,
    network TEXT NOT NULL,
    total_parts TEXT NOT NULL,
    reference TEXT NOT NULL,
    provider TEXT NOT NULL,
    error_code TEXT NOT NULL,
    error_message TEXT NOT NULL,
    UNIQUE (workspace, uuid)
);
CREATE INDEX IF NOT EXISTS message_kept ON message (kept_ms);
CREATE TABLE IF NOT EXISTS message_key (
    workspace INTEGER NOT NULL REFERENCES workspace,
    key TEXT NOT NULL,
    sent_ms INTEGER NOT NULL,
    uuid TEXT NOT NULL,
    kept_ms INTEGER NOT NULL,
    PRIMARY KEY (workspace, key, sent_ms, uuid)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS message_key_kept ON message_key (kept_ms);
"""
"""Since version 3."""


def _number(column: str) -> str:
    return f"CAST(nullif({column}, '') AS INTEGER)"


def _time(column: str) -> str:
    return f"strftime('%Y-%m-%d %H:%M:%f', {column} / 1000.0, 'unixepoch')"


VIEW = f"""
CREATE VIEW IF NOT EXISTS messages AS
SELECT workspace.name AS workspace, uuid AS message_id, nullif(customer_message_id, '') AS customer_message_id,
    channel, src, dest, {STATUS} AS status, {_time("sent_ms")} AS sent_at, {_time("changed_ms")} AS changed_at,
    (changed_ms - sent_ms) / 1000.0 AS seconds, {_number("segments")} AS segments, {_number("units")} AS units,
    CAST(nullif(cost, '') AS REAL) AS cost, nullif(currency, '') AS currency, nullif(network, '') AS network,
    nullif(campaign, '') AS campaign, nullif(reference, '') AS reference, nullif(error_code, '') AS error_code
FROM message JOIN workspace ON workspace.number = message.workspace;
"""
COLUMNS = ", ".join(f"message.{name}" for name in ArchivedMessage.__struct_fields__[1:])
FIELDS = f"workspace.name, {COLUMNS}"
FROM = "FROM message JOIN workspace ON workspace.number = message.workspace"
NUMBER = "(SELECT number FROM workspace WHERE name = ?)"
PUT = f"INSERT OR REPLACE INTO message VALUES (?{', ?' * (len(ArchivedMessage.__struct_fields__) - 1)})"
PUT_KEY = "INSERT OR REPLACE INTO message_key VALUES (?, ?, ?, ?, ?)"
DROP_KEY = "DELETE FROM message_key WHERE workspace = ? AND key = ? AND sent_ms = ? AND uuid = ?"
LISTED = """
SELECT workspace.name, {columns} FROM (
    SELECT key_of.workspace, key_of.uuid, key_of.sent_ms FROM message_key AS key_of
    WHERE key_of.workspace = (SELECT number FROM workspace WHERE name = ?) AND key_of.key = ?
        AND key_of.sent_ms BETWEEN ? AND ? {after}
    ORDER BY key_of.sent_ms {order}, key_of.uuid {order} LIMIT ? OFFSET ?
) AS listed JOIN message ON message.workspace = listed.workspace AND message.uuid = listed.uuid
JOIN workspace ON workspace.number = message.workspace
ORDER BY listed.sent_ms {order}, listed.uuid {order}
"""


class Run(Protocol):
    """Runs a function within a transaction of its own."""

    def __call__(self, do: Callable[[sqlite3.Connection], T], /) -> Awaitable[T]:
        """What it returns."""


class SqliteMessages:
    """The messages in the file that `run` works on."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def put(self, messages: Sequence[ArchivedMessage]) -> None:
        """As ArchivedMessages.put."""
        await self._run(lambda db: _put(db, messages))

    async def get(self, workspace: str, uuids: Collection[str]) -> list[ArchivedMessage]:
        """As ArchivedMessages.get."""
        return await self._run(lambda db: _get(db, workspace, uuids))

    async def listed(
        self, wanted: Wanted, after: EndOfPage | None, count: int, skip: int = 0
    ) -> list[ArchivedMessage]:
        """As ArchivedMessages.listed."""
        order, sign = ("DESC", "<") if wanted.latest_first else ("ASC", ">")
        where = f"AND (key_of.sent_ms, key_of.uuid) {sign} (?, ?)" if after else ""
        query = LISTED.format(columns=COLUMNS, after=where, order=order)
        of = [wanted.workspace, wanted.key, wanted.from_ms, wanted.to_ms, *(after or ()), count, skip]
        return await self._run(lambda db: [ArchivedMessage(*row) for row in db.execute(query, of)])

    async def latest(self, workspace: str, keys: Collection[str]) -> dict[str, list[str]]:
        """As ArchivedMessages.latest."""

        def read(db: sqlite3.Connection) -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for some in _parts(keys):
                query = (
                    f"SELECT key, uuid FROM message_key WHERE workspace = {NUMBER} AND key IN ({_marks(some)})"
                    " ORDER BY kept_ms DESC, uuid DESC"
                )
                for key, uuid in db.execute(query, [workspace, *some]):
                    found.setdefault(key, []).append(uuid)
            return found

        return await self._run(read)

    async def campaign(self, workspace: str, campaign: str) -> Counted | None:
        """As ArchivedMessages.campaign."""
        query = (
            "SELECT status, count(*), min(message.sent_ms) FROM message_key JOIN message USING (workspace, uuid)"
            f" WHERE message_key.workspace = {NUMBER} AND key = ? GROUP BY status"
        )
        rows = await self._run(lambda db: db.execute(query, [workspace, f"campaign:{campaign}"]).fetchall())
        return counted(rows)

    async def erase(self, workspace: str, uuids: Collection[str], day: int) -> int:
        """As ArchivedMessages.erase."""
        return await self._run(lambda db: _erase(db, workspace, uuids, day))

    async def count(self, workspace: str) -> int:
        """As ArchivedMessages.count."""
        query = f"SELECT count(*) FROM message WHERE workspace = {NUMBER}"
        return await self._run(lambda db: int(db.execute(query, [workspace]).fetchone()[0]))

    async def some(self, workspace: str, count: int) -> list[str]:
        """As ArchivedMessages.some."""
        query = f"SELECT uuid FROM message WHERE workspace = {NUMBER} LIMIT ?"
        return await self._run(lambda db: [uuid for (uuid,) in db.execute(query, [workspace, count])])


def drop_some_keys(db: sqlite3.Connection, before_ms: int, most: int) -> int:
    """Forgets at most so many keys of messages that were kept before a time; returns how many.

    Each is named whole: in one statement SQLite would look for them among all keys of their workspace.
    """
    query = "SELECT workspace, key, sent_ms, uuid FROM message_key WHERE kept_ms < ? LIMIT ?"
    rows = db.execute(query, [before_ms, most]).fetchall()
    db.executemany(DROP_KEY, rows)
    return len(rows)


def drop_some(db: sqlite3.Connection, before_ms: int, most: int) -> int:
    """The same for messages."""
    query = "DELETE FROM message WHERE rowid IN (SELECT rowid FROM message WHERE kept_ms < ? LIMIT ?)"
    return db.execute(query, [before_ms, most]).rowcount


def _put(db: sqlite3.Connection, messages: Sequence[ArchivedMessage]) -> None:
    names = sorted({one.workspace for one in messages})
    db.executemany("INSERT OR IGNORE INTO workspace (name) VALUES (?)", [(name,) for name in names])
    numbers = {name: number for number, name in db.execute("SELECT number, name FROM workspace")}
    told: dict[Place, list[ArchivedMessage]] = {}
    for one in messages:
        told.setdefault((numbers[one.workspace], one.uuid), []).append(one)
    for place in _erased(db, told):
        del told[place]
    for place, known in _known(db, told).items():
        told[place].insert(0, known)
        db.executemany(DROP_KEY, _keys(place[0], known))
    rows = {place: together(some) for place, some in told.items()}
    db.executemany(PUT, [(number, *_values(one)) for (number, _), one in rows.items()])
    db.executemany(
        PUT_KEY, [(*key, one.kept_ms) for (number, _), one in rows.items() for key in _keys(number, one)]
    )


def _values(message: ArchivedMessage) -> Iterator[object]:
    return (getattr(message, name) for name in message.__struct_fields__[1:])


def _known(db: sqlite3.Connection, places: Iterable[Place]) -> dict[Place, ArchivedMessage]:
    """What is there of messages."""
    found: dict[Place, ArchivedMessage] = {}
    for some in _parts(places):
        query = (
            f"SELECT message.workspace, {FIELDS} FROM (VALUES {_pairs(some)})"
            " CROSS JOIN message ON message.workspace = column1 AND message.uuid = column2"
            " CROSS JOIN workspace ON workspace.number = message.workspace"
        )
        rows = db.execute(query, [value for place in some for value in place])
        found |= {(number, one.uuid): one for number, *row in rows for one in [ArchivedMessage(*row)]}
    return found


def _erased(db: sqlite3.Connection, places: Iterable[Place]) -> set[Place]:
    """Those of the messages that were erased."""
    found: set[Place] = set()
    for some in _parts(places):
        of = {(number, fingerprint(id_of_message(uuid))): (number, uuid) for number, uuid in some}
        query = (
            f"SELECT workspace, id FROM (VALUES {_pairs(some)})"
            " CROSS JOIN erased ON erased.workspace = column1 AND erased.id = column2"
        )
        found |= {of[row] for row in db.execute(query, [value for one in of for value in one])}
    return found


def _keys(number: int, message: ArchivedMessage) -> Iterator[tuple[int, str, int, str]]:
    for key in message.look_ups():
        yield number, key, message.sent_ms, message.uuid


def _get(db: sqlite3.Connection, workspace: str, uuids: Collection[str]) -> list[ArchivedMessage]:
    found: list[ArchivedMessage] = []
    for some in _parts(uuids):
        where = f"WHERE message.workspace = {NUMBER} AND uuid IN ({_marks(some)})"
        found += [
            ArchivedMessage(*row) for row in db.execute(f"SELECT {FIELDS} {FROM} {where}", [workspace, *some])
        ]
    return found


def _erase(db: sqlite3.Connection, workspace: str, uuids: Collection[str], day: int) -> int:
    db.execute("INSERT OR IGNORE INTO workspace (name) VALUES (?)", [workspace])
    number = int(db.execute("SELECT number FROM workspace WHERE name = ?", [workspace]).fetchone()[0])
    places = [(number, uuid) for uuid in uuids]
    db.executemany(
        "INSERT OR IGNORE INTO erased VALUES (?, ?, ?)",
        [(number, fingerprint(id_of_message(uuid)), day) for uuid in uuids],
    )
    known = _known(db, places)
    for one in known.values():
        db.executemany(DROP_KEY, _keys(number, one))
    db.executemany("DELETE FROM message WHERE workspace = ? AND uuid = ?", places)
    return len(known)


def _parts(values: Iterable[T]) -> Iterator[list[T]]:
    left = iter(dict.fromkeys(values))
    while some := list(islice(left, AT_ONCE)):
        yield some


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _pairs(values: Sequence[object]) -> str:
    return ", ".join(["(?, ?)"] * len(values))
