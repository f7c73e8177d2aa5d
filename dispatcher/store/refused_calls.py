"""Counts the API calls that were refused, by reason and, if known, by key; logs them in batches.

Refusals within ten seconds are written together, so that a flood costs Redis and the log no more than a few.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

import structlog

from dispatcher.store.connection import translated
from dispatcher.store.damaged import naming, number
from dispatcher.store.keys import Keys
from dispatcher.store.wire import Call

REASONS = ("missing", "wrong", "other_platform", "rate", "read_only", "webhook_rate")
"""In order: no API key; a key that is malformed, unknown, revoked or has a wrong secret; a key of another platform;
too many calls a second; a read-only key; too many webhook changes a minute."""
PAUSE_SECONDS = 10.0
HOUR_MS, LIFE_SECONDS = 3_600_000, 8 * 86_400
KEYS_LOGGED = 5

log = structlog.get_logger()


class Refusals:
    """Counts this process's refusals in Redis, and reads those of all processes."""

    def __init__(self, call: Call, keys: Keys, url: str = "") -> None:
        self._call = call
        self._keys = keys
        self._url = url
        self._pending: Counter[tuple[str, str]] = Counter()
        self._now_ms = 0
        self._writer: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def add(self, reason: str, key_id: str = "", *, now_ms: int) -> None:
        """Counts one refusal; `key_id` is empty unless such a key exists."""
        self._pending[reason, key_id] += 1
        self._now_ms = now_ms
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_on())

    async def _write_on(self) -> None:
        """Writes the first refusal at once, then those of each pause together, until a pause brings none."""
        while self._pending:
            await self._write()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), PAUSE_SECONDS)
        self._writer = None

    async def _write(self) -> None:
        """Writes what was counted since the last write. If that fails, the counts are only in the log."""
        counted, self._pending = self._pending, Counter()
        by_reason: dict[str, Counter[str]] = {}
        for (reason, key_id), count in counted.items():
            by_reason.setdefault(reason, Counter())[key_id] += count
        for reason, keys in by_reason.items():
            known = [key for key, _ in keys.most_common() if key][:KEYS_LOGGED]
            log.warning("api.refused", reason=reason, calls=keys.total(), keys=known or None)
        hour = self._keys.api_refusals(self._now_ms // HOUR_MS)
        try:
            calls = [
                self._call("HINCRBY", self._keys.api_refused, reason, keys.total())
                for reason, keys in by_reason.items()
            ]
            calls += [
                self._call("HINCRBY", hour, f"{reason} {key_id}", n)
                for (reason, key_id), n in counted.items()
            ]
            with translated(self._url):
                await asyncio.gather(*calls, self._call("EXPIRE", hour, LIFE_SECONDS))
        except (
            Exception
        ) as error:  # for instance a key of another type: later refusals are tried all the same
            log.warning("api.refusals_uncounted", calls=counted.total(), problem=str(error))

    async def close(self) -> None:
        """Writes what is left, now."""
        self._closing.set()
        if self._writer:
            await self._writer

    async def totals(self) -> dict[str, int]:
        """How many calls were ever refused, by reason. Raises RedisUnavailable."""
        with translated(self._url), naming(self._keys.api_refused):
            flat = await self._call("HGETALL", self._keys.api_refused)
        found = {
            name.decode(errors="replace"): number(count)
            for name, count in zip(flat[::2], flat[1::2], strict=True)
        }
        return dict.fromkeys(REASONS, 0) | found

    async def last(self, now_ms: int, hours: int) -> Mapping[tuple[str, str], int]:
        """Refusals of the last `hours` hours, the current one included, by reason and key (`""`: not known).

        Raises RedisUnavailable.
        """
        newest = now_ms // HOUR_MS
        numbers = range(newest - hours + 1, newest + 1)
        with translated(self._url):
            found = await asyncio.gather(
                *(self._call("HGETALL", self._keys.api_refusals(n)) for n in numbers)
            )
        counts: Counter[tuple[str, str]] = Counter()
        for flat in found:
            for name, count in zip(flat[::2], flat[1::2], strict=True):
                reason, _, key_id = name.decode(errors="replace").partition(" ")
                counts[reason, key_id] += number(count)
        return counts
