"""Turns message status changes into signed HTTP callbacks.

Backends enqueue with `Dispatcher` or `AsyncDispatcher`; customers verify callbacks with `verify`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatcher.errors import (
        AlreadyExists,
        DispatcherError,
        EnqueueInterrupted,
        InvalidInput,
        NotFound,
        RedisFull,
        RedisUnavailable,
        SignatureInvalid,
        StillWaiting,
    )
    from dispatcher.model import Message, MessageError, Status, StatusChange
    from dispatcher.producer import AsyncDispatcher, Dispatcher
    from dispatcher.signing import verify

    __version__: str

__all__ = [
    "AlreadyExists",
    "AsyncDispatcher",
    "Dispatcher",
    "DispatcherError",
    "EnqueueInterrupted",
    "InvalidInput",
    "Message",
    "MessageError",
    "NotFound",
    "RedisFull",
    "RedisUnavailable",
    "SignatureInvalid",
    "Status",
    "StatusChange",
    "StillWaiting",
    "verify",
]

_MODULES = {
    "model": ("Message", "MessageError", "Status", "StatusChange"),
    "producer": ("AsyncDispatcher", "Dispatcher"),
    "signing": ("verify",),
}
"""The module of each name; all others are in `errors`."""


def __getattr__(name: str) -> Any:
    """Imports a name on first use: verifying does not load pydantic, enqueuing does not load cryptography."""
    if name == "__version__":
        value = _version()
    elif name in __all__:
        from importlib import import_module

        module = next((module for module, names in _MODULES.items() if name in names), "errors")
        value = getattr(import_module(f"dispatcher.{module}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("callback-dispatcher")
    except PackageNotFoundError:  # run from a checkout, not installed
        return "0"
