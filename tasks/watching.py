"""Attempts of all workers as they are made, for `dispatcher tail` and the console's live page."""

import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any, NotRequired, TypedDict

import msgspec

from config.settings import Settings
from dispatcher.rules.ownership import ALIVE_MS
from dispatcher.store.connection import redis_now_ms, translated
from dispatcher.worker.tail import WATCH_SECONDS
from tasks import wiring

LOOK_SECONDS = 0.5
"""How often heartbeats are read until all workers publish, and how long a reader waits for attempts at most."""
RENEW_SECONDS = 1.0
"""How often the key is renewed that has workers publish."""
MOST_BYTES = 2 * 1024 * 1024
"""Of what one worker publishes at once: a thousand attempts of some 400 bytes."""

Heartbeats = Mapping[str, Mapping[str, Any]]
"""By worker name, as Installation.workers has them."""


class Attempted(TypedDict):
    """An attempt as workers publish it (worker/tail.py). Any client of Redis can publish: it is checked."""

    at: str
    workspace: str
    subscription: NotRequired[str]
    endpoint: str
    eventId: str
    messageId: str
    eventType: str
    attempt: int
    httpStatus: int | None
    error: str | None
    durationMs: int | float | None
    outcome: str


class Heard(msgspec.Struct, frozen=True):
    """What `watch` yields, at least each half second, so that its reader can do something else too."""

    is_live: bool
    """Whether all workers publish. An attempt that was made before may be missing."""
    attempts: list[Attempted] = []
    problem: str = ""
    """Why something that was published is no list of attempts."""


async def watch(settings: Settings, store: wiring.Store) -> AsyncGenerator[Heard, None]:
    """Has workers publish for as long as it is read. Raises RedisUnavailable.

    Close it at the end (contextlib.aclosing): it holds a connection.
    """
    place = wiring.first_place(settings, store)  # there all workers look, and publish
    key = place.keys.tail
    with translated(place.url):
        async with place.client.pubsub() as channel:
            await channel.subscribe(key)
            first: Heartbeats | None = None
            is_live, renewed_at, look_at = False, float("-inf"), 0.0
            while True:
                now = time.monotonic()
                if now - renewed_at >= RENEW_SECONDS:
                    await place.client.set(key, 1, ex=WATCH_SECONDS)
                    if time.monotonic() - renewed_at >= WATCH_SECONDS:  # it had expired: workers have stopped
                        is_live, first = False, None
                    renewed_at = now
                if not is_live and now >= look_at:
                    heartbeats = await store.installation.workers()
                    first = heartbeats if first is None else first
                    now_ms = await redis_now_ms(place.client)
                    is_live = all_publish(heartbeats, first, now_ms, _alive_ms(settings))
                    look_at = now + LOOK_SECONDS
                said = await channel.get_message(ignore_subscribe_messages=True, timeout=LOOK_SECONDS)
                yield _read(said["data"], is_live=is_live) if said else Heard(is_live)


def _alive_ms(settings: Settings) -> int:
    """How old a live worker's heartbeat is at most: with one partition it is sent as the worker wakes."""
    wakes_each = settings.wake_seconds if settings.partitions == 1 else 0.0
    return max(ALIVE_MS, round((wakes_each + 1) * 1000))


def all_publish(heartbeats: Heartbeats, first: Heartbeats, now_ms: int, alive_ms: int = ALIVE_MS) -> bool:
    """Whether all live workers say that they publish, in heartbeats sent after the `first` ones that were read.

    One that is sent later says what the worker knows since the key was set. A worker of a version that does not say it counts
    as one that does: it looks as often as it sends.
    """
    alive = {name: one for name, one in heartbeats.items() if abs(now_ms - one["signedMs"]) < alive_ms}
    return all(
        one.get("watched", True) and (name not in first or one["signedMs"] > first[name]["signedMs"])
        for name, one in alive.items()
    )


def _read(raw: bytes, *, is_live: bool) -> Heard:
    if len(raw) > MOST_BYTES:
        return Heard(is_live, problem=f"{len(raw):,} bytes at once")
    try:
        return Heard(is_live, msgspec.json.decode(raw, type=list[Attempted]))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # ValueError: no UTF-8
        return Heard(is_live, problem=str(error))
