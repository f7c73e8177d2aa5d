"""Reads the state of the whole installation: clock, data format, waiting counts, workers, figures for metrics."""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis.asyncio
from redis.exceptions import NoPermissionError

from dispatcher.errors import InvalidInput, OtherSettings
from dispatcher.rules.outcomes import REJECTIONS
from dispatcher.rules.partitions import another_number
from dispatcher.store.arguments import WITH_ARCHIVE
from dispatcher.store.command_parts import in_parts
from dispatcher.store.connection import redis_now_ms, translated
from dispatcher.store.damaged import naming, needed, needed_type, of_type, reply
from dispatcher.store.endpoints import Endpoint
from dispatcher.store.entry import read_entry
from dispatcher.store.fingerprints import read_tables
from dispatcher.store.keys import FORMAT_TEXT, GROWN_INTO, Keys

EXPIRING_MS = 3_600_000
DOWN_LONG_MS = 3_600_000
"""From when on an outage is long: what expires then is counted."""
LOOKED_AT = 10_000
"""Most callbacks of a partition whose entries are read to count those that an outage, a stop or a pause holds."""


@dataclass(frozen=True, slots=True)
class Load:
    """What waits. Times are ms since 1970."""

    queued: int
    """Status changes on the queue."""
    waiting: int
    """Callbacks that have not ended."""
    queued_ms: int
    """When the oldest status change on the queue came; now, if there is none. By the clock of `now_ms`."""
    expiring: int
    """Callbacks that expire within an hour."""
    now_ms: int

    @property
    def queue_age_ms(self) -> int:
        """The age of the oldest status change on the queue."""
        return max(0, self.now_ms - self.queued_ms)


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory in bytes."""

    used: int
    limit: int
    """0: none."""

    @property
    def share(self) -> float:
        """How much of its limit is used; 0 without one."""
        return self.used / self.limit if self.limit else 0.0


@dataclass(frozen=True, slots=True)
class Backlog:
    """What has ended and is not in the archive yet."""

    count: int
    oldest_ms: int
    """When the first of it ended; now, if there is none. By the clock of `now_ms`."""
    now_ms: int

    @property
    def age_ms(self) -> int:
        """How long ago that was."""
        return max(0, self.now_ms - self.oldest_ms)


@dataclass(frozen=True, slots=True)
class Unread:
    """Status changes on a queue that nobody reads."""

    count: int = 0
    oldest_ms: int | None = None
    """When the oldest was put there, ms since 1970."""
    problem: str = ""
    """Why it is not known whether there are more; empty if it is."""


class Installation:
    """Reads one Redis. Every method raises RedisUnavailable."""

    def __init__(self, client: "redis.asyncio.Redis", keys: Keys, url: str = "") -> None:
        self._client: Any = client
        self._keys = keys
        self._url = url

    async def now_ms(self) -> int:
        """Redis's clock, ms since 1970."""
        with translated(self._url):
            return await redis_now_ms(self._client)

    async def format(self) -> str:
        """The format number of the data in Redis; empty if none is stored.

        Raises OtherSettings if these are the keys of an installation with one partition, and Redis holds one with several;
        and OtherFormat if something else was written there.
        """
        key, count_key = self._keys.format, self._keys.count
        with translated(self._url), needed_type(key):
            found = needed(await self._client.get(key), key, FORMAT_TEXT)
        if not found and self._keys.is_alone:
            # a user of before may not read it; its installation has one partition
            with translated(self._url), needed_type(count_key), suppress(NoPermissionError):
                if count := needed(await self._client.get(count_key), count_key):
                    raise OtherSettings(another_number(int(count), 1))
        return self._keys.own_format(found)

    async def is_empty(self) -> bool:
        """Whether there is no installation: no data format, workspace, endpoint or schedule."""
        keys = self._keys
        with translated(self._url):
            try:
                return not await self._client.exists(
                    keys.format, keys.workspaces, keys.endpoints, keys.schedule, keys.schedule_of_format_1
                )
            except NoPermissionError:  # the exporter's Redis user; it writes nothing
                return not await self._client.exists(keys.format, keys.endpoints)

    async def raise_format(self, number: int) -> None:
        """Stores the format number of the data in Redis, unless a greater one is there."""

        async def write(pipe: Any) -> None:
            known, grown, into = (await pipe.get(self._keys.format) or b"").decode().partition(GROWN_INTO)
            pipe.multi()
            if not known or int(known) < number:
                pipe.set(self._keys.format, f"{number}{grown}{into}")

        with translated(self._url):
            await self._client.transaction(write, self._keys.format)  # runs again if it changes meanwhile

    async def fingerprints_until(self) -> int:
        """Until when callbacks are known that only the archive has, ms since 1970; 0: there are none."""
        with translated(self._url), naming(self._keys.fingerprints):
            found: Any = await self._client.hgetall(self._keys.fingerprints)
        return max((one.ends_ms for one in read_tables(found)), default=0)

    async def end_archive(self) -> None:
        """Forgets these; from now on processes may do without the archive."""

        async def write(pipe: Any) -> None:
            known, grown, into = (await pipe.get(self._keys.format) or b"").decode().partition(GROWN_INTO)
            pipe.multi()
            pipe.delete(self._keys.fingerprints, self._keys.to_archive, self._keys.status_due)
            if known and int(known) >= WITH_ARCHIVE:
                pipe.set(self._keys.format, f"{WITH_ARCHIVE - 1}{grown}{into}")

        with translated(self._url):
            await self._client.transaction(write, self._keys.format)

    async def require_writable(self, *, some: bool = False) -> None:
        """Raises RedisUnavailable or RedisFull if Redis refuses writes, as a replica or a full one does. Writes nothing.

        With `some`, and several servers, only if all of them do.
        """
        with translated(self._url):
            await self._client.setrange(
                self._keys.format, 0, ""
            )  # a write of nothing, which Redis refuses all the same

    async def waiting(self) -> tuple[int, int]:
        """How many status changes are on the queue, and how many callbacks have not ended."""
        with translated(self._url):
            return await self._what_waits(strict=True)

    async def _what_waits(self, *, strict: bool) -> tuple[int, int]:
        """As `waiting`; nothing in a key of another type, which is logged, or `strict`, raises ResponseError, which names it."""
        pipe = self._client.pipeline(transaction=False)
        pipe.xlen(self._keys.events)
        pipe.zcard(self._keys.expiries)
        queued, pending = await pipe.execute(raise_on_error=False)
        return _count(queued, self._keys.events, strict), _count(pending, self._keys.expiries, strict)

    async def unread(self) -> Unread:
        """What lies on the queue of an installation with one partition, if this is one with several: nobody reads it."""
        return Unread()

    async def workers(self) -> dict[str, dict[str, Any]]:
        """Heartbeats of the last 15 s by worker name; `signedMs` is when, in ms since 1970 by Redis's clock."""
        with translated(self._url):
            with naming(self._keys.workers):
                found = await self._client.zrange(self._keys.workers, 0, -1, withscores=True)
            names = [name.decode(errors="replace") for name, _ in found]
            heartbeats = [
                heartbeat
                for some in in_parts(names)
                for heartbeat in await self._client.mget([self._keys.worker(name) for name in some])
            ]
        return {
            name: read | {"signedMs": int(at)}
            for name, heartbeat, (_, at) in sorted(zip(names, heartbeats, found, strict=True))
            if heartbeat and (read := read_heartbeat(heartbeat))
        }

    async def load(self, *, strict: bool = False) -> Load:
        """What waits, and since when; nothing in a key of another type, which is logged, or `strict`, raises ResponseError."""
        with translated(self._url):
            queued, waiting = await self._what_waits(strict=strict)
            first = await of_type(self._client.xrange(self._keys.events, count=1), self._keys.events, ())
            now_ms = await redis_now_ms(self._client)
            soon = self._client.zcount(self._keys.expiries, now_ms, now_ms + EXPIRING_MS)
            expiring = await of_type(soon, self._keys.expiries, 0)
        queued_ms = int(first[0][0].split(b"-")[0]) if first else now_ms
        return Load(queued, waiting, queued_ms, expiring, now_ms)

    async def expiring_of(self, endpoints: Collection[str]) -> int:
        """How many of the callbacks that expire within an hour are of these endpoints (ids); looks at the first LOOKED_AT."""
        with translated(self._url):
            now_ms = await redis_now_ms(self._client)
            first = await self._client.zrangebyscore(
                self._keys.expiries, now_ms, now_ms + EXPIRING_MS, 0, LOOKED_AT
            )
            owners = [one.decode(errors="replace").partition(":")[::2] for one in first]
            entries = [
                entry
                for some in in_parts(owners)
                for entry in await self._client.mget([self._keys.event(*one) for one in some])
            ]
        return sum(_endpoint_of(entry) in endpoints for entry in entries)

    async def to_archive(self) -> Backlog:
        """What waits for the archive."""
        with translated(self._url), naming(self._keys.to_archive):
            count = await self._client.xlen(self._keys.to_archive)
            first = await self._client.xrange(self._keys.to_archive, count=1)
            now_ms = await redis_now_ms(self._client)
        return Backlog(count, int(first[0][0].split(b"-")[0]) if first else now_ms, now_ms)

    async def messages_to_archive(self) -> Backlog:
        """What waits for the archive of messages that are over, or have not changed for long."""
        with translated(self._url), naming(self._keys.status_due):
            now_ms = await redis_now_ms(self._client)
            count = await self._client.zcount(self._keys.status_due, "-inf", now_ms)
            first: Any = await self._client.zrange(self._keys.status_due, 0, 0, withscores=True)
        return Backlog(count, int(first[0][1]) if count and first else now_ms, now_ms)

    async def memory(self) -> Memory:
        """The memory that Redis uses and may use."""
        with translated(self._url):
            found = await self._client.info("memory")
        return Memory(found["used_memory"], found["maxmemory"])

    async def figures(self, endpoints: Sequence[Endpoint], rejected: dict[str, int]) -> dict[str, Any]:
        """Figures of the whole installation, for metrics: counts, ages in seconds, bytes.

        `endpoints` are all endpoints; `rejected` counts rejected entries by reason.
        """
        load, memory = await self.load(strict=True), await self.memory()  # what cannot be read is not nothing
        due = [e.now_ms - e.late_since_ms for e in endpoints if e.late_since_ms]
        down = [e.now_ms - e.down_since_ms for e in endpoints if e.is_down]
        down_long = {e.id for e in endpoints if e.is_down and e.now_ms - e.down_since_ms > DOWN_LONG_MS}
        held = {e.id for e in endpoints if e.waiting and (e.stopped_ms is not None or e.is_held)}
        return {
            "queued": load.queued,
            "queue_age": load.queue_age_ms / 1000,
            "waiting": load.waiting,
            "due": max(0, max(due, default=0)) / 1000,
            "down": max(0, max(down, default=0)) / 1000,
            "expiring": load.expiring,
            "expiring_down": await self.expiring_of(down_long) if down_long and load.expiring else 0,
            "expiring_held": await self.expiring_of(held) if held and load.expiring else 0,
            "workers": len(await self.workers()),
            "memory": memory.used,
            "maxmemory": memory.limit,
            "endpoints": Counter(one.state for one in endpoints),
            "rejected": dict.fromkeys(REJECTIONS, 0) | rejected,
        }


def _count(found: Any, key: str, strict: bool) -> int:
    if not strict:
        return int(reply(found, key, 0))
    with naming(key):
        if isinstance(found, Exception):
            raise found
    return int(found)


def _endpoint_of(entry: bytes | None) -> str:
    """The id of the endpoint of an entry; empty if it is gone or damaged."""
    try:
        return read_entry(entry).endpoint if entry else ""
    except InvalidInput:
        return ""


def read_heartbeat(text: bytes) -> dict[str, Any]:
    """A heartbeat; empty if it was written over by hand: its worker's next one replaces it."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
