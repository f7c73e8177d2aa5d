"""Checks whether callbacks are being sent, by a probe to the workers through Celery. Loads Celery."""

import asyncio
import secrets
import socket
import time
from dataclasses import replace
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from config import broker
from config.settings import Settings
from dispatcher.errors import RedisUnavailable
from dispatcher.store.across.absent import listed
from dispatcher.store.check_finding import Finding, Verdict
from dispatcher.store.members import Owners, partitions_of
from tasks import wiring
from tasks.actions.check import accepts_writes, workers_alive

LIVE_SECONDS = 10.0
HEARTBEAT_SECONDS = 3.0
"""How long to wait for a new heartbeat from each known worker: they come every second."""
LOOK = "look at the workers' logs"


async def look_live(settings: Settings, here: bool) -> list[Finding]:
    """Whether workers take hints and all partitions are led. With `here` a worker of this host must be alive.

    With `here` and several partitions, what stands still elsewhere is a warning: it is no fault of this host's worker.
    Raises RedisUnavailable.
    """
    probe = secrets.token_hex(8)
    async with wiring.store(settings) as store:
        if store.partitions > 1:
            await store.installation.format()  # of each partition: those that do not answer are noted
        since_ms = await store.installation.now_ms()  # also fails here, in one line, if Redis is away
        refused = await asyncio.to_thread(publish_probe, settings, probe)
        if refused:
            probe = ""
        workers = await _heartbeats_since(store, since_ms, probe, here)
        writes = await accepts_writes(store.installation)
        found = _findings(workers, probe, refused, writes, store.partitions, here)
        return [*found, *_away(store)] if here else found


def _findings(
    workers: dict[str, Any], probe: str, refused: Finding | None, writes: Finding, partitions: int, here: bool
) -> list[Finding]:
    intake = _intake(Owners.read(workers, partitions), partitions, writes)
    if here and partitions > 1 and intake.verdict is Verdict.BAD:
        intake = replace(intake, verdict=Verdict.WARNING)
    asked = {name: one for name, one in workers.items() if not here or _is_here(name)}
    return [
        workers_alive(asked, refused=writes.verdict is Verdict.BAD),
        refused or _hints(_answered(workers, probe)),
        intake,
    ]


def _is_here(worker: str) -> bool:
    return f"@{socket.gethostname()}/" in worker


def _away(store: wiring.Store) -> list[Finding]:
    """Partitions that do not answer, as a warning instead of an exit code."""
    line = store.absent.named()
    store.absent.forget()
    return [Finding("partitions", Verdict.WARNING, line, "see what is wrong with their servers")] * bool(line)


def _intake(owners: Owners, partitions: int, writes: Finding) -> Finding:
    leading = {name: len(owned) for name, owned in owners.of.items() if owned}
    if not owners.without:
        who = ", ".join(f"{name} ({count})" for name, count in leading.items())
        shown = next(iter(leading)) if partitions == 1 else f"{who}: all {partitions} partitions"
        return Finding("intake", Verdict.OK, f"led by {shown}")
    if (
        writes.verdict is Verdict.BAD and not leading
    ):  # where heartbeats cannot be written none says who leads
        return Finding("intake", Verdict.UNKNOWN, f"cannot be seen: {writes.detail}")
    if partitions == 1:
        return Finding("intake", Verdict.BAD, "no worker leads intake: the queue is not read", LOOK)
    detail = f"{len(owners.without)} of {partitions} partitions have no owner ({listed(owners.without)}): their queues are not read"
    return Finding("intake", Verdict.BAD, detail, LOOK)


def _hints(who: str | None) -> Finding:
    if who:
        return Finding("hints", Verdict.OK, f"a hint came through Celery to {who}")
    return Finding("hints", Verdict.BAD, f"no worker took a hint within {LIVE_SECONDS:g} s", LOOK)


async def _heartbeats_since(
    store: wiring.Store, since_ms: int, probe: str, here: bool
) -> dict[str, dict[str, Any]]:
    """The heartbeats sent since then: an older one does not prove that the worker is alive now.

    Waits for a worker to take the probe (for none if it is empty), and for the owners of partitions that workers reach; with `here`
    and several partitions only for this host's workers and the probe.
    """
    alone = here and store.partitions > 1
    began = time.monotonic()
    while True:
        known = await store.installation.workers()
        given = {name: heartbeat for name, heartbeat in known.items() if heartbeat["signedMs"] >= since_ms}
        waited = time.monotonic() - began
        whole = all(name in given for name in known if not alone or _is_here(name))
        proven = not probe or (_answered(given, probe) and (alone or _all_led(given, store.partitions)))
        if ((whole or waited > HEARTBEAT_SECONDS) and proven) or waited > LIVE_SECONDS:
            return given
        await asyncio.sleep(0.1)


def _all_led(workers: dict[str, Any], partitions: int) -> bool:
    """Whether each partition has an owner, but for those that some worker cannot reach."""
    cannot = frozenset[int]().union(*(partitions_of(one.get("cannot", "0")) for one in workers.values()))
    return cannot.issuperset(Owners.read(workers, partitions).without)


def _answered(workers: dict[str, Any], probe: str) -> str | None:
    return next((name for name, heartbeat in workers.items() if probe in heartbeat["probes"]), None)


def publish_probe(settings: Settings, probe: str) -> Finding | None:
    """Sends a hint without endpoints through Celery; the worker that takes it records the probe.

    Returns a finding if the broker refuses the hint. Raises RedisUnavailable if it cannot be reached.
    """
    app = Celery("dispatcher", set_as_current=False)
    app.config_from_object("config.celeryconfig")
    with app:
        try:
            app.send_task(broker.HINT_TASK, ([],), {"probe": probe}, retry=False, ignore_result=True)
        except OperationalError as error:
            if (refusal := broker.refusal(error, settings.celery_url)).why:
                advice = refusal.advice
                if settings.broker_url:
                    advice = advice.replace("DISPATCHER_REDIS_URL", "DISPATCHER_BROKER_URL")
                return Finding("hints", Verdict.BAD, f"Celery's broker refuses them: {refusal.why}", advice)
            why = broker.problem(error, settings.celery_url, settings.redis_ca_file)
            raise RedisUnavailable(f"Celery's broker is not reachable: {why}") from error
    return None
