"""Turns message status changes into signed HTTP callbacks.

Backends enqueue with `Dispatcher` or `AsyncDispatcher`; customers check what they get with `verify`.
"""

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version  # as long to import as the rest

    try:
        return version("callback-dispatcher")
    except PackageNotFoundError:  # run from a folder, not installed
        return "0"
