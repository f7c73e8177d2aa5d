"""Sends the operator's alerts, once a minute."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from dispatcher.errors import RedisUnavailable
from dispatcher.store.client_certificates import ClientCertificates
from dispatcher.store.stats import Stats
from dispatcher.worker.alerts import ALERT_SECONDS, Alerts

LAST_SECONDS = 1.0
"""How long `end` waits for the last alerts, since the operator's URL may not answer."""

log = structlog.get_logger()


class AlertLoop:
    """Sends the gathered alerts; the worker that leads intake also looks at success rates and client certificates. `now_ms` is Redis's clock."""

    def __init__(
        self, alerts: Alerts, stats: Stats, certificates: ClientCertificates, now_ms: Callable[[], int]
    ) -> None:
        self._alerts = alerts
        self._stats = stats
        self._certificates = certificates
        self._now_ms = now_ms

    async def run(self, leads: Callable[[], bool], stopping: asyncio.Event) -> None:
        """Runs until it is cancelled or `stopping`. Survives failures of Redis and of the operator's URL.

        `leads` says whether this worker leads intake.
        """
        while not stopping.is_set():
            await asyncio.sleep(ALERT_SECONDS)
            await self.step(leads())

    async def step(self, leads: bool) -> None:
        """One round: looks at success rates and client certificates if this worker leads, then sends. Sends nothing if Redis fails in between."""
        try:
            if leads:
                now_ms = self._now_ms()
                self._alerts.rates(await self._stats.workspaces(now_ms, 2))
                self._alerts.certificates(await self._certificates.ending(now_ms), now_ms)
        except RedisUnavailable:
            return  # the waker logs it
        except Exception:
            log.exception("alerts.internal_error")
        await self._send()

    async def end(self) -> None:
        """Call after `run`: sends what was gathered since, for at most LAST_SECONDS."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._send(), LAST_SECONDS)

    async def _send(self) -> None:
        try:
            await self._alerts.send(round(time.time() * 1000))
        except Exception:
            log.exception("alerts.internal_error")
