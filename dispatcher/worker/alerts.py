"""Alerts for the operator: log events, and a signed POST to the operator's own URL if there is one.

Alerts do not delay callbacks: they are gathered and sent once a minute, one for each kind, workspace and endpoint.
What cannot be sent is sent again with the next POST.
"""

import json
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import structlog

from dispatcher.model import iso
from dispatcher.rules.endpoint_name import EndpointName, subscription_of
from dispatcher.rules.outcomes import State
from dispatcher.signing import key_of, webhook_headers
from dispatcher.store.client_certificates import EndingCertificate
from dispatcher.store.replies import Ended
from dispatcher.store.stats import Figures
from dispatcher.worker.metrics import Metrics

ALERT_SECONDS = 60.0
AGAIN_SECONDS = 3600.0
"""How long an alert about an endpoint that is down, or about a success rate, is not repeated."""
DAY_SECONDS = 86_400.0
"""How long an alert about a client certificate is not repeated."""
MAX_ALERTS, MAX_OF_WORKSPACE = 1000, 20
"""Most different alerts kept until they are sent, in total and of one workspace.

One workspace with many endpoints must not crowd out the alerts of others. Beyond its limit a workspace gets one alert
of each kind, which shows the last one and says how many `more` it stands for. Beyond the total, alerts are only logged.
"""
MAX_TOLD = 10_000
"""Most alerts that a worker remembers, so as not to repeat them within the hour."""
MIN_ENDS = 20
"""How many callbacks must have ended for a success rate to be meaningful."""

log = structlog.get_logger()

Key = tuple[str, str, str]
"""Kind, workspace, and what else distinguishes alerts of one kind."""


@dataclass(frozen=True)
class AlertOptions:
    """When to alert, and where to send it."""

    url: str = field(default="", repr=False)
    """Empty: log events only."""
    secret: str = field(default="", repr=False)
    """Signs the POSTs (whsec_…); empty: they are not signed."""
    down_seconds: float = 900.0
    """How long an endpoint must have been without an answer to be reported."""
    success_rate: float = 0.9
    """A workspace below this rate, in this hour and the last, is reported."""


class _Gathered:
    """Alerts that wait to be sent, within MAX_ALERTS and MAX_OF_WORKSPACE."""

    def __init__(self) -> None:
        self.alerts: dict[Key, dict[str, Any]] = {}
        self._of_workspace: Counter[str] = Counter()

    def alert(self, key: Key) -> dict[str, Any]:
        """Returns the alert to fill in, an existing one if there is one."""
        kind, workspace, _ = key
        new = {"kind": kind, "workspace": workspace}
        if key in self.alerts:
            return self.alerts[key]
        if self._of_workspace[workspace] >= MAX_OF_WORKSPACE:
            together = self.alerts.setdefault((kind, workspace, "*"), new)
            together["more"] = together.get("more", -1) + 1
            return together
        if len(self.alerts) >= MAX_ALERTS:
            return new
        self._of_workspace[workspace] += 1
        return self.alerts.setdefault(key, new)

    def add(self, newer: "_Gathered") -> None:
        """Adds those that were gathered later, as if they were raised now."""
        for key, alert in newer.alerts.items():
            is_there = key in self.alerts
            kept = self.alert(key)
            sums = {name: kept.get(name, 0) + alert.get(name, 0) for name in ("count", "more")}
            sums["more"] += is_there and "more" in alert  # the one that it shows is one of the others now
            shown = kept.keys() | alert.keys()
            kept.update(alert)
            kept.update({name: value for name, value in sums.items() if name in shown})


