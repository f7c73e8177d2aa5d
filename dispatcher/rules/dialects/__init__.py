"""Each platform's callback format, one file per platform; a new file here adds a dialect."""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from dispatcher.model import Message, Status, StatusChange
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

    def event_type(self, change: StatusChange) -> str | None:
        """The platform's name of the event; None if it sends no callback for this status."""

    def body(self, change: StatusChange, event_type: str, now_ms: int) -> dict[str, Any]:
        """The callback's JSON; rendered once, at `now_ms`."""

    def headers(self, signing: Signing) -> dict[str, str]:
        """The platform's own headers, in addition to those of Standard Webhooks."""


class Variant(msgspec.Struct, frozen=True):
    """Another format that a platform documents: the dialect `<platform>-<variant>`, listed in the module's `VARIANTS`."""

    event_type: Callable[[StatusChange], str | None]
    body: Callable[[StatusChange, str, int], dict[str, Any]]
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


def platform_of(dialect: str) -> str:
    """The platform of a dialect or of a variant."""
    return dialect.partition("-")[0]


def compact(fields: dict[str, Any]) -> dict[str, Any]:
    """Drops the fields without a value, as the platforms do."""
    return {name: value for name, value in fields.items() if value is not None}
