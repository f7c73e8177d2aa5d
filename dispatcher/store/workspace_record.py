"""A workspace as a hash in Redis: which fields may be set, and how secrets and headers are encrypted in it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from dispatcher.codec import is_time
from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.authorization import Authorization
from dispatcher.rules.client_certificate import ClientCertificate
from dispatcher.rules.field_mask import check_mask
from dispatcher.rules.partitions import EarlierWidth
from dispatcher.rules.retry_schedule import parse_schedule
from dispatcher.rules.subscription import (
    ACTIVE,
    NAME,
    ORDERINGS,
    STATES,
    Disabling,
    Receiver,
    Secret,
    SigningKey,
    Subscription,
    check_channels,
    check_events,
)
from dispatcher.rules.workspace import Workspace
from dispatcher.store.damaged import reply
from dispatcher.store.sealing import SecretBox

URL_OF = b"callback_url:"
"""How the fields of URLs of subscriptions begin: a subscription's fields have its name after a colon."""
MAX_CONCURRENCY = 1000
MIN_RATE, MAX_RATE = 0.001, 10_000


SEALED: dict[str, Any] = {
    "secrets": tuple[Secret, ...],
    "headers": dict[str, str],
    "signing_keys": tuple[SigningKey, ...],
    "auth": Authorization,
    "client_certificate": ClientCertificate,
}
"""The fields that are encrypted, each with its type."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The decrypted fields of a receiver."""

    secrets: tuple[Secret, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    signing_keys: tuple[SigningKey, ...] = ()
    auth: Authorization | None = None
    client_certificate: ClientCertificate | None = None
    problem: str | None = None


class WorkspaceRecord:
    """Parses and builds the fields of a workspace's hash. No I/O."""

    def __init__(self, box: SecretBox, *, allow_http: bool = False, expiry_seconds: int = 172_800) -> None:
        self._box = box
        self._allow_http = allow_http
        self._expiry_seconds = expiry_seconds

    def read(self, workspace: str, fields: Mapping[bytes, bytes]) -> Workspace:
        """Parses a workspace. Of a subscription whose secrets cannot be decrypted, `problem` says why."""
        of, opened = self._receiver(fields, "")
        names = sorted(name for one in fields if one.startswith(URL_OF) and (name := _name(one)))
        dialect = fields[b"dialect"].decode()
        return Workspace(
            workspace,
            dialect,
            of["callback_url"],
            opened.secrets,
            _time_ms(fields[b"created"]),
            fields[b"revision"].decode(),
            opened.headers,
            of["max_concurrency"],
            of["rate_per_second"],
            of["ordering"],
            int(fields[b"webhook"]) if b"webhook" in fields else None,
            opened.problem,
            events=of["events"],
            channels=of["channels"],
            without_fields=of["without_fields"],
            retry_schedule=of["retry_schedule"],
            state=of["state"],
            disabled=of["disabled"],
            subscriptions={name: self._readable(fields, name, dialect) for name in names},
            signing_keys=opened.signing_keys,
            auth=opened.auth,
            client_certificate=opened.client_certificate,
            width=int(fields.get(b"width", b"1")),
            earlier_widths=tuple(map(EarlierWidth.parse, fields.get(b"widths", b"").decode().split())),
        )

    def readable(self, workspace: str, fields: Mapping[bytes, bytes] | Exception) -> Workspace:
        """The same; of one whose record is damaged, or another type of key, there is only the name, and why.

        Raises other errors of Redis.
        """
        try:
            if isinstance(fields, Exception):
                reply(fields, workspace, None)  # raises other errors
                raise ValueError("its key is of another type")
            return self.read(workspace, fields)
        except (ValueError, KeyError) as error:
            why = f"it has no {error.args[0].decode()}" if isinstance(error, KeyError) else str(error)
            return Workspace(workspace, "", "", (), 0, "", problem=f"its record in Redis is damaged: {why}")

    def _readable(self, fields: Mapping[bytes, bytes], name: str, dialect: str) -> Subscription:
        """A subscription. One whose record is damaged has no secrets, so it alone stops, and `problem` says why."""
        try:
            return self._subscription(fields, name, dialect)
        except (ValueError, KeyError):
            return _damaged(fields, name, dialect)

    def _subscription(self, fields: Mapping[bytes, bytes], name: str, dialect: str) -> Subscription:
        of, opened = self._receiver(fields, f":{name}")
        own = fields.get(f"dialect:{name}".encode(), b"").decode()
        return Subscription(
            name,
            own or dialect,
            secrets=opened.secrets,
            created_ms=_time_ms(fields[f"created:{name}".encode()]),
            headers=opened.headers,
            problem=opened.problem,
            signing_keys=opened.signing_keys,
            auth=opened.auth,
            client_certificate=opened.client_certificate,
            **of,
        )

    def _receiver(self, fields: Mapping[bytes, bytes], suffix: str) -> tuple[dict[str, Any], "Opened"]:
        """What a workspace and a subscription have in common: what is readable in Redis, and what is sealed."""

        def text(name: str, default: str = "") -> str:
            return fields.get(f"{name}{suffix}".encode(), default.encode()).decode()

        limit, rate = text("max_concurrency"), text("rate_per_second")
        sealed = {name: fields.get(f"{name}{suffix}".encode()) for name in SEALED}
        return (
            {
                "callback_url": text("callback_url"),
                "max_concurrency": int(limit) if limit else None,
                "rate_per_second": float(rate) if rate else None,
                "ordering": text("ordering", "first_attempt"),
                "events": tuple(text("events").split()),
                "channels": tuple(text("channels").split(",")) if text("channels") else (),
                "without_fields": tuple(text("without_fields").split()),
                "retry_schedule": tuple(map(int, text("retry_schedule").split())),
                "state": text("state", ACTIVE),
                "disabled": _disabling(text("disabled")),
            },
            self._open(sealed),
        )

    def _open(self, sealed: Mapping[str, bytes | None]) -> "Opened":
        """Decrypts what there is; if one value cannot be, there are none, and `problem` says why."""
        try:
            opened = {
                name: msgspec.json.decode(self._box.open(value), type=SEALED[name])
                for name, value in sealed.items()
                if value
            }
        except InvalidInput as error:
            return Opened(problem=str(error))
        except msgspec.MsgspecError:
            return Opened(problem="the workspace's secrets in Redis are damaged")
        return Opened(**opened)

    def settable(
        self,
        callback_url: str | None = None,
        max_concurrency: int | None = None,
        rate_per_second: float | None = None,
        ordering: str | None = None,
        events: Collection[str] | None = None,
        channels: Collection[str] | None = None,
        retry_schedule: str | None = None,
        state: str | None = None,
        without_fields: Collection[str] | None = None,
        dialect: str = "",
    ) -> dict[str, Any]:
        """Validates the given values (not None); returns them as fields. Raises InvalidInput.

        `dialect` is the one that has the `events` and the fields of `without_fields`.
        """
        if callback_url is not None:
            parse_callback_url(callback_url, allow_http=self._allow_http)
        if max_concurrency is not None and not 1 <= max_concurrency <= MAX_CONCURRENCY:
            raise InvalidInput(
                f"max concurrency is 1 to {MAX_CONCURRENCY:,} POSTs at once, not {max_concurrency}"
            )
        if rate_per_second is not None and not (
            rate_per_second == 0 or MIN_RATE <= rate_per_second <= MAX_RATE
        ):
            raise InvalidInput(
                f"a rate is {MIN_RATE} to {MAX_RATE:,} POSTs a second, or 0 for no limit, not {rate_per_second}"
            )
        if ordering is not None and ordering not in ORDERINGS:
            raise InvalidInput(f"ordering is one of {', '.join(ORDERINGS)}, not {ordering!r}")
        if state is not None and state not in STATES:
            raise InvalidInput(f"state is one of {', '.join(STATES)}, not {state!r}")
        delays = None if retry_schedule is None else parse_schedule(retry_schedule, self._expiry_seconds)
        given = {
            "retry_schedule": None if delays is None else " ".join(map(str, delays)),
            "events": None if events is None else " ".join(check_events(events, dialect)),
            "channels": None if channels is None else ",".join(check_channels(channels)),
            "without_fields": None
            if without_fields is None
            else " ".join(check_mask(without_fields, dialect)),
            "state": state,
            "ordering": ordering,
            "callback_url": callback_url,
            "max_concurrency": max_concurrency,
            "rate_per_second": rate_per_second,
        }
        return {name: value for name, value in given.items() if value is not None}

    def seal(self, value: object) -> bytes:
        """Encrypts secrets or headers for a field; with a key, equal values give other bytes each time."""
        return self._box.seal(msgspec.json.encode(value))

    def sealed(self, receiver: Receiver) -> dict[str, bytes]:
        """All encrypted fields of a receiver, encrypted anew."""
        of = {name: getattr(receiver, name) for name in SEALED}
        return {
            name: self.seal(value) for name, value in of.items() if value or name in ("secrets", "headers")
        }


def _time_ms(raw: bytes) -> int:
    """A time; 0 for one that Python cannot format. Raises ValueError for what is no number."""
    ms = int(raw)
    return ms if is_time(ms) else 0


def _name(field: bytes) -> str:
    """The subscription whose URL a field is; empty if no subscription can have that name: written by hand."""
    name = field[len(URL_OF) :].decode(errors="replace")
    return name if NAME.fullmatch(name) else ""


def _damaged(fields: Mapping[bytes, bytes], name: str, dialect: str) -> Subscription:
    """What is left of a subscription whose record is damaged: what says which callbacks there are, and what is in them.

    It is accepted for as before, so that nothing is lost or shows what it must not, once the record is repaired.
    """

    def text(field: str) -> str:
        return fields.get(f"{field}:{name}".encode(), b"").decode(errors="replace")

    return Subscription(
        name,
        text("dialect") or dialect,
        text("callback_url"),
        (),
        0,
        events=tuple(text("events").split()),
        channels=tuple(text("channels").split(",")) if text("channels") else (),
        without_fields=tuple(text("without_fields").split()),
        state=text("state") or ACTIVE,
        problem="its record in Redis is damaged",
    )


def _disabling(text: str) -> Disabling | None:
    at_ms, _, reason = text.partition(" ")
    return Disabling(int(at_ms), reason) if text else None


def as_stored(fields: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Fields as Redis returns them."""
    return {
        name.encode(): value if isinstance(value, bytes) else str(value).encode()
        for name, value in fields.items()
        if value is not None
    }
