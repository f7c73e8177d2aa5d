"""Every error this package raises.

DispatcherError
├── InvalidInput         the input is invalid (also a ValueError); `problems` lists every problem
├── NotFound             no such workspace or callback
├── AlreadyExists        a workspace of that name exists
├── StillWaiting         the workspace still has waiting callbacks
├── OtherFormat          the data in Redis was written by a version with another format
├── SignatureInvalid     the callback does not verify
├── RedisUnavailable     Redis does not answer, or cannot serve now
│   ├── RedisFull        Redis has reached its memory limit
│   └── EnqueueInterrupted   no connection, or it broke while enqueuing; `confirmed` lists what is on the queue
│                        inside a worker only, not exported:
├── PartlyDone           some partitions have made a change (a RedisUnavailable), others do not answer; `result` is of those
├── PreviousUnavailable  the Redis before (a RedisUnavailable) does not answer: docs/partitions.md
├── OtherSettings        the process's settings are not the installation's, which may have grown (an OtherFormat)
├── HasGrown             the installation is on other servers now (OtherSettings): docs/partitions.md
├── GrowthHasEnded       the installation needs its previous Redis no more (OtherSettings): docs/partitions.md
├── ArchiveUnavailable   the archive does not answer, or cannot serve now: docs/archive.md
├── NotLeader            another worker leads intake now
├── Overtakes            another worker has read what comes before some entries of the queue
└── EndpointBroken       the keys of one endpoint in Redis are damaged
"""

from collections.abc import Sequence
from typing import Any


def visible(value: object) -> str:
    """Untrusted text on one line, safe for a terminal: unprintable characters become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def kind_of(given: object) -> str:
    """What a value is that is not what was asked for."""
    if given is None:
        return "is None"
    name = type(given).__name__
    return f"is {'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def sentence(text: str) -> str:
    """Text of whatever origin with a full stop at its end, unless it has one, or a question mark."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def extra_needed(what: str, extra: str) -> str:
    """One line: what needs which extra of this package, and how to get it. It is on no public index, so it is named by its files."""
    return (
        f"{what} needs the extra `{extra}` of this package: "
        f"pip install '.[{extra}]' in a checkout, or pip install 'FILE.whl[{extra}]' with its wheel"
    )


class DispatcherError(Exception):
    """Base of all errors. The text says what happened and what to do."""


class InvalidInput(DispatcherError, ValueError):
    """The input is invalid; nothing was changed.

    `problems` holds `(position, text)` pairs; positions count the given items from 0.
    """

    def __init__(self, text: str, problems: Sequence[tuple[int, str]] = ()) -> None:
        super().__init__(text)
        self.problems = list(problems) or [(0, text)]


class NotFound(DispatcherError, LookupError):
    """No such workspace, callback or entry."""


class AlreadyExists(DispatcherError):
    """A workspace of that name exists already."""


class StillWaiting(DispatcherError):
    """The workspace still has waiting callbacks; only `force` removes it."""


class OtherFormat(DispatcherError):
    """The data in Redis has another format than this version reads, or a worker of another format is running."""


class OtherSettings(OtherFormat):
    """The process has another number of partitions or previous Redis than its installation; the text says what to set."""


class HasGrown(OtherSettings):
    """The installation of this Redis has grown into several partitions; the data here has the format that it had."""


class GrowthHasEnded(OtherSettings):
    """A previous Redis is set and not needed any more: what the process answers is right as long as that Redis answers."""


class SignatureInvalid(DispatcherError):
    """The callback does not verify. The text says which check failed."""


class RedisUnavailable(DispatcherError):
    """Redis does not answer, or reports that it cannot serve requests now.

    If it answers, `why` says what it refuses and why, without its address, and `advice` what to do.
    """

    def __init__(self, text: str, why: str = "", advice: str = "") -> None:
        super().__init__(text)
        self.why = why
        self.advice = advice


class PreviousUnavailable(RedisUnavailable):
    """The previous Redis of an installation that has grown does not answer, so it is not known which messages it has."""

    @classmethod
    def of(cls, error: RedisUnavailable) -> "PreviousUnavailable":
        """An error of that Redis, whose text names the setting that says where it is, and not DISPATCHER_REDIS_URL."""
        if isinstance(error, cls):
            return error
        text, advice = (
            one.replace("DISPATCHER_REDIS_URL", "DISPATCHER_PREVIOUS_REDIS_URL")
            for one in (str(error), error.advice)
        )
        return cls(f"the previous Redis: {text}", error.why, advice)


class PartlyDone(RedisUnavailable):
    """A change is made in some partitions of a workspace, and not in others, which do not answer.

    `result` is what the method returns, of those that made it.
    """

    def __init__(self, text: str, result: Any) -> None:
        super().__init__(text)
        self.result = result


class RedisFull(RedisUnavailable):
    """Redis has reached `maxmemory` and accepts no new data."""


class EnqueueInterrupted(RedisUnavailable):
    """There was no connection, or it broke while enqueuing.

    `confirmed` lists the eventIds that are certainly on the queue. The others may be too.
    Enqueuing all of them again is safe, because the ledger accepts an eventId only once.
    """

    def __init__(self, text: str, confirmed: Sequence[str]) -> None:
        super().__init__(text)
        self.confirmed = list(confirmed)


class ArchiveUnavailable(DispatcherError):
    """The archive does not answer, or cannot serve now; nothing was changed, or it may be told again."""


class NotLeader(DispatcherError):
    """Another worker leads intake now, or the queue was deleted; nothing was done."""


class Overtakes(DispatcherError):
    """Entries before these are still on the queue: another worker has read them. Nothing was done."""


class EndpointBroken(DispatcherError):
    """A script broke on the keys of one endpoint; what it had done before that stands."""
