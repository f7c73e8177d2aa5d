"""Finds what would lose data in an installation: in its Redis, broker, settings and workers."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from config.setting_types import NEW_FERNET_KEY
from config.settings import Settings
from dispatcher.errors import RedisFull, RedisUnavailable
from dispatcher.model import iso
from dispatcher.rules.client_certificate import WARN_DAYS
from dispatcher.rules.decide import Policy
from dispatcher.store.check_finding import Finding, Verdict
from dispatcher.store.client_certificates import MOST_SHOWN, EndingCertificate
from dispatcher.store.endpoints import Endpoint
from dispatcher.store.holds import problems
from dispatcher.store.installation import Installation
from tasks import tables, wiring
from tasks.actions.check_archive import look_at_archive
from tasks.actions.check_broker import look_at_broker
from tasks.actions.check_previous import look_at_previous
from tasks.actions.check_servers import copies, look_at_servers, partitions, unread

NAMED = 5
"""How many client certificates a finding names."""


async def look(settings: Settings) -> list[Finding]:
    """All findings that need no message to be sent. Raises RedisUnavailable."""
    async with wiring.store(settings) as store:
        found = await look_at_servers(store)
        queued, pending = await store.installation.waiting()
        waiting = Finding(
            "waiting",
            Verdict.OK,
            f"{queued:,} on the queue, {tables.counted(pending, 'callback waits or is being sent', 'callbacks wait or are being sent')}",
        )
        endpoints = _endpoints(await store.endpoints.all())
        writes = await accepts_writes(store.installation)
        workers = workers_alive(await store.installation.workers(), refused=writes.verdict is Verdict.BAD)
        celery = await asyncio.to_thread(look_at_broker, settings)
        now_ms = await store.installation.now_ms()
        damage = _damage(await store.stats.day(now_ms))
        certificates = _certificates(await store.certificates.ending(now_ms), now_ms)
        return [
            *found,
            writes,
            *celery,
            _secrets(settings),
            *contradictions(settings),
            damage,
            certificates,
            workers,
            endpoints,
            waiting,
            *unread(await store.installation.unread(), settings.key_prefix, now_ms),
            *partitions(store),
            *await copies(store),
            *await look_at_previous(settings),
            *await look_at_archive(store, settings.archive_after_seconds),
        ]


def contradictions(settings: Settings) -> list[Finding]:
    """Settings that are each valid and do harm together. No I/O."""
    found = list(_contradictions(settings))
    if not found:
        return [Finding("settings", Verdict.OK, "none contradicts another")]
    return [Finding("settings", Verdict.WARNING, text, "dispatcher config shows all") for text in found]


def _contradictions(settings: Settings) -> Iterator[str]:
    yield from _too_late(wiring.policy(settings), settings.expiry_seconds)
    if settings.max_concurrency > settings.max_in_flight:
        yield "DISPATCHER_MAX_CONCURRENCY of one endpoint is above DISPATCHER_MAX_IN_FLIGHT of a whole worker"
    if settings.breaker_pause_seconds > settings.breaker_max_pause_seconds:
        yield "DISPATCHER_BREAKER_PAUSE_SECONDS is above DISPATCHER_BREAKER_MAX_PAUSE_SECONDS: every pause has the length of the latter"
    if settings.delivered_body_seconds > settings.ledger_retention_seconds:
        yield "DISPATCHER_DELIVERED_BODY_SECONDS is above DISPATCHER_LEDGER_RETENTION_SECONDS: bodies outlive their callbacks"
    if settings.alert_secret and not settings.alert_url:
        yield "DISPATCHER_ALERT_SECRET is set and DISPATCHER_ALERT_URL is not: nothing is sent"


def _too_late(policy: Policy, expiry_seconds: float) -> Iterator[str]:
    """A warning if an attempt would come after the expiry, ignoring jitter; only for the first such attempt."""
    waited = 0.0
    for attempt in range(1, policy.max_attempts):
        waited += policy.backoff.delay_ms(attempt, 0.5) / 1000
        if waited > expiry_seconds:
            yield (
                f"attempt {attempt + 1} of {policy.max_attempts} would come after the expiry: raise DISPATCHER_EXPIRY_SECONDS or "
                "lower DISPATCHER_BACKOFF_FACTOR"
            )
            return


def _damage(day: Counter[str]) -> Finding:
    """What the sweep repaired in the last 24 hours."""
    put_back, aside = day["putBack"], day["setAside"]
    if not put_back and not aside:
        return Finding("damage", Verdict.OK, "nothing had to be repaired in the last 24 h")
    callbacks = tables.counted(put_back, "callback was", "callbacks were")
    keys = tables.counted(aside, "key was", "keys were")
    found = f"in the last 24 h {callbacks} pending and nowhere, {keys} of a wrong type"
    return Finding(
        "damage", Verdict.WARNING, f"{found}; they were repaired", "what else writes to this Redis?"
    )


def _secrets(settings: Settings) -> Finding:
    if settings.secret_keys:
        return Finding("secrets", Verdict.OK, "encrypted in Redis")
    advice = f"set DISPATCHER_SECRET_KEYS; `{NEW_FERNET_KEY}` makes a key"
    return Finding("secrets", Verdict.WARNING, "readable in Redis", advice)


def _certificates(ending: Sequence[EndingCertificate], now_ms: int) -> Finding:
    """Which subscriptions' client certificates end within WARN_DAYS, or have ended."""
    if not ending:
        return Finding("certificates", Verdict.OK, f"no client certificate ends within {WARN_DAYS} days")
    named = [
        f"{one.workspace} {one.subscription} ({'ended' if one.ends_ms <= now_ms else 'ends'} {iso(one.ends_ms)})"
        for one in ending[:NAMED]
    ]
    count = f"{len(ending)} or more" if len(ending) == MOST_SHOWN else f"{len(ending):,}"
    shown = f"{count} ended or end within {WARN_DAYS} days: {', '.join(named)}{', …' if len(ending) > NAMED else ''}"
    of = f"{ending[0].workspace} {ending[0].subscription}"
    advice = f"dispatcher subscription update {of} --client-certificate FILE --client-key FILE"
    return Finding("certificates", Verdict.WARNING, shown, advice)


