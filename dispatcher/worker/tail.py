"""Attempts as they are made, for whoever watches: published while somebody does, kept nowhere."""

import json
from typing import Any

import structlog
from redis.exceptions import RedisError

from dispatcher.model import iso
from dispatcher.rules.callback import Claimed
from dispatcher.rules.outcomes import Attempt
from dispatcher.store.keys import Keys
from dispatcher.store.replies import Claim
from dispatcher.store.wire import Call

WATCH_SECONDS = 5
"""How long attempts are published after a watcher last said that it is there."""
MAX_KEPT = 1000
"""Attempts between two publications; more than anybody can read."""

log = structlog.get_logger()


class Tail:
    """One worker's attempts. `watched` is found out by the waker."""

    def __init__(self, call: Call, keys: Keys) -> None:
        self.watched = False
        self._call = call
        self._channel = keys.tail
        self._kept: list[dict[str, Any]] = []
        self._fails = False

    def add(self, callback: Claimed, claim: Claim, attempt: Attempt, outcome: str) -> None:
        """One attempt that has ended; forgotten at once where nobody watches."""
        if self.watched and len(self._kept) < MAX_KEPT:
            self._kept.append(
                {
                    "at": iso(attempt.started_at_ms),
                    "workspace": claim.workspace,
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

    async def publish(self, *, watched: bool) -> None:
        """Sends what was kept to the watchers, if there are any still; where that fails, says so once."""
        kept, self._kept, self.watched = self._kept, [], watched
        if not (kept and watched):
            return
        try:
            await self._call("PUBLISH", self._channel, json.dumps(kept))
            self._fails = False
        except RedisError as error:
            if not self._fails:
                log.warning("tail.unpublished", problem=str(error), consequence="watchers miss attempts")
            self._fails = True
