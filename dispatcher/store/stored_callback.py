"""A callback as commands display it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dispatcher.codec import iso, iso_or_none
from dispatcher.model import Status
from dispatcher.rules.endpoint_name import EndpointName, subscription_of
from dispatcher.rules.outcomes import ENDS, Attempt, State
from dispatcher.store.keys import endpoint_id


class OfSubscription:
    """What tells whose callback one is."""

    __slots__ = ()
    workspace: str
    event_id: str
    endpoint: str

    @property
    def endpoint_name(self) -> EndpointName:
        """The endpoint's name: its workspace, origin and subscription."""
        return EndpointName(self.workspace, self.endpoint, self.subscription)

    @property
    def subscription(self) -> str:
        """Whose callback it is; empty: the default one's, or to a URL that came with the status change."""
        return subscription_of(self.event_id)


@dataclass(frozen=True, slots=True)
class StoredCallback(OfSubscription):
    """One callback as the ledger has it. Times are ms since 1970."""

    event_id: str
    """With its subscription, if that is not the default one: `eventId.subscription`."""
    workspace: str
    endpoint: str
    """scheme://host:port"""
    message_uuid: str
    status: Status
    event_type: str
    state: State
    attempts: Sequence[Attempt]
    """All attempts, including those before a replay."""
    accepted_ms: int
    expires_ms: int
    next_attempt_ms: int | None
    """None if it is leased, waits behind another callback of its message, or has ended."""
    ended_ms: int | None
    answer: str | None
    """First bytes of the last answer other than 2xx, or why there was none."""
    lease_ends_ms: int | None = None
    """Set while it is leased."""
    attempts_before: int = 0
    """Number of attempts made before its replay."""
    replay_of: str | None = None
    replayed_as: str | None = None
    cancelled: bool = False
    """The operator ended it."""
    others: tuple[str, ...] = ()
    """The other subscriptions that its status change went to, if this is the status change's own."""

    @property
    def ended(self) -> bool:
        """Whether its state is final."""
        return self.state in ENDS

    @property
    def error(self) -> str | None:
        """The last attempt's error; None before the first attempt and after a 2xx."""
        return self.attempts[-1].error if self.attempts else None

    @property
    def pending(self) -> "Pending":
        """It, as one that waits: for moving or cancelling it."""
        is_lost = "://" not in self.endpoint  # the name is gone from its endpoint's record: this is the id
        name = self.endpoint if is_lost else endpoint_id(self.endpoint_name)
        return Pending(self.event_id, name, self.message_uuid, self.expires_ms)

    def as_json(self) -> dict[str, Any]:
        """The document that `event show --json` prints; times are ISO 8601 in UTC."""
        return {
            "eventId": self.event_id,
            "workspace": self.workspace,
            **({"subscription": self.subscription} if self.subscription else {}),
            "endpoint": self.endpoint,
            "messageId": self.message_uuid,
            "status": self.status,
            "eventType": self.event_type,
            "state": self.state.value,
            "attempts": [
                {
                    "number": number,
                    "startedAt": iso(attempt.started_at_ms),
                    "durationMs": attempt.duration_ms,
                    "httpStatus": attempt.http_status,
                    "error": attempt.error,
                }
                for number, attempt in enumerate(self.attempts, 1)
            ],
            "acceptedAt": iso(self.accepted_ms),
            "expiresAt": iso(self.expires_ms),
            "nextAttemptAt": iso_or_none(self.next_attempt_ms),
            "endedAt": iso_or_none(self.ended_ms),
            "lastAnswer": self.answer,
            "attemptsBeforeReplay": self.attempts_before,
            "replayOf": self.replay_of,
            "replayedAs": self.replayed_as,
            "cancelled": self.cancelled,
        }


@dataclass(frozen=True, slots=True)
class Pending:
    """A callback that has not ended, and where it goes."""

    event_id: str
    endpoint: str
    """The endpoint's id."""
    message_uuid: str
    expires_ms: int

    @property
    def waiting(self) -> "Waiting":
        """It, and no later replay of it."""
        return Waiting(self.event_id, self.expires_ms)


class Waiting(NamedTuple):
    """A waiting callback that was chosen for an action."""

    event_id: str
    expires_ms: int = 0
    """When it expired as it was chosen: one that ended and was replayed since is left alone. 0: whenever it expires."""
