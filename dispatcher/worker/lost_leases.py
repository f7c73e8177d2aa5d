"""Callbacks whose lease ran out because their worker died or stalled."""

import random
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

import structlog

from dispatcher.errors import RedisUnavailable
from dispatcher.rules.decide import Policy, decide_lost
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import Attempt
from dispatcher.store.replies import Hint, Lost, Settled, Settlement
from dispatcher.worker.task_set import TaskSet
from dispatcher.worker.turn import TurnParts
from dispatcher.worker.turns import Turns

log = structlog.get_logger()


class LostLeases:
    """Settles them as attempts, because a POST may have been made.

    Each endpoint has a task of its own, so that it holds up neither other endpoints nor the waker.
    """

    def __init__(self, parts: TurnParts, turns: Turns) -> None:
        self._parts = parts
        self._turns = turns
        self._settling: set[str] = set()
        """Endpoints with a task; the waker finds their callbacks again until they are settled."""
        self._tasks = TaskSet()

    def settle(self, found: Sequence[Lost]) -> None:
        """Starts to settle the callbacks that a wake found."""
        for endpoint, group in groupby(found, attrgetter("endpoint")):
            if endpoint not in self._settling:
                self._settling.add(endpoint)
                self._tasks.start(self._settle_of(endpoint, list(group)))

    async def ended(self) -> None:
        """Waits until all tasks have ended."""
        await self._tasks.ended()

    async def _settle_of(self, endpoint: str, lost: Sequence[Lost]) -> None:
        try:
            policy = await self._policy_of(EndpointName.parse(lost[0].endpoint_name))
            settlements = [self._settlement_of(one, policy) for one in lost]
            settled = await self._parts.settler.settle(endpoint, settlements)
        except RedisUnavailable as error:  # the waker finds them again
            self._parts.watch.failed(error)
            return
        except Exception:
            log.exception("waker.internal_error", endpoint=endpoint)
            return
        finally:
            self._settling.discard(endpoint)
        self._log(lost, settled)
        if settled.more:
            workspace = EndpointName.parse(lost[0].endpoint_name).workspace
            self._turns.hint([Hint(endpoint, workspace, self._parts.partition)])

    async def _policy_of(self, endpoint: EndpointName) -> Policy:
        """The retry policy of an endpoint's receiver, read anew: a wake does not tell the workspace's revision."""
        workspaces = self._parts.workspaces
        workspaces.forget(endpoint.workspace)
        try:
            workspace = await workspaces.get(endpoint.workspace)
        except RedisUnavailable:
            raise
        except Exception:  # a damaged record: its callbacks must not stay leased for that
            log.exception("waker.internal_error", workspace=endpoint.workspace)
            return self._parts.policy
        return self._parts.policy.of(workspace and workspace.receiver(endpoint.subscription))

    def _settlement_of(self, lost: Lost, policy: Policy) -> Settlement:
        now_ms = self._parts.ledger.now_ms()
        outcome = decide_lost(
            lost.attempt,
            lost.lost_before,
            now_ms=now_ms,
            expires_ms=lost.expires_ms,
            policy=policy,
            rng=random.random(),
        )
        attempt = Attempt(now_ms, 0, error="worker_lost")
        return Settlement(lost.event_id, lost.claim, outcome, attempt, losses=lost.lost_before + 1)

    def _log(self, lost: Sequence[Lost], settled: Settled) -> None:
        for one, counted in zip(lost, settled.counted, strict=True):
            if counted:
                log.warning("callback.worker_lost", event_id=one.event_id, endpoint=one.endpoint_name)
