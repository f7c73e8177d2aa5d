"""Each platform's callback format, one file per platform; a new file here adds a dialect."""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from dispatcher.fast_decode import Change
from dispatcher.model import Message, MessageError, Status, StatusChange
from dispatcher.values import CHANNELS


class Signing(msgspec.Struct, frozen=True):
    """Input for a dialect's own headers. Only time and attempt number differ between attempts."""

    event_id: str
    body: bytes
    secrets: Sequence[str]
    """Live secrets, oldest first, in the form given to the customer."""
    timestamp: int
    """Seconds since 1970, of this attempt."""
    attempt: int

    def __repr__(self) -> str:
        return f"Signing({self.event_id!r}, attempt={self.attempt})"


class Dialect(Protocol):
    """Interface of a dialect: a module of this package, or a `Variant` that such a module lists."""

    LOOKED_UP_BY: Collection[str]
    """Keys for finding messages, in addition to their id: phone, reference, customer, time, campaign."""

    def event_type(self, change: Change) -> str | None:
        """The platform's name of the event; None if it sends no callback for this status."""

    def body(self, change: Change, event_type: str, now_ms: int) -> dict[str, Any]:
        """The callback's JSON; rendered once, at `now_ms`."""

    def headers(self, signing: Signing) -> dict[str, str]:
        """The platform's own headers, in addition to those of Standard Webhooks."""


class Variant(msgspec.Struct, frozen=True):
    """Another format that a platform documents: the dialect `<platform>-<variant>`, listed in the module's `VARIANTS`."""

    event_type: Callable[[Change], str | None]
    body: Callable[[Change, str, int], dict[str, Any]]
    headers: Callable[[Signing], dict[str, str]]
    LOOKED_UP_BY: Collection[str] = ()


@functools.cache
def dialects() -> Mapping[str, Dialect]:
    """All dialects by name: the modules of this package and their variants.

    Loaded once, at the start, because an upgrade may replace the files under a running worker. Raises ImportError if there are none.
    """
    modules = {
        module.name: importlib.import_module(f"{__name__}.{module.name}")
        for module in pkgutil.iter_modules(__path__)
    }
    if not modules:
        raise ImportError(f"no dialect is in {', '.join(__path__)}: is this installation being replaced?")
    variants: dict[str, Dialect] = {
        f"{name}-{variant}": shape
        for name, module in modules.items()
        for variant, shape in getattr(module, "VARIANTS", {}).items()
    }
    return modules | variants


def dialect_of(name: str) -> Dialect:
    """Returns a dialect by name. Raises ImportError if this installation does not have it."""
    found = dialects().get(name)
    if found is None:
        raise ImportError(
            f"this installation has no dialect {name!r}; there are {', '.join(sorted(dialects()))}"
        )
    return found


@functools.cache
def event_types(name: str) -> tuple[str, ...]:
    """The names of a dialect's events, sorted. Raises ImportError if this installation does not have the dialect."""
    dialect = dialect_of(name)
    changes = (
        StatusChange(
            workspace="any",
            status=status,
            timestamp="2026-01-01T00:00:00Z",
            message=Message(uuid="any", src="any", dest="any", channel=channel),
        )
        for status in Status
        for channel in CHANNELS
    )
    return tuple(sorted({event for one in changes if (event := dialect.event_type(one)) is not None}))


def field_paths(name: str) -> tuple[str, ...]:
    """The dotted paths of all fields that a dialect's callbacks may have, sorted; of a free object its own path alone."""
    bodies = (body for channel in CHANNELS for _, body in _full_bodies(name, channel, provider={}))
    return tuple(sorted(set[str]().union(*map(_leaves, bodies))))


@functools.cache
def identifying_paths(name: str) -> Mapping[str, str]:
    """The paths that tell what a dialect's callback is about, each with what it tells.

    The status is what differs between the callbacks of status changes that differ in it alone.
    """
    told: dict[str, str] = {}
    for channel in CHANNELS:
        values: dict[str, set[str]] = {}
        for event, body in _full_bodies(name, channel, provider={"status": "any"}):
            words = {_EVENT_ID: "the event's id", _UUID: "the message's id", event: "the type of the event"}
            for path, value in _leaves(body).items():
                values.setdefault(path, set()).add(str(value))
                if str(value) in words:
                    told[path] = words[str(value)]
        for path, found in values.items():
            if len(found) > 1:
                told.setdefault(path, "the status")
    return told


_EVENT_ID, _UUID = "the-event", "the-message"


def _full_bodies(name: str, channel: str, provider: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events and callbacks of every status, with all fields that a status change may have."""
    dialect = dialect_of(name)
    for status in Status:
        change = _full_change(status, channel, provider)
        event = dialect.event_type(change)
        if event is not None:
            yield event, dialect.body(change, event, 0)


def _full_change(status: Status, channel: str, provider: dict[str, Any]) -> StatusChange:
    text, time = "any", "2026-01-01T00:00:00Z"
    message = Message(
        uuid=_UUID, src=text, dest=text, channel=channel, segments=1, units=1, attempts=1, cost=1, currency=text,
        campaign_id=text, customer_message_id=text, network=text, part=1, total_parts=1, accepted_at=time,
        webhook_configuration_id=text, reference={}, provider=provider,
    )  # fmt: skip
    error = MessageError(code=text, message=text)
    return StatusChange(
        event_id=_EVENT_ID, workspace=text, status=status, timestamp=time, message=message, error=error
    )


def _leaves(value: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The values of an object and of those in it, by dotted path."""
    found: dict[str, Any] = {}
    for name, one in value.items():
        path = f"{above}{name}"
        found |= _leaves(one, f"{path}.") if isinstance(one, dict) and one else {path: one}
    return found


def platform_of(dialect: str) -> str:
    """The platform of a dialect or of a variant."""
    return dialect.partition("-")[0]


def compact(fields: dict[str, Any]) -> dict[str, Any]:
    """Drops the fields without a value, as the platforms do."""
    return {name: value for name, value in fields.items() if value is not None}
