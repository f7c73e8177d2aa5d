"""Alerts for the operator: log events, and a signed POST to the operator's own URL if there is one.

Alerts do not delay callbacks: they are gathered and sent once a minute, one for each kind, workspace and endpoint.
What cannot be sent is sent again with the next POST.
"""

import json
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import structlog

from dispatcher.model import iso
from dispatcher.rules.outcomes import State
from dispatcher.signing import key_of, webhook_headers
from dispatcher.store.replies import Ended
from dispatcher.store.stats import Figures

ALERT_SECONDS = 60.0
AGAIN_SECONDS = 3600.0
"""How long an alert about an endpoint that is down, or about a success rate, is not repeated."""
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


class Alerts:
    """Gathers one worker's alerts."""

    def __init__(
        self, worker: str, options: AlertOptions | None = None, client: httpx.AsyncClient | None = None
    ) -> None:
        self._worker = worker
        self._options = options or AlertOptions()
        self._client = client
        self._alerts: dict[Key, dict[str, Any]] = {}
        self._of_workspace: Counter[str] = Counter()
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
        alert = self._alert("callbacks_ended", one.workspace, f"{one.endpoint} {one.state}")
        count = alert.get("count", 0) + 1
        alert |= {"endpoint": one.endpoint, "state": one.state.value, "count": count, "eventId": one.event_id}
        alert |= {"lastStatus": last.http_status if last else None, "error": last.error if last else None}
        alert["answer"] = one.answer

    def down(self, workspace: str, endpoint: str, since_ms: int, now_ms: int, error: str) -> None:
        """The breaker has paused an endpoint that has not answered since `since_ms` (0: it answers)."""
        key = "endpoint_down", workspace, endpoint
        if not since_ms or now_ms - since_ms < self._options.down_seconds * 1000 or self._was_told(key):
            return
        log.error("endpoint.down", workspace=workspace, endpoint=endpoint, since=iso(since_ms), error=error)
        self._alert(*key).update(endpoint=endpoint, since=iso(since_ms), error=error)

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
                self._alert(*key).update(rate=round(rate, 4), **shown)

    async def send(self, now_ms: int) -> None:
        """POSTs the gathered alerts, if there is a URL; alerts that cannot be sent are kept for the next time."""
        alerts, self._alerts, self._of_workspace = self._alerts, {}, Counter()
        if not alerts or not self._options.url or not self._client:
            return
        body = json.dumps(
            {
                "type": "dispatcher.worker.alerts",
                "at": iso(now_ms),
                "worker": self._worker,
                "alerts": list(alerts.values()),
            }
        ).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "callback-dispatcher"}
        if self._options.secret:
            id_ = f"alert_{secrets.token_hex(12)}"
            headers |= webhook_headers([key_of(self._options.secret)], id_, now_ms // 1000, body)
        try:
            async with self._client.stream(
                "POST", self._options.url, headers=headers, content=body
            ) as answer:
                problem = "" if answer.is_success else f"http_{answer.status_code}"
        except httpx.TransportError as error:
            problem = str(error)
        if problem:
            log.error(
                "alerts.not_sent", count=len(alerts), problem=problem, action="trying again in a minute"
            )
            for key, alert in alerts.items():
                newer = self._alerts.get(key, {})
                count = {"count": alert["count"] + newer.get("count", 0)} if "count" in alert else {}
                self._alerts[key] = alert | newer | count
            self._of_workspace = Counter(workspace for _, workspace, _ in self._alerts)

    def _alert(self, kind: str, workspace: str, what: str) -> dict[str, Any]:
        """Returns the alert to fill in, an existing one if there is one."""
        key, new = (kind, workspace, what), {"kind": kind, "workspace": workspace}
        if key in self._alerts:
            return self._alerts[key]
        if self._of_workspace[workspace] >= MAX_OF_WORKSPACE:
            together = self._alerts.setdefault((kind, workspace, "*"), new)
            together["more"] = together.get("more", -1) + 1
            return together
        if len(self._alerts) >= MAX_ALERTS:
            return new
        self._of_workspace[workspace] += 1
        return self._alerts.setdefault(key, new)

    def _was_told(self, key: Key) -> bool:
        """Whether this was raised within AGAIN_SECONDS; if not, notes that it is raised now."""
        now = time.monotonic()
        if now - self._told.get(key, -AGAIN_SECONDS) < AGAIN_SECONDS:
            return True
        self._told.pop(key, None)
        self._told[key] = now
        if len(self._told) > MAX_TOLD:
            del self._told[next(iter(self._told))]
        return False
