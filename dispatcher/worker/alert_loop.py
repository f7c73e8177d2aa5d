"""Sends the operator's alerts, once a minute."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from dispatcher.errors import RedisUnavailable
from dispatcher.store.client_certificates import ClientCertificates
from dispatcher.store.latest_alerts import LatestAlerts
from dispatcher.store.stats import Stats
from dispatcher.worker.alerts import ALERT_SECONDS, Alerts

KEEP_SECONDS = 0.5
"""How long keeping alerts in Redis may delay sending them."""
LAST_SECONDS = 1.0
"""How long `end` waits for the last alerts, since the operator's URL may not answer."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class AlertSource:
    """What a partition says that alerts are made of. `now_ms` is its Redis's clock."""

    stats: Stats
    certificates: ClientCertificates
    now_ms: Callable[[], int]


class AlertLoop:
    """Sends the gathered alerts; whoever leads a partition also looks at its success rates and client certificates."""

    def __init__(
        self, alerts: Alerts, sources: Sequence[AlertSource], latest: LatestAlerts | None = None
    ) -> None:
        self._alerts = alerts
        self._sources = sources
        self._latest = latest

    async def run(self, owned: Callable[[], Collection[int]], stopping: asyncio.Event) -> None:
        """Runs until it is cancelled or `stopping`. Survives failures of Redis and of the operator's URL.

        `owned` says which partitions this worker leads.
        """
        while not stopping.is_set():
            await asyncio.sleep(ALERT_SECONDS)
            await self.step(owned)

    async def step(self, owned: Callable[[], Collection[int]]) -> None:
        """One round: looks at the partitions that this worker leads, then sends. Sends nothing if all of them fail in between.

        A partition whose lease is lost meanwhile is not looked at: its server may be silent.
        """
        looked = [await self._look(self._sources[one]) for one in sorted(owned()) if one in owned()]
        if any(looked) or not looked:
            await self._send()

    async def _look(self, source: AlertSource) -> bool:
        """Looks at success rates and client certificates; returns whether Redis answered."""
        try:
            now_ms = source.now_ms()
            self._alerts.rates(await source.stats.workspaces(now_ms, 2))
            self._alerts.certificates(await source.certificates.ending(now_ms), now_ms)
        except RedisUnavailable:
            return False  # the waker logs it
        except Exception:
            log.exception("alerts.internal_error")
        return True

    async def end(self) -> None:
        """Call after `run`: sends what was gathered since, for at most LAST_SECONDS."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._send(), LAST_SECONDS)

    async def _send(self) -> None:
        now_ms = round(time.time() * 1000)
        try:
            await self._keep(now_ms)
            await self._alerts.send(now_ms)
        except Exception:
            log.exception("alerts.internal_error")

    async def _keep(self, now_ms: int) -> None:
        """Keeps what was raised since the last time, for the console. Where that fails it is only logged and sent."""
        if not self._latest:
            return
        try:
            async with asyncio.timeout(KEEP_SECONDS):
                await self._latest.keep(self._alerts.worker, self._alerts.take(), now_ms)
        except (RedisUnavailable, TimeoutError):
            pass  # the waker logs it
        except Exception:
            log.exception("alerts.internal_error")