def _endpoints(endpoints: Sequence[Endpoint]) -> Finding:
    """Which customers' endpoints are down: a warning only, since this installation is not at fault."""
    found = problems(endpoints)
    stopped = sum(e.state == "stopped" for e in endpoints)
    told = [f"{count:,} {what}" for what, count in found.items()] + [f"{stopped:,} stopped"] * bool(stopped)
    if not told:
        return Finding("endpoints", Verdict.OK, f"nothing is wrong with any of {len(endpoints):,}")
    detail = f"of {len(endpoints):,}: {', '.join(told)}"
    return Finding("endpoints", Verdict.WARNING, detail, "dispatcher endpoint list")


async def accepts_writes(installation: Installation) -> Finding:
    """Whether Redis accepts writes: a replica, a full Redis and one whose disk is full do not."""
    try:
        await installation.require_writable()
    except RedisUnavailable as error:
        if not error.why:
            raise
        is_full = isinstance(error, RedisFull)
        advice = "raise maxmemory, or see who fills it: dispatcher endpoint list --sort waiting"
        return Finding("writes", Verdict.BAD, error.why, advice if is_full else error.advice)
    return Finding("writes", Verdict.OK, "Redis accepts them")


def workers_alive(workers: dict[str, Any], *, refused: bool = False) -> Finding:
    """Whether a worker is alive; `workers` are the heartbeats by worker name. `refused`: Redis refuses writes."""
    if workers:
        return Finding("workers", Verdict.OK, f"{len(workers)} alive: {', '.join(workers)}")
    if refused:
        detail = "not known: heartbeats cannot be written while Redis refuses writes"
        return Finding("workers", Verdict.UNKNOWN, detail, "first have Redis accept writes")
    return Finding(
        "workers",
        Verdict.BAD,
        "none sends a heartbeat: no callback is sent",
        "start one: dispatcher worker",
    )
