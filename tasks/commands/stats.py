"""`dispatcher stats`: shows counts of accepted and ended callbacks, and latencies."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from dispatcher.store.across.absent import listed
from dispatcher.store.refused_calls import REASONS
from tasks import tables, terminal, wiring
from tasks.actions.stats import by_endpoint, by_workspace, overall

READ = {"workspace": by_workspace, "endpoint": by_endpoint}
"""The function that reads the figures, by the value of --by."""
SHOWN = 50
"""Rows of --by, without --limit."""
AVERAGE = "averageSecondsToDelivered"
LATENCIES = ("p50", "p95", "p99")
BARS = "▁▂▃▄▅▆▇█"


def stats(
    workspace: Annotated[str | None, typer.Option(help="Of this workspace only.", show_default=False)] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="workspace: the last 24 h of each; endpoint: the last 7 days of each.", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"With --by: how many, those with the most failures first (default: {SHOWN}).",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what was accepted, delivered and given up: this hour, 24 hours, 7 days; and what waits now.

    Latency is the time from acceptance to delivery, to within 10 %.

    Examples:

      dispatcher stats --workspace acme

      dispatcher stats --by endpoint --limit 10
    """
    settings = terminal.settings()
    if limit is not None and by is None:
        terminal.fail("--limit goes with --by", terminal.USAGE)
    if by is not None and by not in READ:
        terminal.fail(f"--by is workspace or endpoint, not {by!r}", terminal.USAGE)

    async def work() -> Any:
        async with wiring.store(settings) as store:
            if workspace:
                await store.workspaces.require(workspace)
            return await (READ[by] if by else overall)(store, workspace)

    found = terminal.run(work())
    if by:
        found = found[: limit or SHOWN]
    if as_json:
        terminal.print_json(found)
    elif by:
        _print_by(found)
    else:
        _print(found)


def _print_by(found: Sequence[dict[str, Any]]) -> None:
    """Prints a row for each workspace or endpoint, with units."""
    names = max(found, key=len, default={})  # not every row has a subscription
    columns = [f"latency {name}" if name in LATENCIES else name for name in names]
    units = {"successRate": _percent} | dict.fromkeys(LATENCIES, _duration)
    rows = [[units[name](row[name]) if name in units else row.get(name) for name in names] for row in found]
    terminal.print_table(columns, rows, "nothing happened yet")


def _print(found: dict[str, Any]) -> None:
    now = found["now"]
    states = ", ".join(f"{count} {state}" for state, count in sorted(now["endpoints"].items())) or "none yet"
    what = "".join(f"; {count} {problem}" for problem, count in now["problems"].items())
    terminal.print_text(
        f"now: {now['queued']:,} on the queue, {tables.counted(now['waiting'], 'callback waits', 'callbacks wait')} ({now['inFlight']:,} in flight), "
        f"the oldest due {now['oldestDueAt'] or '-'}; endpoints: {states}{what}"
    )
    if "partitions" in found:
        _print_owners(found["partitions"])
    terminal.out.print()
    rows = [*_rows(list(found["windows"].values())), *_refused(found["apiRefused"], list(found["windows"]))]
    terminal.print_table(("", *found["windows"]), rows, "")
    for unit, title in (("minutes", "the last 60 minutes"), ("hours", "the last 24 hours")):
        for name, values in found[unit].items():
            if any(values):
                _print_bars(name, sparkline(values), f"{title}, at most {max(values):,}")


def _print_owners(found: dict[str, Any]) -> None:
    """Prints how many partitions each worker leads, and which no worker does."""
    owners = ", ".join(f"{len(owned)} by {name}" for name, owned in found["owners"].items() if owned)
    without = found["withoutOwner"]
    alone = f"; {len(without)} without an owner: {listed(without)}" if without else ""
    terminal.print_text(f"{found['count']} partitions: {owners or 'no worker is alive'}{alone}")
    if unread := found["unread"]["count"]:
        lie = tables.counted(unread, "status change lies", "status changes lie")
        terminal.print_text(
            f"{lie} on a queue that nobody reads, since {found['unread']['oldestAt']}: `dispatcher check` says what to do"
        )


def _rows(windows: Sequence[dict[str, Any]]) -> Iterator[Sequence[object]]:
    """A row for each figure, a column for each window."""
    for name in windows[0]:
        if name not in ("latencyMs", "successRate", AVERAGE):
            yield name, *(f"{w[name]:,}" for w in windows)
    yield "average SUBMITTED to DELIVERED", *(_seconds(w[AVERAGE]) for w in windows)
    yield "success rate", *(_percent(w["successRate"]) for w in windows)
    for p in LATENCIES:
        yield f"latency {p}", *(_duration(w["latencyMs"][p]) for w in windows)


def _refused(refused: dict[str, dict[str, int]], windows: Sequence[str]) -> Iterator[Sequence[object]]:
    """A row for each reason with refused API calls."""
    for reason in REASONS:
        if any(reason in counts for counts in refused.values()):
            yield f"API calls refused: {reason}", *(f"{refused[w].get(reason, 0):,}" for w in windows)


def _print_bars(name: str, bars: str, about: str) -> None:
    """Prints one line, or two if the terminal is too narrow."""
    line, width = f"{name:<10} {bars}  {about}", terminal.columns_of_terminal()
    if width is None or tables.width_of(line) <= width:
        terminal.print_line(line)
    else:
        terminal.print_line(f"{name}, {about}")
        terminal.print_line(bars)


def sparkline(values: Sequence[int]) -> str:
    """A bar character for each value, scaled to the largest."""
    top = max(values, default=0) or 1
    return "".join(BARS[round(value / top * (len(BARS) - 1))] if value else " " for value in values)


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.2%}"


def _seconds(seconds: float | None) -> str | None:
    return None if seconds is None else tables.duration(seconds)


def _duration(ms: float | None) -> str | None:
    return None if ms is None else tables.duration(ms / 1000)
