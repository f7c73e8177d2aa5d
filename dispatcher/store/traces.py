"""What one partition knows of a person, a message or a workspace: found so that it can be erased."""

import re
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from dispatcher.errors import InvalidInput
from dispatcher.model import decode_json
from dispatcher.store.callbacks import Place
from dispatcher.store.command_parts import in_parts
from dispatcher.store.connection import translated
from dispatcher.store.entry import Entry, read_entry
from dispatcher.store.message_record import lists_of
from dispatcher.store.queue import GROUP
from dispatcher.store.rejected import Rejected, RejectedEntry

AT_ONCE = 500
"""Keys or entries per round trip."""
OF_MESSAGES = (
    "status", "status-phone", "status-reference", "status-customer", "status-time", "status-campaign",
    "status-recipients", "message",
)  # fmt: skip
"""Kinds of keys that know a workspace's messages."""
SET_ASIDE = "event", "body", "answer"
"""Kinds of keys of callbacks, of which damaged ones are kept aside for a week."""
_DAMAGED = ValueError, LookupError, TypeError, struct.error, msgspec.MsgspecError, InvalidInput

Lists = list[tuple[str, str]]
"""Kind and name of each list that may lead to a message."""


def bare(number: str) -> str:
    """A number without what may be written in it or left out: `+39 333-12` and `003933312` are both `3933312`."""
    return re.sub(r"[\s().+/-]", "", number).lower().removeprefix("00")


