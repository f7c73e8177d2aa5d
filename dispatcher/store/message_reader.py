"""Reads messages by their keys, some at a time, so that neither Redis nor this process keeps others waiting."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from redis.exceptions import ResponseError

from dispatcher.store.connection import translated
from dispatcher.store.keys import Keys
from dispatcher.store.message_record import Head, read_head
from dispatcher.store.stored_message import StoredMessage, stored
from dispatcher.store.wire import Argument, Call

AT_A_STRETCH = 50
"""Messages that all searches of a process together read before others are served."""

log = structlog.get_logger()

Filter = Callable[[Head], bool]
"""Whether a message is wanted."""
Look = Callable[[int], Awaitable[None]]
"""Is given how many messages are to be read next, and may have the reader wait, or raise."""


async def free(_: int) -> None:
    """A Look that costs nothing."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one question may read."""

    page: int = 500
    """Messages in one round trip."""
    looked_at: int = 20_000
    """Messages altogether; the answer says so where that is not enough."""


BOUNDS = Bounds()


class MessageReader:
    """Reads one Redis. Every method raises RedisUnavailable."""

    def __init__(self, call: Call, keys: Keys, url: str, bounds: Bounds) -> None:
        self.keys = keys
        self.bounds = bounds
        self._call = call
        self._url = url
        self._turn = asyncio.Lock()

    async def get_many(
        self, workspace: str, uuids: Sequence[str], keep: Filter | None = None
    ) -> list[StoredMessage]:
        """Those of the messages that are known and to be kept, in the order asked for."""
        found: list[StoredMessage] = []
        for first in range(0, len(uuids), self.bounds.page):
            some = uuids[first : first + self.bounds.page]
            raw = await self.ask("MGET", *(self.keys.status(workspace, uuid) for uuid in some))
            pairs = list(zip(some, raw, strict=True))
            if len(uuids) <= AT_A_STRETCH:
                found += _wanted(pairs, keep)
                continue
            for start in range(0, len(pairs), AT_A_STRETCH):
                async with self._turn:
                    found += _wanted(pairs[start : start + AT_A_STRETCH], keep)
                    await asyncio.sleep(0)  # others are served between
        return found

    async def ask(self, *command: Argument) -> Any:
        """Redis's reply; None, and a line in the log, where something else is under the key: it hides nothing under others."""
        try:
            with translated(self._url):
                return await self._call(*command)
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            # what is behind the kind may be a phone number
            kind = str(command[1]).removeprefix(self.keys.root).partition(":")[0]
            log.error(
                "status.unreadable", kind=kind, problem=str(error), action="look for keys of another type"
            )
            return None


def _wanted(pairs: Iterable[tuple[str, bytes | None]], keep: Filter | None) -> list[StoredMessage]:
    """The messages without those that are not known, not to be kept, or not readable."""
    found = (_one_wanted(uuid, raw, keep) for uuid, raw in pairs if raw)
    return [one for one in found if one]


def _one_wanted(uuid: str, raw: bytes, keep: Filter | None) -> StoredMessage | None:
    head = read_head(uuid, raw) if keep else None
    return None if keep and head and not keep(head) else stored(uuid, raw)


def text(raw: bytes) -> str:
    """What Redis gave, as text; what is no UTF-8 does not raise."""
    return raw.decode(errors="replace")


def texts(listed: Sequence[bytes] | None) -> list[str]:
    """The texts of a list; none where there is no list."""
    return [text(one) for one in listed or ()]
