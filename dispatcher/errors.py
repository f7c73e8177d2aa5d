"""Every error this package raises.

DispatcherError
├── InvalidInput         what was given cannot be used (also a ValueError); `problems` lists each one
├── NotFound             no such workspace or event
├── AlreadyExists        a workspace of that name is there
├── StillWaiting         a workspace with waiting callbacks is not removed
├── OtherFormat          what is in Redis is of another version's format
├── SignatureInvalid     a callback that does not verify
├── RedisUnavailable     Redis does not answer
│   ├── RedisFull        Redis answers that its memory is full
│   └── EnqueueInterrupted   the connection broke in the middle; `confirmed` lists what is on the queue
│                        raised and caught inside a worker, and not exported:
├── NotLeader            another worker leads intake now
└── EndpointBroken       the keys of one endpoint in Redis are damaged
"""

from collections.abc import Sequence


def visible(value: object) -> str:
    """Text from outside on one line, harmless for a terminal: what cannot be printed is shown as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


class DispatcherError(Exception):
    """Base of all errors; its text says what happened and what to do."""


class InvalidInput(DispatcherError, ValueError):
    """What was given cannot be used; nothing was changed.

    `problems` are `(position, text)` pairs; the position counts from 0 among what was given.
    """

    def __init__(self, text: str, problems: Sequence[tuple[int, str]] = ()) -> None:
        super().__init__(text)
        self.problems = list(problems) or [(0, text)]


class NotFound(DispatcherError, LookupError):
    """The ledger or the workspace store does not have it."""


class AlreadyExists(DispatcherError):
    """A workspace of that name is there already."""


class StillWaiting(DispatcherError):
    """A workspace that has waiting callbacks is removed only by force."""


class OtherFormat(DispatcherError):
    """What is in Redis has another format than this version's, or is being written in another one."""


class SignatureInvalid(DispatcherError):
    """A callback does not verify; the text says which check failed."""


class RedisUnavailable(DispatcherError):
    """Redis does not answer, or answers that it cannot serve now."""


class RedisFull(RedisUnavailable):
    """Redis is at `maxmemory` and takes no new work."""


class EnqueueInterrupted(RedisUnavailable):
    """The connection broke while enqueuing.

    `confirmed` lists the eventIds that are on the queue for certain. The others may be; enqueuing
    all of them again is safe, because the ledger takes an eventId once.
    """

    def __init__(self, text: str, confirmed: Sequence[str]) -> None:
        super().__init__(text)
        self.confirmed = list(confirmed)


class NotLeader(DispatcherError):
    """Another worker leads intake now, or the queue was deleted; nothing was done."""


class EndpointBroken(DispatcherError):
    """A script broke on the keys of one endpoint; what it had done before that stands."""
