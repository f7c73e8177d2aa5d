"""The plots of pages, from counters."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from dispatcher.store.stats import DAY_MS, HOUR_MS, MINUTE_MS, Figures
from tasks.console.svg import Line, Plot
from tasks.console.watch import Ages

ENDS = ("accepted", "delivered", "failed", "expired")
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def minutes(counters: Sequence[Counter[str]], now_ms: int) -> Plot:
    """Callbacks of each of the last full minutes."""
    full = counters[:-1]
    last = now_ms // MINUTE_MS
    times = [(last - len(full) + number) * MINUTE_MS for number in range(len(full))]
    lines = [Line(name, [one[name] for one in full]) for name in ENDS]
    return Plot("Callbacks", "a minute", times, lines)


def hours(figures: Sequence[Figures | None], now_ms: int) -> list[Plot]:
    """Callbacks, and the time until they were delivered, of each hour; one that is not read yet is a gap."""
    counts = [Line(name, [_count(one, name) for one in figures]) for name in ENDS]
    return [Plot("Callbacks", "an hour", _hours(len(figures), now_ms), counts), latency(figures, now_ms)]


def _count(figures: Figures | None, name: str) -> float | None:
    return None if figures is None else figures.counts[name]


def days(counters: Sequence[Counter[str]], now_ms: int) -> Plot:
    """What became of the callbacks of an endpoint or a subscription on each of the last days."""
    last = now_ms // DAY_MS
    times = [(last - len(counters) + 1 + number) * DAY_MS for number in range(len(counters))]
    lines = [Line(name, [one[name] for one in counters]) for name in ("delivered", "failed", "expired")]
    return Plot("Callbacks", "a day (UTC)", times, lines)


def ages(readings: Iterable[Ages], now_ms: int, minutes: int) -> Plot:
    """How long things had waited, the longest of each minute; a minute in which nobody looked is a gap."""
    last = now_ms // MINUTE_MS
    by_minute: dict[int, list[Ages]] = defaultdict(list)
    for one in readings:
        by_minute[one.at_ms // MINUTE_MS].append(one)
    shown = [by_minute.get(number) for number in range(last - minutes + 1, last + 1)]
    lines = [
        Line(
            "oldest on the queue",
            [max(one.queued_ms for one in some) / 1000 if some else None for some in shown],
        ),
        Line(
            "oldest due callback",
            [max(one.due_ms for one in some) / 1000 if some else None for some in shown],
        ),
    ]
    times = [(last - minutes + 1 + number) * MINUTE_MS for number in range(minutes)]
    return Plot("Age of what waits", "seconds", times, lines)


def messages(figures: Sequence[Figures], now_ms: int) -> Plot:
    """What became of a workspace's messages, of each hour."""
    names = {"delivered": "messagesDelivered", "failed": "messagesFailed"}
    lines = [Line(name, [one.counts[count] for one in figures]) for name, count in names.items()]
    return Plot("Messages", "an hour", _hours(len(figures), now_ms), lines)


def latency(figures: Sequence[Figures | None], now_ms: int) -> Plot:
    """The time until callbacks were delivered, of each hour."""
    lines = [
        Line(name, [one.percentile_ms(share) if one else None for one in figures])
        for name, share in SHARES.items()
    ]
    return Plot("Time from acceptance to delivery", "ms", _hours(len(figures), now_ms), lines)


def _hours(count: int, now_ms: int) -> list[int]:
    last = now_ms // HOUR_MS
    return [(last - count + 1 + number) * HOUR_MS for number in range(count)]