class Alerts:
    """Gathers one worker's alerts."""

    def __init__(
        self,
        worker: str,
        options: AlertOptions | None = None,
        client: httpx.AsyncClient | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._worker = worker
        self._options = options or AlertOptions()
        self._client = client
        self._metrics = metrics or Metrics()
        self._gathered = _Gathered()
        """Those raised since the last `take`."""
        self._unsent = _Gathered()
        self._told: dict[Key, float] = {}
        """When each alert was last raised, in monotonic seconds; the latest is last."""

    def ended(self, one: Ended) -> None:
        """A callback ended without being delivered."""
        last = one.last
        write = log.info if one.state is State.SUPERSEDED else log.warning
        write(
            "callback.ended",
            event_id=one.event_id,
            workspace=one.workspace,
            endpoint=one.endpoint,
            event_type=one.event_type,
            state=one.state.value,
            http_status=last.http_status if last else None,
            error=last.error if last else None,
        )
        if one.state is State.SUPERSEDED:
            return
        whose = subscription_of(one.event_id)
        alert = self._gathered.alert(
            ("callbacks_ended", one.workspace, f"{whose} {one.endpoint} {one.state}")
        )
        count = alert.get("count", 0) + 1
        alert |= {"subscription": whose} if whose else {}
        alert |= {"endpoint": one.endpoint, "state": one.state.value, "count": count, "eventId": one.event_id}
        alert |= {"lastStatus": last.http_status if last else None, "error": last.error if last else None}
        alert["answer"] = one.answer

    def down(self, name: EndpointName, since_ms: int, now_ms: int, error: str) -> None:
        """The breaker has paused an endpoint that has not answered since `since_ms` (0: it answers)."""
        workspace, endpoint = name.workspace, name.origin
        whose = {"subscription": name.subscription} if name.subscription else {}
        key = "endpoint_down", workspace, f"{name.subscription} {endpoint}"
        if not since_ms or now_ms - since_ms < self._options.down_seconds * 1000 or self._was_told(key):
            return
        log.error(
            "endpoint.down", workspace=workspace, endpoint=endpoint, since=iso(since_ms), error=error, **whose
        )
        self._gathered.alert(key).update(endpoint=endpoint, since=iso(since_ms), error=error, **whose)

    def disabled(self, workspace: str, subscription: str, endpoint: str, reason: str) -> None:
        """A worker disabled a subscription, because its receiver is gone for good."""
        what = {"subscription": subscription, "endpoint": endpoint, "reason": reason}
        log.error("subscription.disabled", workspace=workspace, **what)
        self._gathered.alert(("subscription_disabled", workspace, subscription)).update(what)

    def rates(self, figures: Mapping[str, Figures]) -> None:
        """Checks the success rates of workspaces in this hour and the last."""
        for workspace, one in figures.items():
            counts, rate = one.counts, one.success_rate
            if rate is None or rate >= self._options.success_rate:
                continue
            key = "success_rate", workspace, ""
            enough = counts["delivered"] + counts["failed"] + counts["expired"] >= MIN_ENDS
            if enough and not self._was_told(key):
                shown = {name: counts[name] for name in ("delivered", "failed", "expired")}
                log.error("workspace.success_rate", workspace=workspace, rate=round(rate, 4), **shown)
                self._gathered.alert(key).update(rate=round(rate, 4), **shown)

    def certificates(self, ending: Sequence[EndingCertificate], now_ms: int) -> None:
        """Client certificates that end soon, or have ended; each is told once a day, and at once when it has ended."""
        for one in ending:
            has_ended = one.ends_ms <= now_ms
            key = "client_certificate_ends", one.workspace, f"{one.subscription} {has_ended}"
            if self._was_told(key, DAY_SECONDS):
                continue
            what = {
                "subscription": one.subscription,
                "endsAt": iso(one.ends_ms),
                "hasEnded": has_ended,
            }
            log.error("subscription.certificate_ends", workspace=one.workspace, **what)
            self._gathered.alert(key).update(what)

    @property
    def worker(self) -> str:
        """Whose alerts these are."""
        return self._worker

    def take(self) -> list[dict[str, Any]]:
        """The alerts raised since the last call, for who keeps them; they are still sent."""
        fresh, self._gathered = self._gathered, _Gathered()
        taken = [dict(one) for one in fresh.alerts.values()]
        if self._unsent.alerts:
            self._unsent.add(fresh)
        else:
            self._unsent = fresh
        return taken

    async def send(self, now_ms: int) -> None:
        """POSTs the gathered alerts, if there is a URL; alerts that cannot be sent are kept for the next time."""
        self.take()
        sent, self._unsent = self._unsent, _Gathered()
        if not sent.alerts or not self._options.url or not self._client:
            return
        is_sent = False
        try:
            problem = await self._post(self._client, list(sent.alerts.values()), now_ms)
            is_sent = not problem
        finally:  # also if the worker ends meanwhile
            if not is_sent:
                sent.add(self._unsent)
                self._unsent = sent
                self._metrics.alerts_not_sent += 1
        if problem:
            count = len(sent.alerts)
            log.error("alerts.not_sent", count=count, problem=problem, action="trying again in a minute")

    async def _post(self, client: httpx.AsyncClient, alerts: Sequence[Mapping[str, Any]], now_ms: int) -> str:
        """POSTs alerts; returns what went wrong, or empty text."""
        document = {
            "type": "dispatcher.worker.alerts",
            "at": iso(now_ms),
            "worker": self._worker,
            "alerts": alerts,
        }
        body = json.dumps(document).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "callback-dispatcher"}
        if self._options.secret:
            id_ = f"alert_{secrets.token_hex(12)}"
            headers |= webhook_headers([key_of(self._options.secret)], id_, now_ms // 1000, body)
        try:
            async with client.stream("POST", self._options.url, headers=headers, content=body) as answer:
                return "" if answer.is_success else f"http_{answer.status_code}"
        except httpx.TransportError as error:
            return str(error) or type(error).__name__

    def _was_told(self, key: Key, again_seconds: float = AGAIN_SECONDS) -> bool:
        """Whether this was raised within `again_seconds`; if not, notes that it is raised now."""
        now = time.monotonic()
        if now - self._told.get(key, -again_seconds) < again_seconds:
            return True
        self._told.pop(key, None)
        self._told[key] = now
        if len(self._told) > MAX_TOLD:
            del self._told[next(iter(self._told))]
        return False
