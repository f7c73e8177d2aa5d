"""Pages of what an archive in PostgreSQL has, latest first. A page costs about as much as it has rows, however many there are before it."""

from collections.abc import Collection
from typing import Any

from dispatcher.rules.outcomes import ENDS
from dispatcher.store.archive.archive import After
from dispatcher.store.archive.archived_callback import ArchivedCallback
from dispatcher.store.archive.postgres_days import time_of
from dispatcher.store.archive.postgres_rows import NAMES, OF_WORKSPACE, READ, read
from dispatcher.store.archive.postgres_schema import Connection

LATEST_FIRST = (
    'ORDER BY ended_at DESC, workspace.name COLLATE "C" DESC, callback.id COLLATE "C" DESC LIMIT %s'
)


async def page_of_workspaces(
    db: Connection,
    workspaces: Collection[str],
    state: str,
    between_ms: tuple[int, int],
    after: After | None,
    limit: int,
) -> list[ArchivedCallback]:
    """The latest of some workspaces: those of each workspace and state come from the index, in order, so that few are sorted."""
    where, values = _between(between_ms, after)
    query = (
        f"SELECT {READ} FROM dispatcher.workspace CROSS JOIN unnest(%s::text[]) AS ends (ended_as) CROSS JOIN LATERAL"
        " (SELECT * FROM dispatcher.callback WHERE callback.workspace = workspace.number AND callback.state = ends.ended_as"
        f' AND {where} ORDER BY ended_at DESC, callback.id COLLATE "C" DESC LIMIT %s) AS callback {NAMES}'
        f" WHERE workspace.name = ANY(%s) {LATEST_FIRST}"
    )
    states = [state] if state else sorted(ENDS)
    return await read(db, query, [states, *values, limit, list(workspaces), limit])


async def page_of_all(
    db: Connection, state: str, between_ms: tuple[int, int], after: After | None, limit: int
) -> list[ArchivedCallback]:
    """The latest of all workspaces: reads all that ended between the two times."""
    where, values = _between(between_ms, after)
    if state:
        where, values = f"{where} AND state = %s", [*values, state]
    query = f"SELECT {READ} FROM dispatcher.workspace {OF_WORKSPACE} {NAMES} WHERE {where} {LATEST_FIRST}"
    return await read(db, query, [*values, limit])


def _between(between_ms: tuple[int, int], after: After | None) -> tuple[str, list[Any]]:
    """A condition on when callbacks ended, and its values."""
    since_ms, until_ms = between_ms
    if not after:
        return "ended_at BETWEEN %s AND %s", [time_of(since_ms), time_of(until_ms)]
    condition = 'ended_at BETWEEN %s AND %s AND (ended_at, workspace.name COLLATE "C", callback.id COLLATE "C") < (%s, %s, %s)'
    last = time_of(after[0])
    return condition, [time_of(since_ms), min(time_of(until_ms), last), last, *after[1:]]
