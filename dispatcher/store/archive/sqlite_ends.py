"""The query for a page of what has ended, for SQLite.

Both forms follow an index in the order of the list and stop after `look` rows: of a workspace, one for each state; of all, by time.
"""

from collections.abc import Sequence
from typing import Any

from dispatcher.store.archive.archive import STATES, After
from dispatcher.store.archive.which import Which

ORDER = "ORDER BY at_ms DESC, owner DESC, one DESC LIMIT ?"
STATE = """
SELECT * FROM (SELECT rowid AS number, ended_ms AS at_ms, ? AS owner, id AS one FROM callback
WHERE workspace = (SELECT number FROM workspace WHERE name = ?) AND state = ? AND ended_ms BETWEEN ? AND ?
{after} ORDER BY ended_ms DESC, id DESC LIMIT ?)
"""
ALL = """
SELECT callback.rowid AS number, ended_ms AS at_ms, workspace.name AS owner, id AS one
FROM callback CROSS JOIN workspace ON workspace.number = callback.workspace WHERE ended_ms BETWEEN ? AND ? {after}
"""
QUERY = """
WITH looked AS ({rows} {order}), numbered AS (SELECT *, row_number() OVER (ORDER BY at_ms DESC, owner DESC, one DESC) AS place FROM looked)
SELECT {fields}, place, {matches} FROM numbered CROSS JOIN callback ON callback.rowid = numbered.number
JOIN workspace ON workspace.number = callback.workspace
JOIN endpoint ON endpoint.number = callback.endpoint
JOIN event_type ON event_type.number = callback.event_type
WHERE {matches} OR place = ? ORDER BY place
"""


def ends(which: Which, after: After | None, look: int, fields: str) -> tuple[str, list[Any]]:
    """The query and its values: those of the next `look` rows that match, and the last of these rows. Each has its place and whether it matches."""
    until_ms = min(which.until_ms, after[0]) if after else which.until_ms
    beyond = list(after or ())
    states = which.states or STATES
    if which.workspace:
        of_state = STATE.format(after="AND (ended_ms, ?, id) < (?, ?, ?)" if after else "")
        rows = "UNION ALL".join([of_state] * len(states))
        values = [
            value
            for state in states
            for value in (
                which.workspace, which.workspace, state, which.since_ms, until_ms,
                *([which.workspace, *beyond] if after else []), look,
            )
        ]  # fmt: skip
    else:
        rows = ALL.format(after="AND (ended_ms, workspace.name, id) < (?, ?, ?)" if after else "")
        values = [which.since_ms, until_ms, *beyond]
    matches, of = _matches(which, states)
    query = QUERY.format(rows=rows, order=ORDER, fields=fields, matches=matches)
    return query, [*values, look, *of, *of, look]


def _matches(which: Which, states: Sequence[str]) -> tuple[str, list[str]]:
    conditions, values = [f"state IN ({', '.join('?' * len(states))})"], list(states)
    if which.origin:
        conditions.append("substr(endpoint.name, instr(endpoint.name, ' ') + 1) = ?")
        values.append(which.origin)
    if which.subscription is not None:
        conditions.append("substr(callback.id, instr(callback.id || '.', '.') + 1) = ?")
        values.append(which.subscription)
    if which.error:
        conditions.append("error = ?")
        values.append(which.error)
    return f"({' AND '.join(conditions)})", values
