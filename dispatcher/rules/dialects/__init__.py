"""How each platform's callback looks. One file per platform; a new file here is a new dialect."""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from dispatcher.model import StatusChange


class Signing(msgspec.Struct, frozen=True):
    """What a dialect's own headers may be made of; the same for every attempt but time and number."""

    event_id: str
    body: bytes
    secrets: Sequence[str]
    """Live secrets, oldest first, as the customer knows them."""
    timestamp: int
    """Seconds since 1970, of this attempt."""
    attempt: int

    def __repr__(self) -> str:
        return f"Signing({self.event_id!r}, attempt={self.attempt})"


class Dialect(Protocol):
    """What a dialect's module offers; the module itself is the dialect."""

    LOOKED_UP_BY: Collection[str]
    """What messages can be found by on this platform, beside their id: phone, reference, customer, time, campaign."""

    def event_type(self, change: StatusChange) -> str | None:
        """The event's name on this platform; None where it sends no callback for this status."""

    def body(self, change: StatusChange, event_type: str, now_ms: int) -> dict[str, Any]:
        """The callback's JSON, made once, at `now_ms`."""

    def headers(self, signing: Signing) -> dict[str, str]:
        """The platform's own headers, beside those of Standard Webhooks."""


class Variant(msgspec.Struct, frozen=True):
    """Another shape that a platform documents: a dialect `<platform>-<variant>`, in its `VARIANTS`."""

    event_type: Callable[[StatusChange], str | None]
    body: Callable[[StatusChange, str, int], dict[str, Any]]
    headers: Callable[[Signing], dict[str, str]]
    LOOKED_UP_BY: Collection[str] = ()


@functools.cache
def dialects() -> Mapping[str, Dialect]:
    """All dialects by name: the modules of this package, and their variants.

    Read once, at the start: the files may be replaced while a worker runs. Raises ImportError where there are none.
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
    """The dialect of a workspace. Raises ImportError where this installation has none of that name."""
    found = dialects().get(name)
    if found is None:
        raise ImportError(
            f"this installation has no dialect {name!r}; there are {', '.join(sorted(dialects()))}"
        )
    return found


def platform_of(dialect: str) -> str:
    """Whose dialect it is, variant or not."""
    return dialect.partition("-")[0]


def compact(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that have a value: providers leave out what they do not know."""
    return {name: value for name, value in fields.items() if value is not None}
