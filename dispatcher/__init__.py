"""Turns message status changes into signed HTTP callbacks.

Backends enqueue with `Dispatcher` or `AsyncDispatcher`; customers check what they get with `verify`.
"""

from importlib.metadata import PackageNotFoundError, version

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

try:
    __version__ = version("callback-dispatcher")
except PackageNotFoundError:  # run from a folder, not installed
    __version__ = "0"

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
