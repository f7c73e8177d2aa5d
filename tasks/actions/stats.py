"""Counts of accepted and ended callbacks, and their latencies, as the documents that `stats --json` prints."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from dispatcher.model import iso
from dispatcher.store.endpoints import Endpoint
from dispatcher.store.holds import problem, problems
from dispatcher.store.members import Owners
from dispatcher.store.stats import WEEK_DAYS, WEEK_HOURS, Figures, total
from tasks import wiring

WINDOWS = {"this hour": 1, "24 h": 24, "7 d": WEEK_HOURS}
"""Windows in hours: the current one and the full ones before it."""
NOBODY = "*"
"""Stands for the workspace of entries that name none."""
SPARK_MINUTES = 60
SPANS = [60] * 23 + [1] * SPARK_MINUTES
"""A day in spans of minutes: its last hour minute by minute."""


async def overall(store: wiring.Store, workspace: str | None) -> dict[str, Any]:
    """Figures of this hour, 24 hours and 7 days, what waits now, and series over time; for one workspace or all."""
    now_ms = await store.installation.now_ms()
    queued, _ = await store.installation.waiting()
    endpoints = [e for e in await store.endpoints.all() if workspace in (None, e.workspace)]
    series = [] if workspace else await store.stats.sums(now_ms, SPANS)
    refused = {name: await _refused(store, now_ms, hours) for name, hours in WINDOWS.items()}
    return {
        "at": iso(now_ms),
        "now": {"queued": queued, **_now(endpoints)},
        **await _owners(store, now_ms),
        "windows": await _windows(store, now_ms, workspace),
        "apiRefused": {} if workspace else refused,
        "minutes": _rows(series[-SPARK_MINUTES:]),
        "hours": _rows([*series[:-SPARK_MINUTES], sum(series[-SPARK_MINUTES:], Counter())] if series else []),
    }


async def _owners(store: wiring.Store, now_ms: int) -> dict[str, Any]:
    """Who leads which partitions, if there are several, and what lies on the queue that none has."""
    if store.partitions == 1:
        return {}
    owners = Owners.read(await store.installation.workers(), store.partitions, now_ms)
    unread = await store.installation.unread()
    count = unread.count or (None if unread.problem else 0)
    shown = {"count": count, "oldestAt": iso(unread.oldest_ms) if unread.oldest_ms else None}
    return {"partitions": {"count": store.partitions, **owners.as_json(), "unread": shown}}


def _now(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """What waits now, and the endpoints' states and problems."""
    due = [e.oldest_due_ms for e in endpoints if e.oldest_due_ms is not None]
    return {
        "waiting": sum(e.waiting for e in endpoints),
        "inFlight": sum(e.in_flight for e in endpoints),
        "oldestDueAt": iso(min(due)) if due else None,
        "endpoints": Counter(e.state for e in endpoints),
        "problems": problems(endpoints),
    }


async def _windows(store: wiring.Store, now_ms: int, workspace: str | None) -> dict[str, Any]:
    """Sums over the current hour and the full ones before it, for each window."""
    found = await store.stats.windows(now_ms, list(WINDOWS.values()))
    return {
        window: total(figures for name, figures in by_name.items() if workspace in (None, name)).as_json()
        for window, by_name in zip(WINDOWS, found, strict=True)
    }


async def _refused(store: wiring.Store, now_ms: int, hours: int) -> dict[str, int]:
    """Refused API calls by reason."""
    counts: Counter[str] = Counter()
    for (reason, _), count in (await store.refusals.last(now_ms, hours)).items():
        counts[reason] += count
    return dict(sorted(counts.items()))


def _rows(spans: Sequence[Counter[str]]) -> dict[str, list[int]]:
    """The sums of spans of time, by kind of count; empty without spans."""
    if not spans:
        return {}
    return {name: [counts[name] for counts in spans] for name in ("accepted", "delivered", "failed")}


async def by_workspace(store: wiring.Store, workspace: str | None) -> list[dict[str, Any]]:
    """The last 24 hours of each workspace, those with the most failures first."""
    now_ms = await store.installation.now_ms()
    found = await store.stats.workspaces(now_ms, 24)
    waiting: Counter[str] = Counter()
    for endpoint in await store.endpoints.all():
        waiting[endpoint.workspace] += endpoint.waiting
    names = {*found, *(name for name, count in waiting.items() if count)} - {NOBODY}
    rows = [
        _row(name, found.get(name, Figures()), waiting[name]) for name in names if workspace in (None, name)
    ]
    return sorted(rows, key=lambda row: (-row["failed"] - row["expired"], row["workspace"]))


def _row(workspace: str, figures: Figures, waiting: int) -> dict[str, Any]:
    document = figures.as_json()
    kept = ("accepted", "delivered", "failed", "expired", "superseded", "successRate")
    return {
        "workspace": workspace,
        "waiting": waiting,
        **{name: document[name] for name in kept},
        **document["latencyMs"],
    }


async def by_endpoint(store: wiring.Store, workspace: str | None) -> list[dict[str, Any]]:
    """The last 7 days of each endpoint, those with the most failures first."""
    found = await store.stats.endpoints(await store.installation.now_ms(), WEEK_DAYS)

    def row(endpoint: Endpoint) -> dict[str, Any]:
        counts = found.get(endpoint.id, Counter())
        names = ("delivered", "failed", "expired", "superseded", "opened")
        known = endpoint.as_json()
        shown = {name: known[name] for name in ("workspace", "endpoint", "state", "waiting", "p95Ms")}
        shown |= {"subscription": endpoint.subscription} if endpoint.subscription else {}
        return shown | {name: counts[name] for name in names} | {"problem": problem(endpoint)}

    rows = [row(e) for e in await store.endpoints.all() if workspace in (None, e.workspace)]
    return sorted(rows, key=lambda row: (-row["failed"] - row["expired"], -row["waiting"]))
