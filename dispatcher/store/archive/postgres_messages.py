"""The messages of an archive in PostgreSQL.

A message is in the partition of the day on which it was over. So it cannot be unique by its uuid alone: one that is told again
within a day takes the place of what is there, and one that comes later has a row more (archived_message.whole). Texts are written as
postgres_nul.py says.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace
from psycopg.errors import UniqueViolation

from dispatcher.errors import InvalidInput
from dispatcher.store.archive.archived_message import ArchivedMessage, together, whole
from dispatcher.store.archive.messages import Counted, Place, Wanted, counted
from dispatcher.store.archive.postgres_days import time_of
from dispatcher.store.archive.postgres_erased import remember_erased, without_erased
from dispatcher.store.archive.postgres_nul import MARK, escaped, escaped_list, unescaped, unescaped_list
from dispatcher.store.archive.postgres_rows import copy
from dispatcher.store.archive.postgres_schema import Connection
from dispatcher.store.fingerprints import id_of_message

T = TypeVar("T")

DAY_MS = 86_400_000
OTHERS = tuple(
    name for name in ArchivedMessage.__struct_fields__ if name not in ("workspace", "kept_ms", "sent_ms", "changed_ms")
)  # fmt: skip
COLUMNS = ", ".join(("kept_at", "sent_ms", "changed_ms", "workspace", *OTHERS))
TYPES = ("timestamptz", "int8", "int8", "int4", *["text"] * len(OTHERS))
KEY_COLUMNS = "kept_at, sent_ms, workspace, key, uuid"
KEY_TYPES = ("timestamptz", "int8", "int4", "text", "text")
_READ = {
    "workspace": "workspace.name",
    "kept_ms": "(extract(epoch FROM message.kept_at) * 1000)::bigint",
}
READ = ", ".join(_READ.get(name, f"message.{name}") for name in ArchivedMessage.__struct_fields__)
FROM = "FROM dispatcher.message JOIN dispatcher.workspace ON workspace.number = message.workspace"
WANTED = "unnest(%s::int[], %s::text[]) AS wanted (workspace, uuid)"
FOUND = f"""
SELECT {READ} FROM {WANTED} CROSS JOIN LATERAL (
    SELECT * FROM dispatcher.message AS kept
    WHERE kept.workspace = wanted.workspace AND kept.uuid = wanted.uuid AND kept_at >= %s LIMIT 100
) AS message JOIN dispatcher.workspace ON workspace.number = message.workspace
"""
"""With the limit it looks for each by the index, whatever the planner knows of the table; so does the next one."""
LISTED = """
SELECT {read} FROM (
    SELECT key_of.* FROM dispatcher.message_key AS key_of
    WHERE key_of.workspace = (SELECT number FROM dispatcher.workspace WHERE name = %s) AND key_of.key = %s AND key_of.sent_ms BETWEEN %s AND %s {after}
    ORDER BY key_of.sent_ms {order}, key_of.uuid {order} LIMIT %s OFFSET %s
) AS listed CROSS JOIN LATERAL (
    SELECT * FROM dispatcher.message AS kept
    WHERE kept.workspace = listed.workspace AND kept.uuid = listed.uuid AND kept.kept_at = listed.kept_at LIMIT 1
) AS message
JOIN dispatcher.workspace ON workspace.number = message.workspace
ORDER BY listed.sent_ms {order}, listed.uuid {order}
"""
CAMPAIGN = """
SELECT message.status, count(*), min(message.sent_ms) FROM dispatcher.message_key
JOIN dispatcher.message USING (workspace, uuid, kept_at) JOIN dispatcher.workspace ON workspace.number = message.workspace
WHERE workspace.name = %s AND key = %s GROUP BY message.status
"""


class Run(Protocol):
    """Runs a function within a transaction of its own."""

    def __call__(self, do: Callable[[Connection], Awaitable[T]], /) -> Awaitable[T]:
        """What it returns."""


Prepare = Callable[[Connection, Sequence[ArchivedMessage]], Awaitable[Mapping[str, int]]]
"""Makes what the rows of messages refer to; returns the numbers of their workspaces."""


class PostgresMessages:
    """The messages of the server that `run` works on."""

    def __init__(self, run: Run, prepare: Prepare) -> None:
        self._run = run
        self._prepare = prepare

    async def put(self, messages: Sequence[ArchivedMessage]) -> None:
        """As ArchivedMessages.put."""
        if not messages:
            return
        try:
            await self._run(lambda db: self._put(db, messages))
        except UniqueViolation:  # another one has put them meanwhile: now they are found
            await self._run(lambda db: self._put(db, messages))

    async def get(self, workspace: str, uuids: Collection[str]) -> list[ArchivedMessage]:
        """As ArchivedMessages.get."""
        query = f"SELECT {READ} {FROM} WHERE workspace.name = %s AND uuid = ANY(%s::text[])"

        async def find(some: Sequence[str]) -> list[ArchivedMessage]:
            return await self._run(lambda db: _read(db, query, [workspace, some]))

        return [one for found in await _of_each(find, [*map(escaped, uuids)]) for one in found]

    async def listed(
        self, wanted: Wanted, after: Place | None, count: int, skip: int = 0
    ) -> list[ArchivedMessage]:
        """As ArchivedMessages.listed."""
        order, sign = ("DESC", "<") if wanted.latest_first else ("ASC", ">")
        where = f"AND (key_of.sent_ms, key_of.uuid) {sign} (%s, %s)" if after else ""
        query = LISTED.format(read=READ, after=where, order=order)

        async def find(some: Sequence[str]) -> list[ArchivedMessage]:
            of = [wanted.workspace, *some, wanted.from_ms, wanted.to_ms, *(after or ()), count, skip]
            return await self._run(lambda db: _read(db, query, of))

        return [one for found in await _of_each(find, [escaped(wanted.key)]) for one in found]

    async def latest(self, workspace: str, keys: Collection[str]) -> dict[str, list[str]]:
        """As ArchivedMessages.latest."""
        query = (
            "SELECT key, uuid FROM dispatcher.message_key JOIN dispatcher.workspace ON workspace.number = message_key.workspace"
            " WHERE workspace.name = %s AND key = ANY(%s::text[]) ORDER BY kept_at DESC, uuid DESC"
        )

        async def find(some: Sequence[str]) -> list[tuple[str, str]]:
            async def run(db: Connection) -> list[tuple[str, str]]:
                return [
                    (key, uuid) for key, uuid in await (await db.execute(query, [workspace, some])).fetchall()
                ]

            return await self._run(run)

        found: dict[str, list[str]] = {}
        for rows in await _of_each(find, [*map(escaped, keys)]):
            for key, uuid in rows:
                found.setdefault(unescaped(key), []).append(uuid)
        return found

    async def campaign(self, workspace: str, campaign: str) -> Counted | None:
        """As ArchivedMessages.campaign."""

        async def find(some: Sequence[str]) -> Counted | None:
            async def run(db: Connection) -> Counted | None:
                found = await db.execute(CAMPAIGN, [workspace, *some])
                return counted(await found.fetchall())

            return await self._run(run)

        found = await _of_each(find, [escaped(f"campaign:{campaign}")])
        return found[0] if found else None

    async def erase(self, workspace: str, uuids: Collection[str], day: int) -> int:
        """As ArchivedMessages.erase."""

        async def run(db: Connection) -> int:
            await remember_erased(db, [(workspace, id_of_message(uuid)) for uuid in uuids], day)
            number = "workspace = (SELECT number FROM dispatcher.workspace WHERE name = %s)"
            where = f"WHERE {number} AND uuid = ANY(%s::text[])"
            found = await db.execute(
                f"DELETE FROM dispatcher.message {where} RETURNING uuid, keys, sent_ms", [workspace, [*uuids]]
            )
            rows = await found.fetchall()
            await _drop_keys(db, workspace, rows)
            return len({uuid for uuid, *_ in rows})

        return await self._run(run)

    async def count(self, workspace: str) -> int:
        """As ArchivedMessages.count."""
        query = f"SELECT count(DISTINCT uuid) {FROM} WHERE workspace.name = %s"

        async def run(db: Connection) -> int:
            row = await (await db.execute(query, [workspace])).fetchone()
            return int(row[0]) if row else 0

        return await self._run(run)

    async def some(self, workspace: str, count: int) -> list[str]:
        """As ArchivedMessages.some."""
        query = f"SELECT uuid {FROM} WHERE workspace.name = %s LIMIT %s"

        async def run(db: Connection) -> list[str]:
            return [uuid for (uuid,) in await (await db.execute(query, [workspace, count])).fetchall()]

        return await self._run(run)

    async def _put(self, db: Connection, messages: Sequence[ArchivedMessage]) -> None:
        numbers = await self._prepare(db, messages)
        told = {(one.workspace, id_of_message(one.uuid)): one for one in _each(messages)}
        left = await without_erased(db, told)
        known = await _take_out(db, left, numbers)
        rows = [together([*known.get((one.workspace, one.uuid), ()), one]) for one in left]
        await copy(
            db, "dispatcher.message", COLUMNS, TYPES, [_row(one, numbers[one.workspace]) for one in rows]
        )
        keys = [
            (time_of(one.kept_ms), one.sent_ms, numbers[one.workspace], escaped(key), one.uuid)
            for one in rows
            for key in one.look_ups()
        ]
        await copy(db, "dispatcher.message_key", KEY_COLUMNS, KEY_TYPES, keys)


async def _take_out(
    db: Connection, messages: Sequence[ArchivedMessage], numbers: Mapping[str, int]
) -> dict[tuple[str, str], list[ArchivedMessage]]:
    """What there is of messages since the day before they were over: takes it out, and returns it."""
    if not messages:
        return {}
    since = time_of(min(one.kept_ms for one in messages) - DAY_MS)
    of = [[numbers[one.workspace] for one in messages], [one.uuid for one in messages], since]
    rows = await _read(db, FOUND, of)
    if not rows:
        return {}
    await db.execute(
        f"DELETE FROM dispatcher.message USING {WANTED}"
        " WHERE message.workspace = wanted.workspace AND message.uuid = wanted.uuid AND kept_at >= %s",
        of,
    )
    found: dict[tuple[str, str], list[ArchivedMessage]] = {}
    for one in rows:
        found.setdefault((one.workspace, one.uuid), []).append(one)
    for workspace in sorted({one.workspace for one in rows}):
        gone = [(one.uuid, escaped_list(one.keys), one.sent_ms) for one in rows if one.workspace == workspace]
        await _drop_keys(db, workspace, gone, since)
    return found


async def _of_each(find: Callable[[Sequence[str]], Awaitable[T]], texts: Sequence[str]) -> list[T]:
    """What `find` returns for texts, in one or several parts; nothing for what the database's encoding does not have."""
    if not texts:
        return []
    try:
        return [await find(texts)]
    except InvalidInput:
        if len(texts) == 1:
            return []
    half = len(texts) // 2
    return [*await _of_each(find, texts[:half]), *await _of_each(find, texts[half:])]


