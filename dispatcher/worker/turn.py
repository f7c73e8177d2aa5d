"""A turn: one worker serves one endpoint for a few seconds. Claim, send, decide, settle, rest."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from msgspec.structs import replace

from dispatcher.errors import EndpointBroken, RedisUnavailable
from dispatcher.model import iso
from dispatcher.rules.attempt_errors import DISABLED
from dispatcher.rules.callback import Claimed
from dispatcher.rules.decide import Policy
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import Attempt, EndpointHealth, Outcome, Released
from dispatcher.rules.subscription import Receiver
from dispatcher.rules.workspace import Workspace
from dispatcher.sending.sender import Sender
from dispatcher.store.arguments import MOST_OUTCOMES
from dispatcher.store.ledger import Ledger
from dispatcher.store.replies import Claim, Hint, Settled, Settlement
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.worker.alerts import Alerts
from dispatcher.worker.attempt_log import count_attempt, log_attempt, name_of
from dispatcher.worker.attempt_result import put_back, settlement_of
from dispatcher.worker.claimer import Claimer
from dispatcher.worker.disabling import ASKED, Disabler
from dispatcher.worker.in_hand import InHand
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.not_sent import not_sent
from dispatcher.worker.own_faults import OwnFaults
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.settler import Settler
from dispatcher.worker.slots import Slots
from dispatcher.worker.tail import Tail

FIRST_CLAIM, CLAIM_BATCH = 4, 32
"""How many callbacks a turn's first claim asks for, and the most that any claim does: it doubles each time.

Slots are taken for all of them until the reply arrives.
"""

log = structlog.get_logger()


@dataclass(frozen=True)
class TurnParts:
    """What the turns of a worker share; of several partitions, what those of one share."""

    ledger: Ledger
    claimer: Claimer
    settler: Settler
    sender: Sender
    workspaces: WorkspaceCache
    watch: RedisWatch
    policy: Policy
    slots: Slots
    alerts: Alerts
    tail: Tail
    disabler: Disabler | None = None
    """None: no subscription is disabled."""
    metrics: Metrics = field(default_factory=Metrics)
    own_faults: OwnFaults = field(default_factory=OwnFaults)
    turn_seconds: float = 5.0
    request_timeout_seconds: float = 10.0
    allow_http: bool = True
    """Whether callbacks may be sent to http://."""
    partition: int = 0
    """The number of the partition whose callbacks these are."""
    is_divided: bool = False
    """Whether there are others, on servers that may answer while this one's does not."""


