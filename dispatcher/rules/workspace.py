"""A workspace: one customer, with a dialect, a callback URL, secrets and limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dispatcher.errors import InvalidInput
from dispatcher.signing import key_of

ORDERINGS = ("first_attempt", "strict", "latest")


@dataclass(frozen=True, slots=True)
class Secret:
    """One signing secret; hidden from `repr`."""

    text: str = field(repr=False)
    created_ms: int
    expires_ms: int | None = None
    """When it stops signing; None for the current one."""

    @property
    def key(self) -> bytes:
        """The HMAC key."""
        return key_of(self.text)


@dataclass(frozen=True, slots=True)
class Workspace:
    """One customer. Each real change gives a new `revision`; an update with equal values keeps it."""

    id: str
    dialect: str
    callback_url: str = field(repr=False)
    """Empty if there is none: only status changes with a URL of their own cause callbacks then."""
    secrets: tuple[Secret, ...]
    created_ms: int
    revision: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Extra headers, sent with each callback."""
    max_concurrency: int | None = None
    """Limit of callbacks in flight to one endpoint; None: the setting's."""
    rate_per_second: float | None = None
    """Limit of callbacks a second to one endpoint; None or 0: no limit."""
    ordering: str = "first_attempt"
    """Order of one message's callbacks to one endpoint: one of ORDERINGS."""
    webhook_ms: int | None = None
    """When the customer set the callback URL through the API, in ms since 1970; None if never."""
    problem: str | None = None
    """Why the secrets cannot be decrypted; `secrets` is empty then."""
    before: "Workspace | None" = field(default=None, repr=False, compare=False)
    """The workspace before the change that returned this one; it has the same revision if nothing changed."""

    def live_secrets(self, now_ms: int) -> list[Secret]:
        """The secrets that sign now, oldest first. Raises InvalidInput if there is none."""
        if self.problem:
            raise InvalidInput(self.problem)
        live = [s for s in self.secrets if s.expires_ms is None or s.expires_ms > now_ms]
        if not live:
            raise InvalidInput("it has no live secret")
        return live
