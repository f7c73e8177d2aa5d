"""What was erased from an archive in PostgreSQL. Each function is part of its caller's transaction."""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from dispatcher.store.archive.archived_callback import Id
from dispatcher.store.archive.erased import fingerprint
from dispatcher.store.archive.postgres_schema import Connection

T = TypeVar("T")

LOCK = 0x64697371
"""The advisory lock of whoever erases; those who put callbacks share it."""
WANTED = "unnest(%s::text[], %s::text[], %s::bigint[]) AS wanted (workspace, id, fingerprint)"
FOUND = f"{WANTED} JOIN dispatcher.workspace ON workspace.name = wanted.workspace"


async def remember_erased(db: Connection, ids: Collection[Id], day: int) -> None:
    """Keeps the fingerprints of what is erased; until the transaction ends nothing is put."""
    await db.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    await db.execute(
        "INSERT INTO dispatcher.workspace (name) SELECT DISTINCT unnest(%s::text[]) ON CONFLICT DO NOTHING",
        [[workspace for workspace, _ in ids]],
    )
    await db.execute(
        "INSERT INTO dispatcher.erased (workspace, id, day)"
        f" SELECT DISTINCT workspace.number, wanted.fingerprint, %s::int FROM {FOUND} ON CONFLICT DO NOTHING",
        [day, *_columns(ids)],
    )


async def erase(db: Connection, ids: Collection[Id], day: int) -> int:
    """As Archive.erase."""
    await remember_erased(db, ids, day)
    deleted = await db.execute(
        f"DELETE FROM dispatcher.callback USING {FOUND} WHERE callback.workspace = workspace.number AND callback.id = wanted.id",
        _columns(ids),
    )
    return deleted.rowcount


async def erased(db: Connection, ids: Collection[Id]) -> set[Id]:
    """As Archive.erased."""
    found = await db.execute(
        f"SELECT wanted.workspace, wanted.id FROM {FOUND} JOIN dispatcher.erased"
        " ON erased.workspace = workspace.number AND erased.id = wanted.fingerprint",
        _columns(ids),
    )
    return {(workspace, id_) for workspace, id_ in await found.fetchall()}


async def without_erased(db: Connection, rows: Mapping[Id, T]) -> list[T]:
    """The rows whose ids were not erased; until the transaction ends none of them is."""
    await db.execute("SELECT pg_advisory_xact_lock_shared(%s)", [LOCK])
    gone = await erased(db, rows.keys())
    return [row for id_, row in rows.items() if id_ not in gone]


async def forget(db: Connection, before: int) -> None:
    """Forgets what was erased before a day."""
    await db.execute("DELETE FROM dispatcher.erased WHERE day < %s", [before])


def _columns(ids: Collection[Id]) -> list[Any]:
    known = list(dict.fromkeys(ids))
    return [
        [workspace for workspace, _ in known],
        [id_ for _, id_ in known],
        [fingerprint(id_) for _, id_ in known],
    ]
