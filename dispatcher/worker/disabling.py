"""Disables subscriptions whose receivers are gone for good: by rules, or because the receiver asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from dispatcher.errors import NotFound, RedisUnavailable
from dispatcher.model import iso
from dispatcher.rules.attempt_errors import NOT_ASKED
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import EndpointHealth, Expired, Failed
from dispatcher.rules.subscription import DEFAULT
from dispatcher.store.audit import Audit
from dispatcher.store.ledger import Ledger
from dispatcher.store.replies import Settled, Settlement
from dispatcher.store.subscriptions import Subscriptions, can_disable
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.worker.alerts import Alerts
from dispatcher.worker.task_set import TaskSet

ASKED = "the receiver asked for it (webhook-delivery: disable)"

log = structlog.get_logger()


@dataclass(frozen=True)
class DisablingRules:
    """After how long a receiver is gone for good, in ms; 0: never."""

    gone_ms: int = 86_400_000
    """Every attempt was answered 410."""
    failing_ms: int = 432_000_000
    """Every attempt failed."""


class Disabler:
    """Disables subscriptions, each in a task of its own, so that no turn waits for it."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        cache: WorkspaceCache,
        ledger: Ledger,
        alerts: Alerts,
        audit: Audit,
        rules: DisablingRules | None = None,
    ) -> None:
        self._subscriptions = subscriptions
        self._cache = cache
        self._ledger = ledger
        self._alerts = alerts
        self._audit = audit
        self._rules = rules or DisablingRules()
        self._under_way: set[EndpointName] = set()
        self._tasks = TaskSet()

    def look_at(self, endpoint: EndpointName, settled: Settled, settlements: Sequence[Settlement]) -> None:
        """Disables the endpoint's subscription if every attempt has failed, or was answered 410, for too long."""
        if not any(_was_asked(one) for one in settlements):
            return
        now_ms, rules = self._ledger.now_ms(), self._rules
        gone_ms, failing_ms = settled.gone_since_ms, settled.failing_since_ms
        if rules.gone_ms and gone_ms and now_ms - gone_ms >= rules.gone_ms:
            self.disable(endpoint, f"it answered 410 to every attempt since {iso(gone_ms)}")
        elif not any(isinstance(one.outcome, Failed | Expired) for one in settlements):
            return  # what was tried has attempts left: a single failure after days without any is no proof
        elif rules.failing_ms and failing_ms and now_ms - failing_ms >= rules.failing_ms:
            self.disable(endpoint, f"every attempt failed since {iso(failing_ms)}")

    def disable(self, endpoint: EndpointName, reason: str) -> None:
        """Starts to disable the endpoint's subscription."""
        if endpoint not in self._under_way:
            self._under_way.add(endpoint)
            self._tasks.start(self._disable(endpoint, reason))

    async def ended(self) -> None:
        """Waits until all tasks have ended."""
        await self._tasks.ended()

    async def _disable(self, endpoint: EndpointName, reason: str) -> None:
        workspace, name = endpoint.workspace, endpoint.subscription or DEFAULT
        try:
            known = await self._cache.get(workspace)
            receiver = known and known.receiver(endpoint.subscription)
            if not receiver or not can_disable(receiver, endpoint):
                return  # Redis need not be asked, each time that it fails
            now_ms = self._ledger.now_ms()
            if not await self._subscriptions.disable(endpoint, reason, self._ledger, now_ms=now_ms):
                return
        except NotFound:  # removed meanwhile
            return
        except RedisUnavailable as error:
            log.error(
                "subscription.not_disabled",
                workspace=workspace,
                subscription=name,
                problem=str(error),
                action="tried again after its next failure",
            )
            return
        except Exception:
            log.exception("subscription.not_disabled", workspace=workspace, subscription=name)
            return
        finally:
            self._under_way.discard(endpoint)
        self._alerts.disabled(workspace, name, endpoint.origin, reason)
        told = {"subscription": name, "state": "disabled", "reason": reason}
        await self._audit.add("subscription.disable", workspace, {"state": "active"}, told)


def _was_asked(one: Settlement) -> bool:
    """Whether an attempt says something of the receiver."""
    return one.health is not EndpointHealth.NONE and not (one.attempt and one.attempt.error in NOT_ASKED)
