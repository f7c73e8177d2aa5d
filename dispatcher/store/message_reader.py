"""Reads messages by key, in batches, so that neither Redis nor the event loop is blocked for long."""

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
"""Messages that the searches of a process, taken together, decode before the event loop serves others."""

log = structlog.get_logger()

Filter = Callable[[Head], bool]
"""Whether a message is wanted."""
Look = Callable[[int], Awaitable[None]]
"""Called with the number of messages to be read next; may wait, or raise."""


async def free(_: int) -> None:
    """A Look that costs nothing."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one query may read."""

    page: int = 500
    """Messages per round trip."""
    looked_at: int = 20_000
    """Messages in total; a query that needs more raises InvalidInput."""


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
        """The messages that are known and accepted by `keep`, in the order of `uuids`."""
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
                    await asyncio.sleep(0)  # let others run in between
        return found

    async def ask(self, *command: Argument) -> Any:
        """Redis's reply. A key of another type is logged and gives None, so that it does not hide other keys."""
        try:
            with translated(self._url):
                return await self._call(*command)
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            # log the kind only: the rest of the key may be a phone number
            kind = str(command[1]).removeprefix(self.keys.root).partition(":")[0]
            log.error(
                "status.unreadable", kind=kind, problem=str(error), action="look for keys of another type"
            )
            return None


def _wanted(pairs: Iterable[tuple[str, bytes | None]], keep: Filter | None) -> list[StoredMessage]:
    """The messages that are known, readable and accepted by `keep`."""
    found = (_one_wanted(uuid, raw, keep) for uuid, raw in pairs if raw)
    return [one for one in found if one]


def _one_wanted(uuid: str, raw: bytes, keep: Filter | None) -> StoredMessage | None:
    head = read_head(uuid, raw) if keep else None
    return None if keep and head and not keep(head) else stored(uuid, raw)


def text(raw: bytes) -> str:
    """Decodes a reply; replaces invalid UTF-8 instead of raising."""
    return raw.decode(errors="replace")


def texts(listed: Sequence[bytes] | None) -> list[str]:
    """Decodes a list; empty for None."""
    return [text(one) for one in listed or ()]