def written(number: str) -> set[str]:
    """The ways to write a number that look-ups are likely to have."""
    return {number, bare(number), f"+{bare(number)}", f"00{bare(number)}"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be erased: of a workspace, only a message if one is given, or only what went to a number."""

    workspace: str
    message: str | None = None
    number: str | None = None

    def has_change(self, raw: bytes) -> bool:
        """Whether a status change (JSON) on the queue is of it; False if it cannot be read, for then it is rejected later."""
        change, message = _parsed(raw)
        if change.get("workspace") != self.workspace:
            return False
        if self.number is not None:
            return bare(str(message.get("dest", ""))) == bare(self.number)
        return self.message in (None, message.get("uuid"))

    def has_rejected(self, one: RejectedEntry) -> bool:
        """Whether a rejected entry is of it: it names the message or the number, and no other workspace.

        Where it has no message that can be read, its text is looked at: for the id or the number as a word.
        """
        change, message = _parsed(one.raw.encode())
        workspace = one.workspace or change.get("workspace")
        if self.message is None and self.number is None:
            return workspace == self.workspace
        if workspace not in (None, "", self.workspace):
            return False
        if self.message is not None:
            if isinstance(uuid := message.get("uuid"), str):
                return uuid == self.message
            return bool(re.search(rf"(?<![\w.-]){re.escape(self.message)}(?![\w.-])", one.raw))
        number = bare(self.number or "")
        written = rf"(?<![0-9A-Za-z])(?:\+|00|\\u002b)?{re.escape(number)}(?![0-9A-Za-z])"
        return bare(str(message.get("dest", ""))) == number or bool(
            re.search(written, one.raw, re.IGNORECASE)
        )


def _parsed(raw: bytes) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """A status change and its message, as far as they can be read."""
    try:
        change = decode_json(raw)
    except InvalidInput:
        return {}, {}
    message = change.get("message") if isinstance(change, dict) else None
    return change if isinstance(change, dict) else {}, message if isinstance(message, dict) else {}


class Traces:
    """Reads one partition, and removes what no script has to. Every method raises RedisUnavailable."""

    def __init__(self, place: Place) -> None:
        self._client, self._keys, self._url = place
        self._rejected = Rejected(*place)

    async def entries(self, workspace: str, ids: Sequence[str]) -> dict[str, Entry]:
        """The ledger's entries of callbacks; unreadable ones are left out."""
        found: dict[str, Entry] = {}
        for id_, raw in await self._values(ids, lambda one: self._keys.event(workspace, one)):
            try:
                found[id_] = read_entry(raw)
            except InvalidInput:
                continue
        return found

    async def ids_of_message(self, workspace: str, uuid: str) -> list[str]:
        """The callbacks of a message."""
        found = await self._values([uuid], lambda one: self._keys.message(workspace, one))
        return [id_ for _, raw in found for id_ in raw.decode(errors="replace").split()]

    async def ids(self, workspace: str) -> AsyncIterator[list[str]]:
        """Every callback of a workspace, some at a time; one may come twice."""
        head = self._keys.event(workspace, "")
        async for keys in self._scan(f"{head}*"):
            yield [key.removeprefix(head) for key in keys]

    async def records(self, workspace: str, uuids: Sequence[str]) -> dict[str, Lists]:
        """The messages that have a record, each with its lists; those of a damaged one are not known."""
        found: dict[str, Lists] = {}
        for uuid, raw in await self._values(uuids, lambda one: self._keys.status(workspace, one)):
            try:
                found[uuid] = lists_of(raw)
            except _DAMAGED:
                found[uuid] = []
        return found

    async def messages_to(self, workspace: str, number: str) -> set[str]:
        """The messages to a number: those that are listed by it, and those whose record has it, however it is written."""
        known = bare(number)
        found: set[str] = set()
        for one in written(number):
            with translated(self._url):
                listed = await self._client.zrange(self._keys.status_phone(workspace, one), 0, -1)
            found |= {uuid.decode(errors="replace") for uuid in listed}
        head = self._keys.status(workspace, "")
        async for keys in self._scan(f"{head}*"):
            records = await self.records(workspace, [key.removeprefix(head) for key in keys])
            found |= {uuid for uuid, lists in records.items() if known in _numbers(lists)}
        return found

    async def rejected(self, wanted: Wanted) -> list[str]:
        """The ids of the entries in `rejected` that are of it."""
        return [one.id for one in await self._rejected.newest(10**9, wanted.has_rejected)]

    async def queued(self, wanted: Wanted) -> list[str]:
        """The ids of the entries on the queue that are of it, read or not."""
        found: list[str] = []
        after = "-"
        while True:
            with translated(self._url):
                page = await self._client.xrange(self._keys.events, after, count=AT_ONCE)
            found += [id_.decode() for id_, fields in page if wanted.has_change(fields.get(b"event", b""))]
            if len(page) < AT_ONCE:
                return found
            after = f"({page[-1][0].decode()}"

    async def remove_rejected(self, ids: Sequence[str]) -> None:
        """Takes entries out of `rejected`."""
        await self._rejected.remove(ids)

    async def leave_queue(self, ids: Sequence[str]) -> None:
        """Takes entries off the queue, in the order of lua/lib/queue.lua. What a worker has read it may still take in."""
        for some in in_parts(ids):
            with translated(self._url):
                await self._client.xdel(self._keys.events, *some)
                await self._client.xack(self._keys.events, GROUP, *some)

    async def forget_due(self, workspace: str) -> None:
        """Forgets when the archive was to look at messages of a workspace."""
        cursor = 0
        while True:
            with translated(self._url):
                cursor, found = await self._client.zscan(
                    self._keys.status_due, cursor, f"{workspace} *", AT_ONCE
                )
                if found:
                    await self._client.zrem(self._keys.status_due, *(member for member, _ in found))
            if int(cursor) == 0:
                return

    async def forget_list(self, workspace: str, uuid: str) -> None:
        """Forgets which callbacks a message had."""
        with translated(self._url):
            await self._client.delete(self._keys.message(workspace, uuid))

    async def keys_of_messages(self, workspace: str) -> AsyncIterator[list[str]]:
        """The keys that know a workspace's messages, and those of its callbacks that were set aside, some at a time."""
        heads = [f"{self._keys.root}{kind}:{workspace}:" for kind in OF_MESSAGES]
        heads += [f"{self._keys.root}aside:{kind}:{workspace}:" for kind in (*OF_MESSAGES, *SET_ASIDE)]
        async for keys in self._scan(f"{self._keys.root}*:{workspace}:*"):
            yield [key for key in keys if key.startswith(tuple(heads))]

    def is_record(self, workspace: str, key: str) -> bool:
        """Whether a key is a message's record."""
        return key.startswith(self._keys.status(workspace, ""))

    def is_list(self, workspace: str, key: str) -> bool:
        """Whether a key is the list of a message's callbacks."""
        return key.startswith(self._keys.message(workspace, ""))

    async def remove(self, keys: Sequence[str]) -> None:
        """Removes keys."""
        for some in in_parts(keys):
            with translated(self._url):
                await self._client.unlink(*some)

    async def _values(self, names: Sequence[str], key: Callable[[str], str]) -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = []
        for some in in_parts(names):
            with translated(self._url):
                values = await self._client.mget([key(one) for one in some])
            found += [(one, raw) for one, raw in zip(some, values, strict=True) if raw is not None]
        return found

    async def _scan(self, pattern: str) -> AsyncIterator[list[str]]:
        """The keys that match a pattern, those of one round trip at a time."""
        cursor = 0
        while True:
            with translated(self._url):
                cursor, keys = await self._client.scan(cursor, pattern, AT_ONCE)
            if keys:
                yield [key.decode(errors="replace") for key in keys]
            if int(cursor) == 0:
                return


def _numbers(lists: Iterable[tuple[str, str]]) -> set[str]:
    return {bare(which) for kind, which in lists if kind == "phone"}
