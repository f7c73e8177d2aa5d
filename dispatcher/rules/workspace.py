"""A workspace: one customer, with a dialect, its default subscription, and others beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dispatcher.rules.authorization import Authorization
from dispatcher.rules.client_certificate import ClientCertificate
from dispatcher.rules.partitions import EarlierWidth
from dispatcher.rules.subscription import ACTIVE, Disabling, Receiver, Secret, SigningKey, Subscription


@dataclass(frozen=True, slots=True)
class Workspace(Receiver):
    """One customer. Each real change gives a new `revision`; an update with equal values keeps it.

    It is its own default subscription: the fields that Subscription has too are that one's.
    """

    id: str
    dialect: str
    callback_url: str = field(repr=False)
    """Empty if there is none: only status changes with a URL of their own cause callbacks then, and subscriptions."""
    secrets: tuple[Secret, ...]
    created_ms: int
    revision: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    max_concurrency: int | None = None
    rate_per_second: float | None = None
    ordering: str = "first_attempt"
    webhook_ms: int | None = None
    """When the customer set the callback URL through the API, in ms since 1970; None if never."""
    problem: str | None = None
    before: "Workspace | None" = field(default=None, repr=False, compare=False)
    """The workspace before the change that returned this one; it has the same revision if nothing changed."""
    not_copied: str = field(default="", repr=False, compare=False)
    """Of the change that returned this one: to which partitions it could not be copied, why, and what copies it; else empty."""
    events: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    without_fields: tuple[str, ...] = ()
    retry_schedule: tuple[int, ...] = ()
    state: str = ACTIVE
    disabled: Disabling | None = None
    subscriptions: Mapping[str, Subscription] = field(default_factory=dict)
    """The ones beside the default one, by name."""
    signing_keys: tuple[SigningKey, ...] = ()
    auth: Authorization | None = None
    client_certificate: ClientCertificate | None = None
    width: int = 1
    """Over how many partitions it is spread (rules/partitions.py)."""
    earlier_widths: tuple[EarlierWidth, ...] = ()
    """Those that it had, the oldest first: a message stays where it began."""

    @property
    def is_damaged(self) -> bool:
        """Whether its record cannot be read: there is only its name, and `problem` says why."""
        return not self.revision

    def receiver(self, subscription: str) -> Receiver | None:
        """The subscription of that name, as callbacks have it: empty for the default one. None: it is gone."""
        return self.subscriptions.get(subscription) if subscription else self
