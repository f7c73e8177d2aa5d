"""Reads the counters that the scripts keep: rates, ends, latencies. Writes nothing.

Overall counters are by the minute, for a day; those of each workspace by the hour and of each endpoint by the day,
for a week (lua/lib/counts.lua).
"""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import redis.asyncio
from redis.exceptions import ResponseError

from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store import damaged
from dispatcher.store.command_parts import in_parts
from dispatcher.store.connection import translated
from dispatcher.store.keys import Keys, endpoint_id

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
LENGTHS = {"minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS}
DAY_MINUTES, WEEK_HOURS, WEEK_DAYS = 1440, 168, 7
PAGE = 1000
"""Counters of an hour or a day that are read per command, or summed without a pause: nothing else is done meanwhile."""
ENDS_COUNTED = ("delivered", "failed", "expired", "superseded")
DAY_COUNTED = (*ENDS_COUNTED, "opened", "closed")
"""Counters of an endpoint, by the day."""


COUNTED = ("messagesDelivered", "messagesFailed", "messagesTimed", "messagesTimedMs")
"""Counters of a workspace's messages, for the status API."""
HOUR_COUNTED = ("accepted", "delivered", "failed", "expired")
"""Counters of a workspace's callbacks, by the hour, beside durations; `delivered` is of earlier versions."""
DURATIONS = 4 * 30 + 1
"""Number of duration counters: up to 2^30 ms, twelve days (lua/lib/counts.lua).

`d17` counts what was delivered within such a time. Earlier versions counted it twice, as `t17` and as `delivered`.
"""
_DURATION = re.compile(r"[dt][0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class Figures:
    """The counters of a period."""

    counts: Counter[str] = field(default_factory=Counter)
    """By name: accepted, duplicate, conflict, noCallback, rejected, replayed, cancelled, opened, closed, ends, and
    toDelivered(Ms): messages and their time to DELIVERED."""
    durations: Counter[int] = field(default_factory=Counter)
    """Deliveries by their time since acceptance: number of the counter (see `duration_ms`) -> count."""

    @property
    def success_rate(self) -> float | None:
        """The share delivered of those delivered, failed or expired; None if there were none."""
        ended = sum(self.counts[name] for name in ("delivered", "failed", "expired"))
        return self.counts["delivered"] / ended if ended else None

    @property
    def average_seconds_to_delivered(self) -> float | None:
        """The average time of messages from SUBMITTED (`acceptedAt`) to DELIVERED; None if not known for any."""
        messages = self.counts["toDelivered"]
        return round(self.counts["toDeliveredMs"] / messages / 1000, 3) if messages else None

    def percentile_ms(self, share: float) -> float | None:
        """The duration that `share` of the deliveries stay below, give or take 10 %; None without deliveries."""
        left = share * sum(self.durations.values())
        for number, count in sorted(self.durations.items()):
            left -= count
            if left <= 0:
                return duration_ms(number)
        return None

    def as_json(self) -> dict[str, Any]:
        """The fields that `stats --json` prints."""
        rate = self.success_rate
        return {
            "accepted": self.counts["accepted"],
            **{name: self.counts[name] for name in ENDS_COUNTED},
            "duplicates": self.counts["duplicate"],
            "conflicts": self.counts["conflict"],
            "rejected": self.counts["rejected"],
            "noCallback": self.counts["noCallback"],
            "replayed": self.counts["replayed"],
            "cancelled": self.counts["cancelled"],
            "successRate": None if rate is None else round(rate, 5),
            "averageSecondsToDelivered": self.average_seconds_to_delivered,
            "latencyMs": {f"p{round(share * 100)}": self.percentile_ms(share) for share in (0.5, 0.95, 0.99)},
        }


def duration_ms(number: int) -> float:
    """The middle of a counter of durations: each is 19 % wider than the one before (lua/lib/counts.lua)."""
    return round(float(2 ** ((number + 0.5) / 4)), 1)


class Stats:
    """Reads one Redis. Every method raises RedisUnavailable."""

    def __init__(self, client: "redis.asyncio.Redis", keys: Keys, url: str = "") -> None:
        self._client: Any = client
        self._keys = keys
        self._url = url

    async def minutes(self, now_ms: int, count: int = DAY_MINUTES) -> list[Counter[str]]:
        """The overall counters minute by minute, up to the current one; at most a day's."""
        last = now_ms // LENGTHS["minute"]
        pipe = self._client.pipeline(transaction=False)
        keys = [self._keys.stats("minute", number) for number in range(last - count + 1, last + 1)]
        for key in keys:
            pipe.hgetall(key)
        with translated(self._url):
            replies = await pipe.execute(raise_on_error=False)
            found = [damaged.reply(one, key, {}) for key, one in zip(keys, replies, strict=True)]
        return [Counter(dict(_counter(*field) for field in one.items())) for one in found]

    async def sums(self, now_ms: int, minutes: Sequence[int]) -> list[Counter[str]]:
        """The overall counters of spans of so many minutes, one after the other, up to the current one; at most a day's."""
        found = iter(await self.minutes(now_ms, sum(minutes)))
        return [sum(islice(found, count), Counter()) for count in minutes]

    async def day(self, now_ms: int) -> Counter[str]:
        """The overall counters of the last 24 hours."""
        return (await self.sums(now_ms, [DAY_MINUTES]))[0]

    async def windows(self, now_ms: int, hours: Sequence[int]) -> list[dict[str, Figures]]:
        """As `workspaces`, for several numbers of hours, in ascending order."""
        return [await self.workspaces(now_ms, count) for count in hours]

    async def workspaces(self, now_ms: int, hours: int) -> dict[str, Figures]:
        """The figures of the last `hours` hours, the current one included, by workspace; at most a week."""
        return await by_workspace(await self._read("hour", now_ms, hours))

    async def together(self, now_ms: int, hours: int) -> Figures:
        """The sum of these figures, of all workspaces."""
        return await of_all(await self._read("hour", now_ms, hours))

    async def workspace(self, workspace: str, now_ms: int, hours: int) -> Figures:
        """Counters of messages and callbacks, and durations, of one workspace, without reading those of others."""
        counted = [*COUNTED, *HOUR_COUNTED]
        names = [*counted, *(f"{kind}{number}" for number in range(DURATIONS) for kind in "dt")]
        fields = [f"{workspace} {name}" for name in names]
        figures, last = Figures(), now_ms // LENGTHS["hour"]
        for number in range(last - hours + 1, last + 1):
            counts = await self._counts(self._keys.stats("hour", number), fields)
            figures.counts.update(dict(zip(counted, counts, strict=False)))
            for place, count in enumerate(counts[len(counted) :]):  # `d` and `t` of a number, in turn
                if count:
                    figures.durations[place // 2] += count
                    figures.counts["delivered"] += 0 if place % 2 else count
        return figures

    async def endpoints(self, now_ms: int, days: int) -> dict[str, Counter[str]]:
        """Ends and breaker changes of the last `days` days (UTC), today included, by endpoint id; at most a week."""
        return by_endpoint(await self._read("day", now_ms, days))

    async def endpoint_days(
        self, names: Sequence[EndpointName], now_ms: int, days: int = WEEK_DAYS
    ) -> list[Counter[str]]:
        """Ends and breaker changes of some endpoints of one workspace together, on each of the last days (UTC), today last.

        At most a week's.
        """
        last = now_ms // LENGTHS["day"]
        fields = [(f"{endpoint_id(name)} {what}", what) for name in names for what in DAY_COUNTED]
        found: list[Counter[str]] = []
        for day in range(last - days + 1, last + 1):
            counts: Counter[str] = Counter()
            for some in in_parts(fields):
                there = await self._counts(self._keys.stats("day", day), [field for field, _ in some])
                for (_, what), count in zip(some, there, strict=True):
                    counts[what] += count
            found.append(counts)
        return found

    async def _counts(self, key: str, fields: list[str]) -> list[int]:
        """Counters of a hash; 0 for a missing or damaged one. A key of another type is logged and gives 0 for all."""
        values = await self._unless_damaged(key, self._client.hmget(key, fields), [None] * len(fields))
        return [damaged.number(value) for value in values]

    async def _read(self, unit: str, now_ms: int, count: int) -> list[dict[str, int]]:
        """The counters of each of the last `count` hours or days, a page at a time: there may be a million of them."""
        last = now_ms // LENGTHS[unit]
        found: list[dict[str, int]] = []
        for number in range(last - count + 1, last + 1):
            key = self._keys.stats(unit, number)
            found.append(await self._unless_damaged(key, self._scan(key), {}))
        return found

    async def _scan(self, key: str) -> dict[str, int]:
        fields = self._client.hscan_iter(key, count=PAGE)
        return dict([_counter(*field) async for field in fields])

    async def _unless_damaged(self, key: str, asked: Awaitable[Any], otherwise: Any) -> Any:
        """What is asked of a key; logs that it is of another type, and returns `otherwise` then."""
        with translated(self._url):
            try:
                return await asked
            except ResponseError as error:
                return damaged.reply(error, key, otherwise)


def _counter(name: bytes, value: bytes) -> tuple[str, int]:
    return name.decode(errors="replace"), damaged.number(value)


async def by_workspace(hours: Iterable[Mapping[str, int]]) -> dict[str, Figures]:
    """The figures of each workspace, of the counters of some hours."""
    found: dict[str, Figures] = {}
    for fields in hours:
        for number, (name, count) in enumerate(fields.items()):
            if number % PAGE == 0:
                await asyncio.sleep(0)  # the worker that reads this for its alerts sends meanwhile
            workspace, _, what = name.partition(" ")
            _add(found.setdefault(workspace, Figures()), what, count)
    return found


async def of_all(hours: Iterable[Mapping[str, int]]) -> Figures:
    """The figures of all workspaces together, of the counters of some hours."""
    sums: Counter[str] = Counter()
    for fields in hours:
        for number, (name, count) in enumerate(fields.items()):
            if number % PAGE == 0:
                await asyncio.sleep(0)  # others' pages are answered meanwhile
            sums[name.partition(" ")[2]] += count
    figures = Figures()
    for what, count in sums.items():
        _add(figures, what, count)
    return figures


def _add(figures: Figures, what: str, count: int) -> None:
    """Adds a counter to the figures that it belongs to."""
    if _DURATION.fullmatch(what):
        figures.durations[int(what[1:])] += count
        figures.counts["delivered"] += count if what[0] == "d" else 0
    else:
        figures.counts[what] += count


def by_endpoint(days: Iterable[Mapping[str, int]]) -> dict[str, Counter[str]]:
    """The counters of each endpoint, of those of some days."""
    found: dict[str, Counter[str]] = {}
    for fields in days:
        for name, count in fields.items():
            endpoint, _, what = name.partition(" ")
            found.setdefault(endpoint, Counter())[what] += count
    return found


def total(figures: Iterable[Figures]) -> Figures:
    """The sum of several figures."""
    together = Figures()
    for one in figures:
        together.counts.update(one.counts)
        together.durations.update(one.durations)
    return together
