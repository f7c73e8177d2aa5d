"""`dispatcher stats`: what was accepted, what became of it, and how long it took."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from dispatcher.model import iso
from dispatcher.store.endpoints import Endpoint
from dispatcher.store.holds import problem, problems
from dispatcher.store.refusals import REASONS
from dispatcher.store.stats import WEEK_DAYS, WEEK_HOURS, Figures, total
from tasks import console, tables, wiring

WINDOWS = {"this hour": 1, "24 h": 24, "7 d": WEEK_HOURS}
"""Full hours and the one that runs."""
AVERAGE = "averageSecondsToDelivered"
NOBODY = "*"
"""Whose entries are that name no workspace."""
BARS = "▁▂▃▄▅▆▇█"
SPARK_MINUTES = 60


def stats(
    workspace: Annotated[str | None, typer.Option(help="Of this workspace only.", show_default=False)] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="workspace: the last 24 h of each; endpoint: the last 7 days of each.", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="With --by: how many, those with the most failures first.")
    ] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what was accepted, delivered and given up: this hour, 24 hours, 7 days; and what waits now.

    Latency is the time from acceptance to delivery, give or take 10 %.

    Examples:

      dispatcher stats --workspace acme

      dispatcher stats --by endpoint --limit 10
    """
    settings = console.settings()
    if by not in (None, "workspace", "endpoint"):
        console.fail(f"--by is workspace or endpoint, not {by!r}", console.USAGE)

    async def work() -> Any:
        async with wiring.store(settings) as store:
            if workspace:
                await store.workspaces.require(workspace)
            if by == "workspace":
                return await _by_workspace(store, workspace)
            if by == "endpoint":
                return await _by_endpoint(store, workspace)
            return await _overall(store, workspace)

    found = console.run(work())
    if by:
        found = found[:limit]
        if as_json:
            console.print_json(found)
        else:
            columns = list(found[0]) if found else []
            console.print_table(columns, [list(row.values()) for row in found], "nothing happened yet")
    elif as_json:
        console.print_json(found)
    else:
        _print(found)


async def _overall(store: wiring.Store, workspace: str | None) -> dict[str, Any]:
    now_ms = await store.installation.now_ms()
    windows = {}
    for name, hours in WINDOWS.items():
        found = await store.stats.workspaces(now_ms, hours)
        windows[name] = total(f for w, f in found.items() if workspace in (None, w)).as_json()
    refused = {name: await _refused(store, now_ms, hours) for name, hours in WINDOWS.items()}
    queued, _ = await store.installation.waiting()
    endpoints = [e for e in await store.endpoints.all() if workspace in (None, e.workspace)]
    due = [e.oldest_due_ms for e in endpoints if e.oldest_due_ms is not None]
    minutes = [] if workspace else await store.stats.minutes(now_ms)
    return {
        "at": iso(now_ms),
        "now": {
            "queued": queued,
            "waiting": sum(e.waiting for e in endpoints),
            "inFlight": sum(e.in_flight for e in endpoints),
            "oldestDueAt": iso(min(due)) if due else None,
            "endpoints": Counter(e.state for e in endpoints),
            "problems": problems(endpoints),
        },
        "windows": windows,
        "apiRefused": {} if workspace else refused,
        "minutes": _rows(minutes[-SPARK_MINUTES:], 1),
        "hours": _rows(minutes, 60),
    }


async def _refused(store: wiring.Store, now_ms: int, hours: int) -> dict[str, int]:
    """API calls that were refused, by reason."""
    counts: Counter[str] = Counter()
    for (reason, _), count in (await store.refusals.last(now_ms, hours)).items():
        counts[reason] += count
    return dict(sorted(counts.items()))


def _rows(minutes: Sequence[Counter[str]], together: int) -> dict[str, list[int]]:
    """By what happened, how often in each so many minutes; nothing where there are none."""
    if not minutes:
        return {}
    starts = range(0, len(minutes), together)
    return {
        name: [sum(counts[name] for counts in minutes[first : first + together]) for first in starts]
        for name in ("accepted", "delivered", "failed")
    }


async def _by_workspace(store: wiring.Store, workspace: str | None) -> list[dict[str, Any]]:
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


async def _by_endpoint(store: wiring.Store, workspace: str | None) -> list[dict[str, Any]]:
    found = await store.stats.endpoints(await store.installation.now_ms(), WEEK_DAYS)

    def row(endpoint: Endpoint) -> dict[str, Any]:
        counts = found.get(endpoint.id, Counter())
        names = ("delivered", "failed", "expired", "superseded", "opened")
        known = endpoint.as_json()
        shown = {name: known[name] for name in ("workspace", "endpoint", "state", "waiting", "p95Ms")}
        return shown | {name: counts[name] for name in names} | {"problem": problem(endpoint)}

    rows = [row(e) for e in await store.endpoints.all() if workspace in (None, e.workspace)]
    return sorted(rows, key=lambda row: (-row["failed"] - row["expired"], -row["waiting"]))


def _print(found: dict[str, Any]) -> None:
    now = found["now"]
    states = ", ".join(f"{count} {state}" for state, count in sorted(now["endpoints"].items())) or "none yet"
    what = "".join(f"; {count} {problem}" for problem, count in now["problems"].items())
    console.print_text(
        f"now: {now['queued']:,} on the queue, {now['waiting']:,} callbacks wait ({now['inFlight']:,} in flight), "
        f"the oldest due {now['oldestDueAt'] or '-'}; endpoints: {states}{what}"
    )
    console.out.print()
    columns = ("", *found["windows"])
    windows = list(found["windows"].values())
    names = [name for name in windows[0] if name not in ("latencyMs", "successRate", AVERAGE)]
    rows: list[Sequence[object]] = [(name, *(f"{w[name]:,}" for w in windows)) for name in names]
    rows.append(("average SUBMITTED to DELIVERED", *(_seconds(w[AVERAGE]) for w in windows)))
    rows.append(("success rate", *(_percent(w["successRate"]) for w in windows)))
    rows += [
        (f"latency {p}", *(_duration(w["latencyMs"][p]) for w in windows)) for p in ("p50", "p95", "p99")
    ]
    refused = found["apiRefused"]
    rows += [
        (f"API calls refused: {reason}", *(f"{refused[w].get(reason, 0):,}" for w in found["windows"]))
        for reason in REASONS
        if any(reason in counts for counts in refused.values())
    ]
    console.print_table(columns, rows, "")
    for unit, title in (("minutes", "the last 60 minutes"), ("hours", "the last 24 hours")):
        for name, values in found[unit].items():
            if any(values):
                _print_bars(name, sparkline(values), f"{title}, at most {max(values):,}")


def _print_bars(name: str, bars: str, about: str) -> None:
    """A line, or two where the terminal is too narrow for it."""
    line, width = f"{name:<10} {bars}  {about}", console.columns_of_terminal()
    if width is None or tables.width_of(line) <= width:
        console.print_line(line)
    else:
        console.print_line(f"{name}, {about}")
        console.print_line(bars)


def sparkline(values: Sequence[int]) -> str:
    """A row of bars, one for each value."""
    top = max(values, default=0) or 1
    return "".join(BARS[round(value / top * (len(BARS) - 1))] if value else " " for value in values)


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.2%}"


def _seconds(seconds: float | None) -> str | None:
    return None if seconds is None else tables.duration(seconds)


def _duration(ms: float | None) -> str | None:
    return None if ms is None else tables.duration(ms / 1000)
