"""Disables subscriptions whose receivers are gone for good: by rules, or because the receiver asks for it."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from dispatcher.errors import NotFound, RedisUnavailable
from dispatcher.model import iso
from dispatcher.rules.attempt_errors import NOT_ASKED
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.gone import History, Rule, since_everywhere
from dispatcher.rules.outcomes import EndpointHealth, Expired, Failed
from dispatcher.rules.subscription import DEFAULT
from dispatcher.rules.workspace import Workspace
from dispatcher.store.audit import Audit
from dispatcher.store.ledger import Ledger
from dispatcher.store.replies import Settled, Settlement
from dispatcher.store.subscriptions import Subscriptions, can_disable
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.worker.alerts import Alerts
from dispatcher.worker.task_set import TaskSet

REPEAT_SECONDS = 5.0
"""How often other partitions, which did not answer, are told that a subscription is disabled."""
ASKED = "the receiver asked for it (webhook-delivery: disable)"

log = structlog.get_logger()


@dataclass(frozen=True)
class DisablingRules:
    """After how long a receiver is gone for good, in ms; 0: never."""

    gone_ms: int = 86_400_000
    """Every attempt was answered 410."""
    failing_ms: int = 432_000_000
    """Every attempt failed."""


@dataclass(frozen=True)
class Held:
    """A rule's condition has held for long enough in the partition that looked: since `since_ms`; `latest_ms` would be enough."""

    rule: Rule
    since_ms: int
    latest_ms: int


class Parts(Protocol):
    """The partitions of a workspace (store/across/workspace_parts.py)."""

    def ledgers(self, workspace: Workspace) -> list[Ledger]:
        """The ledgers of all of them."""

    async def histories(self, workspace: Workspace, endpoint: EndpointName, beside: int) -> list[History]:
        """What those but for `beside` know of an endpoint. Raises RedisUnavailable if one does not answer."""


class Disabler:
    """Disables subscriptions, each in a task of its own, so that no turn waits for it.

    With several `parts` of a workspace the rules must hold in all of them.
    """

    def __init__(
        self,
        subscriptions: Subscriptions,
        cache: WorkspaceCache,
        ledger: Ledger,
        alerts: Alerts,
        audit: Audit,
        rules: DisablingRules | None = None,
        parts: Parts | None = None,
    ) -> None:
        self._subscriptions = subscriptions
        self._cache = cache
        self._ledger = ledger
        self._alerts = alerts
        self._audit = audit
        self._rules = rules or DisablingRules()
        self._parts = parts
        self._under_way: set[EndpointName] = set()
        self._tasks = TaskSet()
        self._repeats = TaskSet()
        """What other partitions are to hear of once they answer."""

    def look_at(self, endpoint: EndpointName, settled: Settled, settlements: Sequence[Settlement]) -> None:
        """Disables the endpoint's subscription if every attempt has failed, or was answered 410, for too long."""
        if not any(_was_asked(one) for one in settlements):
            return
        if held := [*self._held(settled, settlements)]:
            self._start(endpoint, held)

    def disable(self, endpoint: EndpointName, reason: str) -> None:
        """Starts to disable the endpoint's subscription."""
        self._start(endpoint, reason)

    def _start(self, endpoint: EndpointName, why: str | Sequence[Held]) -> None:
        if endpoint not in self._under_way:
            self._under_way.add(endpoint)
            self._tasks.start(self._disable(endpoint, why))

    async def ended(self) -> None:
        """Waits until all tasks have ended; what only waits for partitions that do not answer is given up."""
        await self._tasks.ended()
        await self._repeats.cancel()

    def _held(self, settled: Settled, settlements: Sequence[Settlement]) -> Iterator[Held]:
        """The rules whose conditions have held here for long enough."""
        now_ms, rules = self._ledger.now_ms(), self._rules
        if rules.gone_ms and 0 < settled.gone_since_ms <= now_ms - rules.gone_ms:
            yield Held(Rule.GONE, settled.gone_since_ms, now_ms - rules.gone_ms)
        if not any(isinstance(one.outcome, Failed | Expired) for one in settlements):
            return  # what was tried has attempts left: a single failure after days without any is no proof
        if rules.failing_ms and 0 < settled.failing_since_ms <= now_ms - rules.failing_ms:
            yield Held(Rule.FAILING, settled.failing_since_ms, now_ms - rules.failing_ms)

    async def _disable(self, endpoint: EndpointName, why: str | Sequence[Held]) -> None:
        workspace, name = endpoint.workspace, endpoint.subscription or DEFAULT
        try:
            known = await self._cache.get(workspace)
            receiver = known and known.receiver(endpoint.subscription)
            if not known or not receiver or not can_disable(receiver, endpoint):
                return  # Redis need not be asked, each time that it fails
            reason = await self._reason(known, endpoint, why)
            ledgers = self._parts.ledgers(known) if self._parts else [self._ledger]
            if not reason:
                return
            changed = await self._subscriptions.disable(endpoint, reason, now_ms=self._ledger.now_ms())
            if not changed:
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
        try:
            await self._end(endpoint, ledgers, copies=bool(changed.not_copied))
        except RedisUnavailable:  # it is disabled at its home, and that is told
            self._repeats.start(self._end_later(endpoint, ledgers))

    async def _end(self, endpoint: EndpointName, ledgers: Sequence[Ledger], *, copies: bool) -> None:
        with suppress(NotFound):  # removed meanwhile
            await self._subscriptions.end_disabled(endpoint, ledgers, copies=copies)

    async def _end_later(self, endpoint: EndpointName, ledgers: Sequence[Ledger]) -> None:
        """Copies that a subscription is disabled, and ends what waits for it, once all partitions answer."""
        while True:
            await asyncio.sleep(REPEAT_SECONDS)
            with suppress(RedisUnavailable):
                return await self._end(endpoint, ledgers, copies=True)

    async def _reason(self, known: Workspace, endpoint: EndpointName, why: str | Sequence[Held]) -> str:
        """Why to disable the endpoint's subscription; empty if another partition of the workspace has seen otherwise."""
        if isinstance(why, str):
            return why
        here = self._ledger.keys.partition
        others = await self._parts.histories(known, endpoint, here) if self._parts else []
        for one in why:
            if since_ms := since_everywhere(one.rule, one.since_ms, one.latest_ms, others):
                return f"{one.rule.value} since {iso(since_ms)}"
        return ""


def _was_asked(one: Settlement) -> bool:
    """Whether an attempt says something of the receiver."""
    return one.health is not EndpointHealth.NONE and not (one.attempt and one.attempt.error in NOT_ASKED)
