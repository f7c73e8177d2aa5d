"""Attempts as they are made, for `dispatcher tail`: published while somebody watches, never stored."""

import asyncio
from typing import Any

import structlog

from dispatcher.errors import RedisUnavailable
from dispatcher.model import iso
from dispatcher.rules.callback import Claimed
from dispatcher.rules.outcomes import Attempt
from dispatcher.rules.subscription import DEFAULT
from dispatcher.store.attempt_channel import AttemptChannel
from dispatcher.store.replies import Claim

WATCH_SECONDS = 5
"""How long attempts are published after a watcher last renewed its key in Redis."""
MAX_KEPT = 1000
"""Most attempts between two publications; more are dropped, since no person can read that many."""

log = structlog.get_logger()


class Tail:
    """One worker's attempts. The waker says whether somebody watches."""

    def __init__(self, channel: AttemptChannel) -> None:
        self.watched = False
        self._channel = channel
        self._kept: list[dict[str, Any]] = []
        self._fails = False
        self._publishing: asyncio.Task[None] | None = None

    def add(self, callback: Claimed, claim: Claim, attempt: Attempt, outcome: str) -> None:
        """Keeps one attempt that has ended for the next `publish`, if somebody watches."""
        if self.watched and len(self._kept) < MAX_KEPT:
            self._kept.append(
                {
                    "at": iso(attempt.started_at_ms),
                    "workspace": claim.workspace,
                    "subscription": claim.subscription or DEFAULT,
                    "endpoint": claim.origin,
                    "eventId": callback.event_id,
                    "messageId": callback.message_uuid,
                    "eventType": callback.event_type,
                    "attempt": callback.attempt,
                    "httpStatus": attempt.http_status,
                    "error": attempt.error,
                    "durationMs": attempt.duration_ms,
                    "outcome": outcome,
                }
            )

    def begin_publishing(self, *, watched: bool) -> None:
        """As `publish`, in the background: the server of the watchers may be slow. While one goes on, none begins."""
        self.watched = watched
        if self._publishing is None or self._publishing.done():
            self._publishing = asyncio.create_task(self.publish(watched=watched))
            self._publishing.add_done_callback(_log_error)

    async def end(self) -> None:
        """Ends what goes on in the background."""
        if self._publishing:
            self._publishing.cancel()
            await asyncio.wait({self._publishing})

    async def publish(self, *, watched: bool) -> None:
        """Publishes the kept attempts if somebody still watches, and forgets them; a failure is logged once."""
        kept, self._kept, self.watched = self._kept, [], watched
        if not (kept and watched):
            return
        try:
            await self._channel.publish(kept)
            self._fails = False
        except RedisUnavailable as error:
            if not self._fails:
                log.warning("tail.unpublished", problem=str(error), consequence="watchers miss attempts")
            self._fails = True


def _log_error(publishing: "asyncio.Task[None]") -> None:
    if not publishing.cancelled() and (error := publishing.exception()):
        log.error("tail.internal_error", consequence="watchers miss attempts", exc_info=error)
