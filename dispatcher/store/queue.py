"""The queue: the stream of status changes from producers, as the worker that leads intake reads it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from redis.exceptions import ResponseError

from dispatcher.errors import NotLeader
from dispatcher.store.command_parts import in_parts
from dispatcher.store.connection import translated
from dispatcher.store.keys import Keys
from dispatcher.store.wire import Argument, Call

GROUP, CONSUMER = "workers", "intake"
"""All workers read as one consumer; the intake lease decides which worker may."""

Place = tuple[int, int]
"""An entry's position on the queue, the two numbers of its id: ms since 1970, and a count within that millisecond."""

START: Place = 0, 0
"""Before the first entry."""


class Between(NamedTuple):
    """Two places: no entry may be on the queue behind the first and before the second."""

    after: Place
    before: Place


class QueueEntry(msgspec.Struct, frozen=True, gc=False):
    """A status change as a producer put it on the queue."""

    id: str
    fields: Sequence[bytes]
    """Names and values in turn; empty if the entry was deleted after it was read."""

    def field(self, name: bytes) -> bytes:
        """The value of a field. Raises KeyError if there is none."""
        for place in range(0, len(self.fields), 2):
            if self.fields[place] == name:
                return self.fields[place + 1]
        raise KeyError(name)


class Pending(NamedTuple):
    """An entry that was read and is still on the queue."""

    id: str
    consumer: str
    """The consumer name it was read under."""
    reads: int
    """Reads since it was last claimed; 0: claimed, and not read since."""


class Queue:
    """One stream, read by the group `workers`.

    Each method raises RedisUnavailable, or NotLeader if the stream or its group is gone: `Ledger.lead` creates them.
    """

    about: Mapping[str, int] = {}
    """What log lines about the queue say of it; nothing, if it is the only one."""

    def __init__(self, call: Call, keys: Keys, url: str = "") -> None:
        self._call = call
        self._stream = keys.events
        self._url = url

    def note_unread(self, count: int) -> None:
        """Notes how many entries have not been read; a read finds that by itself."""

    @property
    def may_have_more(self) -> bool:
        """Whether a read that does not wait may find something."""
        return True

    async def read(self, count: int, wait_ms: int = 0) -> list[QueueEntry]:
        """Up to `count` new entries, oldest first; if there is none, waits up to `wait_ms` for one."""
        wait: tuple[Argument, ...] = ("BLOCK", wait_ms) if wait_ms else ()
        return await self._read(">", count, *wait)

    async def read_again(self, after: Place, count: int) -> list[QueueEntry]:
        """Up to `count` entries after a position that were read and are still there. Counts as another read of each."""
        return await self._read(id_at(after), count)

    async def _read(self, after: str, count: int, *wait: Argument) -> list[QueueEntry]:
        reply = await self._run(
            "XREADGROUP", "GROUP", GROUP, CONSUMER, "COUNT", count, *wait, "STREAMS", self._stream, after
        )
        if not reply:
            return []
        [(_, entries)] = reply
        return [QueueEntry(entry.decode(), fields or []) for entry, fields in entries]

    async def pending(self, after: Place, count: int) -> list[Pending]:
        """Lists up to `count` entries after a position that were read and are still there, without reading them."""
        found = await self._run("XPENDING", self._stream, GROUP, f"({id_at(after)}", "+", count)
        return [Pending(entry.decode(), name.decode(), reads) for entry, name, _idle_ms, reads in found]

    async def claim(self, ids: Sequence[str]) -> None:
        """Takes over entries that were read, and sets their `reads` to 0."""
        for some in in_parts(ids):
            await self._run("XCLAIM", self._stream, GROUP, CONSUMER, 0, *some, "RETRYCOUNT", 0, "JUSTID")

    async def _run(self, *command: Argument) -> Any:
        try:
            with translated(self._url):
                return await self._call(*command)
        except ResponseError as error:
            if "NOGROUP" in str(error):
                raise NotLeader(f"the queue was deleted: {error}") from error
            raise


def place(entry_id: str) -> Place:
    """The position of an entry on the queue."""
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number)


def id_at(at: Place) -> str:
    """The id of an entry at a position."""
    return f"{at[0]}-{at[1]}"