def _each(messages: Sequence[ArchivedMessage]) -> list[ArchivedMessage]:
    workspaces = dict.fromkeys(one.workspace for one in messages)
    return [
        row
        for workspace in workspaces
        for row in whole(one for one in messages if one.workspace == workspace).values()
    ]


def _row(one: ArchivedMessage, workspace: int) -> tuple[object, ...]:
    others = (escaped_list(one.keys) if name == "keys" else escaped(getattr(one, name)) for name in OTHERS)
    return time_of(one.kept_ms), one.sent_ms, one.changed_ms, workspace, *others


async def _read(db: Connection, query: str, values: Sequence[object]) -> list[ArchivedMessage]:
    return [_message(row) for row in await (await db.execute(query, values)).fetchall()]


def _message(row: Sequence[Any]) -> ArchivedMessage:
    found = ArchivedMessage(*row)
    if not any(isinstance(one, str) and MARK in one for one in row):
        return found
    texts = {name: unescaped(getattr(found, name)) for name in OTHERS if name != "keys"}
    return replace(found, keys=unescaped_list(found.keys), **texts)


async def _drop_keys(
    db: Connection, workspace: str, rows: Sequence[tuple[str, str, int]], since: Any = None
) -> None:
    """Takes out what messages are looked up by: of each its uuid, its keys and when it was sent."""
    await db.execute(
        "DELETE FROM dispatcher.message_key USING (SELECT uuid, sent_ms, jsonb_array_elements_text(keys::jsonb) AS key"
        " FROM unnest(%s::text[], %s::bigint[], %s::text[]) AS told (uuid, sent_ms, keys)) AS gone"
        " WHERE message_key.workspace = (SELECT number FROM dispatcher.workspace WHERE name = %s)"
        " AND message_key.key = gone.key AND message_key.sent_ms = gone.sent_ms AND message_key.uuid = gone.uuid"
        " AND kept_at >= coalesce(%s::timestamptz, '-infinity')",
        [[uuid for uuid, *_ in rows], [sent for *_, sent in rows], [keys for _, keys, _ in rows], workspace, since],
    )  # fmt: skip