class Turn:
    """Serves one endpoint until nothing more can be claimed, or the turn's time is over."""

    def __init__(self, hint: Hint, parts: TurnParts, claim: Claim | None = None) -> None:
        self.endpoint, self.workspace, self.partition = hint
        self._name = EndpointName(hint.workspace, hint.endpoint)  # its id, until the first claim names it
        self._parts = parts
        self._until = time.monotonic() + parts.turn_seconds
        self._more = True
        self._batch = FIRST_CLAIM
        self._token_at: float | None = None
        self._finished: list[Settlement] = []
        self._in_hand = InHand()
        self._news = asyncio.Event()
        self._taken = 0
        """Slots for a claim. Those for the first are taken when the turn is created, so that Admission sees how many are left."""
        if claim:
            self._more = False
            self.take(claim)
        else:
            self._taken = parts.slots.take(self.endpoint, self.workspace, FIRST_CLAIM)

    def nudge(self) -> None:
        """Has the turn claim once more: the endpoint was hinted again, or the turn is to see that it must end."""
        self._more = True
        self._news.set()

    async def begin(self) -> None:
        """Makes the first claim, of a turn that was created without one.

        After it the turn waits for the receiver, not for Redis, so Admission counts it only until then.
        """
        if self._may_claim():
            await self._claim()

    async def run(self) -> bool:
        """Serves the endpoint; returns whether it is left with work and must be hinted."""
        try:
            while True:
                if self._may_claim():
                    await self._claim()
                elif self._finished:
                    await self._settle()
                elif self._in_hand.under_way or self._waits_for_token():
                    await self._news_or_token()
                else:
                    return self._more or self._token_at is not None
        finally:
            self._refund()

    def _refund(self, used: int = 0) -> None:
        """Returns the slots that were taken for a claim, but for the `used` ones."""
        taken, self._taken = self._taken, 0
        self._parts.slots.refund(self.endpoint, self.workspace, taken - used)

    def _free(self) -> int:
        return self._parts.slots.free(self.endpoint, self.workspace)

    def _may_claim(self) -> bool:
        return (
            self._more and not self._finished and self._has_time() and (self._taken > 0 or self._free() > 0)
        )

    def _has_time(self) -> bool:
        return time.monotonic() < self._until

    def _waits_for_token(self) -> bool:
        return self._token_at is not None and self._has_time() and self._free() > 0

    async def _news_or_token(self) -> None:
        """Waits until an attempt has ended, the turn is nudged, or the next token of the endpoint's rate is due."""
        until = None if self._token_at is None else min(self._token_at, self._until)
        wait = None if until is None else max(0.0, until - time.monotonic())
        try:
            await asyncio.wait_for(self._news.wait(), wait)
            self._news.clear()
        except TimeoutError:
            self._more, self._token_at = True, None

    async def _claim(self) -> None:
        self._more = False
        slots = self._parts.slots
        self._taken = self._taken or slots.take(self.endpoint, self.workspace, self._batch)
        self._batch = min(self._batch * 2, CLAIM_BATCH)
        try:
            claim = await self._parts.claimer.claim(self.endpoint, self._taken)
        except Exception as error:
            self._refund()
            if self._parts.is_divided:  # or a silent server's endpoints would take the places of all others
                slots.suspect(self.workspace)
            self._lost_reply(error, "what was claimed comes back when its lease ends")
            return
        self._refund(len(claim.callbacks))
        self.take(claim)

    def take(self, claim: Claim) -> None:
        """Sends the claimed callbacks; their slots are taken already."""
        self._more = self._more or claim.more
        self._name = EndpointName(claim.workspace, claim.origin, claim.subscription)
        self._token_at = time.monotonic() + claim.wait_ms / 1000 if claim.wait_ms else None
        for callback in claim.callbacks:
            if not self._in_hand.take(callback):
                self._parts.slots.refund(self.endpoint, self.workspace, 1)
                log.warning("callback.claimed_again", event_id=callback.event_id, claim=callback.claim)
                continue
            task = asyncio.create_task(self._attempt(callback, claim))
            task.add_done_callback(self._attempted)

    def _attempted(self, task: "asyncio.Task[Settlement]") -> None:
        settlement = self._in_hand.ended(task.result())
        took_ms = settlement.attempt.duration_ms if settlement.attempt else 0
        self._parts.slots.give_back(self.endpoint, self.workspace, 1)
        self._parts.slots.learn(self.endpoint, self.workspace, settlement.health, took_ms)
        self._finished.append(settlement)
        self._news.set()

    async def _settle(self) -> None:
        settlements, self._finished = self._finished[:MOST_OUTCOMES], self._finished[MOST_OUTCOMES:]
        slots, settler = self._parts.slots, self._parts.settler
        if self._gives_way(settlements):
            self._until = 0.0
        taken = slots.take(self.endpoint, self.workspace, len(settlements)) if self._has_time() else 0
        self._taken += taken
        try:
            settled = await settler.settle(self.endpoint, settlements, taken, self._refund)
        except Exception as error:
            self._refund()
            self._lost_reply(
                error, f"{len(settlements)} results are not recorded: sent again after their lease"
            )
            return
        finally:
            self._in_hand.recorded(settlements)
        self._refund(len(settled.claim.callbacks) if settled.claim else 0)
        self._more = self._more or settled.more
        if settled.claim:
            self.take(settled.claim)
        for settlement, ok in zip(settlements, settled.counted, strict=True):
            if not ok:
                self._parts.metrics.lease_losses += 1
                log.warning("callback.lease_lost", event_id=settlement.event_id, claim=settlement.claim)
        self._log_breaker(settled, settlements)
        if settled.failing_since_ms and self._parts.disabler:
            self._parts.disabler.look_at(self._name, settled, settlements)

    def _gives_way(self, settlements: Sequence[Settlement]) -> bool:
        """Whether to end the turn, for the endpoint to queue again: it accepted nothing, and others want slots.

        Otherwise a thousand endpoints that refuse at once, each with more to send, would keep the worker busy until all
        of them are paused.
        """
        took_one = any(one.health is EndpointHealth.UP for one in settlements)
        return not took_one and self._parts.slots.are_wanted_beside(self.workspace)

    def _log_breaker(self, settled: Settled, settlements: Sequence[Settlement]) -> None:
        if settled.breaker != "same":
            self._parts.metrics.breakers[settled.breaker] += 1
        if settled.breaker == "opened":
            error = next(
                (s.attempt.error for s in reversed(settlements) if s.attempt and s.attempt.error), ""
            )
            log.warning(
                "endpoint.paused",
                endpoint=str(self._name),
                until=iso(settled.paused_until_ms),
                down_since=iso(settled.down_since_ms),
                error=error,
            )
            name, now_ms = self._name, self._parts.ledger.now_ms()
            self._parts.alerts.down(name, settled.down_since_ms, now_ms, error)
        elif settled.breaker == "closed":
            log.info("endpoint.recovered", endpoint=str(self._name))

    def _lost_reply(self, error: Exception, consequence: str) -> None:
        """A call to the ledger failed: claims no more in this turn; the waker hints the endpoint when it is due."""
        self._until = 0.0
        self._more, self._token_at = False, None
        if isinstance(error, RedisUnavailable):
            self._parts.watch.failed(error)
            log.warning("turn.interrupted", endpoint=self.endpoint, consequence=consequence)
        elif isinstance(error, EndpointBroken):
            log.error("turn.interrupted", endpoint=self.endpoint, consequence=consequence, problem=str(error))
        else:
            log.error("turn.internal_error", endpoint=self.endpoint, consequence=consequence, exc_info=error)

    async def _attempt(self, callback: Claimed, claim: Claim) -> Settlement:
        """One attempt, from claim to outcome; never raises."""
        policy, receiver = self._parts.policy, None
        try:
            workspace = await self._parts.workspaces.get(claim.workspace, claim.revision)
            receiver = workspace and workspace.receiver(claim.subscription)
            policy = policy.of(receiver)
            attempt = await self._send(callback, claim, workspace)
        except RedisUnavailable as error:  # its workspace could not be read: nothing was sent
            self._parts.watch.failed(error)
            return put_back(callback)
        except Exception as error:
            log.exception("callback.internal_error", event_id=callback.event_id, workspace=claim.workspace)
            attempt = Attempt(0, 0, internal_error=f"{type(error).__name__}: {error}")
        if attempt is None:
            return Settlement(callback.event_id, callback.claim, Released(), None)
        settlement = None
        try:
            settlement = settlement_of(callback, attempt, policy)
            if attempt.internal_error is None:
                self._parts.own_faults.over(claim.workspace, claim.subscription)
            else:
                again_ms = self._parts.own_faults.delay_ms(claim.workspace, claim.subscription)
                settlement = replace(settlement, outcome=Released(again_ms))
            self._tell(callback, claim, attempt, settlement.outcome, policy, receiver)
        except Exception:  # a task that failed would keep its slot and its turn for ever
            log.exception("callback.internal_error", event_id=callback.event_id, workspace=claim.workspace)
        return settlement or put_back(callback)

    async def _send(self, callback: Claimed, claim: Claim, workspace: Workspace | None) -> Attempt | None:
        """Makes the attempt; None if the lease or the callback's expiry leaves no time for one."""
        parts = self._parts
        now_ms = parts.ledger.now_ms()
        if (
            claim.lease_ends_at - time.monotonic() < parts.request_timeout_seconds
            or now_ms >= callback.expires_ms
        ):
            return None
        if refused := not_sent(callback, now_ms, allow_http=parts.allow_http):
            return refused
        return await parts.sender.send(callback, workspace, now_ms)

    def _tell(
        self,
        callback: Claimed,
        claim: Claim,
        attempt: Attempt,
        outcome: Outcome,
        policy: Policy,
        receiver: Receiver | None,
    ) -> None:
        """Has the log, the metrics and `tail` know of an attempt; disables the subscription if the receiver asks for it."""
        name = name_of(outcome)
        log_attempt(callback, claim, attempt, outcome, name, policy.max_attempts)
        is_asked = attempt.error == DISABLED and receiver and receiver.has_url(callback.url)
        if is_asked and self._parts.disabler:
            self._parts.disabler.disable(self._name, ASKED)
        count_attempt(self._parts.metrics, callback, attempt, outcome, name)
        self._parts.tail.add(callback, claim, attempt, name)
