"""A workspace: one customer, with a dialect, a callback URL, secrets and limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dispatcher.errors import InvalidInput
from dispatcher.signing import key_of

ORDERINGS = ("first_attempt", "strict", "latest")


@dataclass(frozen=True, slots=True)
class Secret:
    """One signing secret; `repr` does not show it."""

    text: str = field(repr=False)
    created_ms: int
    expires_ms: int | None = None
    """When it stops signing; None while it is the current one."""

    @property
    def key(self) -> bytes:
        """The HMAC key inside."""
        return key_of(self.text)


@dataclass(frozen=True, slots=True)
class Workspace:
    """One customer. `revision` changes with every change of it; what changes nothing changes no revision."""

    id: str
    dialect: str
    callback_url: str = field(repr=False)
    """Empty: it has none; only status changes that carry their own cause callbacks."""
    secrets: tuple[Secret, ...]
    created_ms: int
    revision: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Its own headers, sent with each of its callbacks."""
    max_concurrency: int | None = None
    """Callbacks in flight to one of its endpoints at most; None: the setting's."""
    rate_per_second: float | None = None
    """Callbacks a second to one of its endpoints at most; None or 0: no limit."""
    ordering: str = "first_attempt"
    """Of one message's callbacks to one endpoint: one of ORDERINGS."""
    webhook_ms: int | None = None
    """When its customer set the callback URL by the API, if that was so; ms since 1970."""
    problem: str | None = None
    """Why its secrets cannot be opened; they are empty then."""
    before: "Workspace | None" = field(default=None, repr=False, compare=False)
    """What it was before the change that returns it: of the same revision where nothing was changed."""

    def live_secrets(self, now_ms: int) -> list[Secret]:
        """The secrets that sign now, oldest first. Raises InvalidInput where there are none to use."""
        if self.problem:
            raise InvalidInput(self.problem)
        live = [s for s in self.secrets if s.expires_ms is None or s.expires_ms > now_ms]
        if not live:
            raise InvalidInput("it has no live secret")
        return live
