"""A subscription: a customer's registered receiver, which chooses what it gets and on which terms."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from dispatcher import ed25519
from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.authorization import Authorization
from dispatcher.rules.client_certificate import ClientCertificate
from dispatcher.rules.dialects import event_types
from dispatcher.signing import key_of
from dispatcher.values import CHANNELS, known_channel

MOST = 16
"""Most subscriptions of a workspace beside its default one."""

DEFAULT = "default"
"""The name of the one that `workspace add --callback-url` makes."""

ACTIVE, PAUSED, DISABLED = STATES = ("active", "paused", "disabled")

HMAC, ED25519 = SIGNATURES = ("hmac", "ed25519")
"""How callbacks are signed: with `v1` signatures alone, or with `v1a` ones beside them."""

ORDERINGS = ("first_attempt", "strict", "latest")

NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
"""What a subscription can be called."""


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
class SigningKey:
    """One Ed25519 key pair (`whsk_`); hidden from `repr`."""

    text: str = field(repr=False)
    created_ms: int
    expires_ms: int | None = None
    """When it stops signing; None for the current one."""

    @property
    def public(self) -> str:
        """The public key (`whpk_`)."""
        return ed25519.public_of(self.text)


@dataclass(frozen=True, slots=True)
class Disabling:
    """Since when a subscription is disabled, and why."""

    at_ms: int
    reason: str
    """In words, such as `it answered 410 to every attempt since …`."""


class Receiver:
    """What a workspace, which is its own default subscription, and the other subscriptions have in common."""

    __slots__ = ()

    dialect: str
    callback_url: str
    secrets: tuple[Secret, ...]
    created_ms: int
    headers: Mapping[str, str]
    events: tuple[str, ...]
    channels: tuple[str, ...]
    without_fields: tuple[str, ...]
    retry_schedule: tuple[int, ...]
    state: str
    disabled: Disabling | None
    problem: str | None
    signing_keys: tuple[SigningKey, ...]
    auth: Authorization | None
    client_certificate: ClientCertificate | None

    @property
    def signature(self) -> str:
        """One of SIGNATURES."""
        return ED25519 if self.signing_keys else HMAC

    def live_keys(self, now_ms: int) -> list[SigningKey]:
        """The Ed25519 keys that sign now, oldest first; none if it is signed with HMAC alone."""
        return [key for key in self.signing_keys if key.expires_ms is None or key.expires_ms > now_ms]

    def live_secrets(self, now_ms: int) -> list[Secret]:
        """The secrets that sign now, oldest first. Raises InvalidInput if there is none."""
        if self.problem:
            raise InvalidInput(self.problem)
        live = [s for s in self.secrets if s.expires_ms is None or s.expires_ms > now_ms]
        if not live:
            raise InvalidInput("it has no live secret")
        return live

    def has_url(self, url: str) -> bool:
        """Whether this is its callback URL, as callbacks have it: not a previous one, nor a status change's own."""
        try:
            return (
                bool(self.callback_url) and parse_callback_url(self.callback_url, allow_http=True).url == url
            )
        except InvalidInput:
            return False

    def wants(self, event_type: str | None, channel: str) -> bool:
        """Whether it gets events of this type (None: the platform sends none) on this channel."""
        if event_type is None or not self.callback_url or self.state == DISABLED:
            return False
        return (not self.events or event_type in self.events) and (
            not self.channels or channel in self.channels
        )


@dataclass(frozen=True, slots=True)
class Subscription(Receiver):
    """A receiver beside the workspace's default one."""

    name: str
    dialect: str
    """The workspace's, or another variant of the same platform."""
    callback_url: str = field(repr=False)
    secrets: tuple[Secret, ...]
    created_ms: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Extra headers, sent with each callback."""
    max_concurrency: int | None = None
    """Limit of callbacks in flight to its endpoint; None: the setting's."""
    rate_per_second: float | None = None
    """Limit of callbacks a second to its endpoint; None or 0: no limit."""
    ordering: str = "first_attempt"
    """Order of one message's callbacks: one of ORDERINGS."""
    events: tuple[str, ...] = ()
    """Names of the dialect's events that it gets; empty: all."""
    channels: tuple[str, ...] = ()
    """Channels whose messages it hears of; empty: all."""
    without_fields: tuple[str, ...] = ()
    """Paths in the JSON of its callbacks that are left out (field_mask.py)."""
    retry_schedule: tuple[int, ...] = ()
    """Seconds to wait before each attempt (retry_schedule.py); empty: as the settings say."""
    state: str = ACTIVE
    """One of STATES. While it is paused, its callbacks are accepted and wait; while it is disabled, there are none."""
    disabled: Disabling | None = None
    """Set while its state is DISABLED."""
    problem: str | None = None
    """Why the secrets cannot be decrypted; `secrets` is empty then."""
    signing_keys: tuple[SigningKey, ...] = ()
    """Its Ed25519 keys, oldest first; empty: it is signed with HMAC alone."""
    auth: Authorization | None = None
    """How it is told who we are, in the header Authorization."""
    client_certificate: ClientCertificate | None = None
    """How it is told who we are, in the TLS handshake."""


def check_name(name: str) -> None:
    """Raises InvalidInput for a name that a new subscription cannot have."""
    if name == DEFAULT:
        raise InvalidInput(
            "the subscription `default` is the workspace's own: `dispatcher workspace update --callback-url` sets its URL"
        )
    if not NAME.fullmatch(name):
        raise InvalidInput("a subscription's name is 1 to 32 letters, digits, _ or -")


def check_signature(signature: str) -> None:
    """Raises InvalidInput for a kind of signatures that there is not."""
    if signature not in SIGNATURES:
        raise InvalidInput(f"signature is one of {', '.join(SIGNATURES)}, not {signature!r}")


def check_events(events: Collection[str], dialect: str) -> tuple[str, ...]:
    """The events, without repeats. Raises InvalidInput for one that the dialect does not have."""
    known = event_types(dialect)
    for one in events:
        if one not in known:
            raise InvalidInput(f"dialect {dialect} has no event {one!r}; it has {', '.join(known)}")
    return tuple(dict.fromkeys(events))


def check_channels(channels: Collection[str]) -> tuple[str, ...]:
    """The channels as status changes have them, without repeats. Raises InvalidInput for an unknown one."""
    found = tuple(dict.fromkeys(known_channel(one) for one in channels))
    for one in found:
        if one not in CHANNELS:
            raise InvalidInput(f"there is no channel {one!r}; there are {', '.join(CHANNELS)}")
    return found
