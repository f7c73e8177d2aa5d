"""The query for a page of what has ended, for PostgreSQL.

Of one workspace it follows the index of workspace, state and time: from each state it takes no more than `look` rows. Of all it
follows the index of time.
"""

from datetime import datetime
from typing import Any

from dispatcher.store.archive.archive import STATES, After
from dispatcher.store.archive.which import Which

ROWS = """
FROM dispatcher.callback WHERE callback.workspace = {of}.number AND callback.state = {of}.state
AND ended_at BETWEEN %(since)s AND %(until)s {after}
"""
AFTER = 'AND (ended_at, {of}.name COLLATE "C", callback.id COLLATE "C") < (%(at)s, %(owner)s, %(one)s)'
ORDER = 'moment DESC, name COLLATE "C" DESC, id COLLATE "C" DESC'
LOOKED_AT_ALL = """
WITH looked AS (
    SELECT workspace.number, workspace.name, callback.id, ended_at AS moment FROM dispatcher.callback
    JOIN dispatcher.workspace ON workspace.number = callback.workspace
    WHERE ended_at BETWEEN %(since)s AND %(until)s AND state = ANY(%(states)s::text[]) {after}
    ORDER BY {order} LIMIT %(look)s
)"""
LOOKED_AT_ONE = """
WITH kind AS (
    SELECT number, name, state FROM dispatcher.workspace CROSS JOIN unnest(%(states)s::text[]) AS ends (state)
    WHERE workspace.name = %(workspace)s
), latest AS (
    SELECT kind.* FROM kind CROSS JOIN LATERAL (SELECT ended_at {rows_of_kind} ORDER BY ended_at DESC LIMIT 1) AS head
    ORDER BY ended_at DESC, name COLLATE "C" DESC LIMIT %(look)s + cardinality(%(states)s::text[])
), looked AS (
    SELECT number, name, id, ended_at AS moment FROM latest CROSS JOIN LATERAL
        (SELECT id, ended_at {rows_of_latest} ORDER BY ended_at DESC, id COLLATE "C" DESC LIMIT %(look)s) AS part
    ORDER BY {order} LIMIT %(look)s
)"""
QUERY = """
{looked}, numbered AS (SELECT *, row_number() OVER (ORDER BY {order}) AS place FROM looked)
SELECT {fields}, place, {matches} FROM numbered CROSS JOIN LATERAL (
    SELECT * FROM dispatcher.callback AS kept
    WHERE kept.workspace = numbered.number AND kept.id = numbered.id AND kept.ended_at = numbered.moment LIMIT 1
) AS callback
JOIN dispatcher.workspace ON workspace.number = callback.workspace
JOIN dispatcher.endpoint ON endpoint.number = callback.endpoint
JOIN dispatcher.event_type ON event_type.number = callback.event_type
WHERE {matches} OR place = %(look)s ORDER BY place
"""


def ends(
    which: Which, after: After | None, look: int, fields: str, since: datetime, until: datetime
) -> tuple[str, dict[str, Any]]:
    """The query and its values: those of the next `look` rows that match, and the last of these rows. Each has its place and whether it matches.

    `since` and `until` are the times between which all of them ended; until: of `after`, if that is earlier
    """
    if which.workspace:
        looked = LOOKED_AT_ONE.format(
            rows_of_kind=_rows("kind", after), rows_of_latest=_rows("latest", after), order=ORDER
        )
    else:
        looked = LOOKED_AT_ALL.format(after=AFTER.format(of="workspace") if after else "", order=ORDER)
    query = QUERY.format(looked=looked, order=ORDER, fields=fields, matches=_matches(which))
    values = {
        "workspace": which.workspace, "states": list(which.states or STATES), "since": since, "until": until, "look": look,
        "origin": which.origin, "subscription": which.subscription, "error": which.error,
    }  # fmt: skip
    return query, values | (
        dict(zip(("at", "owner", "one"), (until, *after[1:]), strict=True)) if after else {}
    )


def _rows(of: str, after: After | None) -> str:
    return ROWS.format(of=of, after=AFTER.format(of=of) if after else "")


def _matches(which: Which) -> str:
    conditions = ["true"]
    if which.origin:
        conditions.append("split_part(endpoint.name, ' ', 2) = %(origin)s")
    if which.subscription is not None:
        conditions.append("split_part(callback.id, '.', 2) = %(subscription)s")
    if which.error:
        conditions.append("error = %(error)s")
    return f"({' AND '.join(conditions)})"
