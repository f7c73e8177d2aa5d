"""What has ended and is not in the archive yet: the scripts note it in a stream, and whoever leads the partition takes it from there."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeGuard

from dispatcher.errors import RedisUnavailable
from dispatcher.store.archive.archived_callback import Id, Kept
from dispatcher.store.command_parts import in_parts
from dispatcher.store.connection import translated
from dispatcher.store.keys import Keys
from dispatcher.store.wire import PartitionWire

MOST_BYTES = 16_000_000
"""Most bytes of bodies in one batch; one that is longer is alone."""
BODIES_AT_ONCE = 50
ARCHIVER_MS = 60_000
"""How long after its last sign of life a `dispatcher archiver` is waited for; it may be within a call of the archive."""


@dataclass(frozen=True, slots=True)
class Noted:
    """Notes in their order, and what Redis has of those callbacks; of one that is gone, or goes on again, it has nothing."""

    notes: Sequence[bytes]
    kept: Sequence[Kept]


class ToArchive:
    """Reads the stream of one partition; `Ledger.retire` takes notes out. Every method raises RedisUnavailable."""

    def __init__(self, wire: PartitionWire, keys: Keys, url: str = "") -> None:
        self._wire = wire
        self._keys = keys
        self._url = url

    async def batch(self, until_ms: int, count: int) -> Noted:
        """What ended first, up to `until_ms` (Redis's clock), at most so many; fewer if their bodies are large."""
        with translated(self._url):
            found = await self._wire.call("XRANGE", self._keys.to_archive, "-", until_ms, "COUNT", count)
            notes = {note: _id_of(fields) for note, fields in found}
            ids = [*dict.fromkeys(one for one in notes.values() if one)]
            kept = await self._kept(ids)
        taken = {(one.workspace, one.id) for one in kept}
        left = ids[len(kept) :]
        done = [note for note, id_ in notes.items() if id_ is None or id_ in taken]
        return Noted(done if left else [*notes], [one for one in kept if one.entry])

    async def now_ms(self) -> int:
        """Redis's clock."""
        with translated(self._url):
            seconds, micros = await self._wire.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def has_fingerprints(self) -> bool:
        """Whether Redis knows callbacks of the partition by the archive alone."""
        with translated(self._url):
            return bool(await self._wire.call("EXISTS", self._keys.fingerprints))

    async def has_archiver(self) -> bool:
        """Whether a process of its own takes the partition's callbacks to the archive."""
        with translated(self._url):
            return bool(await self._wire.call("EXISTS", self._keys.archiver))

    async def own(self, token: str) -> str | None:
        """Makes the caller that process for some seconds, or renews that; returns its token, or None if there is another.

        Two at the same time would do the same work twice, and change nothing by it.
        """
        with translated(self._url):
            if await self._wire.call("SET", self._keys.archiver, token, "NX", "PX", ARCHIVER_MS):
                return token
            if await self._wire.call("GET", self._keys.archiver) != token.encode():
                return None
            await self._wire.call("PEXPIRE", self._keys.archiver, ARCHIVER_MS)
        return token

    async def leave(self, token: str) -> None:
        """Ends that; Redis may be away."""
        with suppress(RedisUnavailable), translated(self._url):
            if await self._wire.call("GET", self._keys.archiver) == token.encode():
                await self._wire.call("DEL", self._keys.archiver)

    async def backlog(self) -> tuple[int, int | None]:
        """How many notes there are, and when the first was made (ms since 1970)."""
        with translated(self._url):
            count = await self._wire.call("XLEN", self._keys.to_archive)
            first = await self._wire.call("XRANGE", self._keys.to_archive, "-", "+", "COUNT", 1)
        return count, int(first[0][0].partition(b"-")[0]) if first else None

    async def _kept(self, ids: Sequence[Id]) -> list[Kept]:
        """What Redis has of the first callbacks, as many as fit into MOST_BYTES; without an entry if it has not ended (any more)."""
        entries = await self._values(self._keys.event, ids)
        names = await self._names({_endpoint_of(entry) for entry in entries if _has_ended(entry)})
        found: list[Kept] = []
        size = 0
        for first in range(0, len(ids), BODIES_AT_ONCE):
            some, its = ids[first : first + BODIES_AT_ONCE], entries[first : first + BODIES_AT_ONCE]
            wanted = [
                id_
                for id_, entry in zip(some, its, strict=True)
                if _has_ended(entry) and not _is_delivered(entry)
            ]
            bodies = dict(zip(wanted, await self._values(self._keys.body, wanted), strict=True))
            answered = [
                id_
                for id_, entry in zip(some, its, strict=True)
                if _has_ended(entry) and _may_have_answer(entry)
            ]
            answers = dict(zip(answered, await self._values(self._keys.answer, answered), strict=True))
            for id_, entry in zip(some, its, strict=True):
                if not _has_ended(entry):
                    found.append(Kept(*id_, b""))
                    continue
                body = bodies.get(id_)
                found.append(Kept(*id_, entry, names[_endpoint_of(entry)], answers.get(id_), body))
                size += len(body or b"")
            if size > MOST_BYTES:
                break
        return found

    async def _values(self, key: Callable[[str, str], str], ids: Sequence[Id]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for some in in_parts(ids):
            found += await self._wire.call("MGET", *(key(workspace, id_) for workspace, id_ in some))
        return found

    async def _names(self, endpoints: Collection[str]) -> dict[str, str]:
        """The endpoints' names; empty for one that is not known any more."""
        ordered = sorted(endpoints)
        found = await self._wire.call_all([("HGET", self._keys.endpoint(one), "name") for one in ordered])
        return {
            one: name.decode(errors="replace") if isinstance(name, bytes) else ""
            for one, name in zip(ordered, found, strict=True)
        }


def _id_of(fields: Sequence[bytes]) -> Id | None:
    """The callback that a note names; None if no script of ours wrote it."""
    text = fields[1].decode(errors="replace") if len(fields) == 2 else ""
    workspace, _, id_ = text.partition(" ")
    return (workspace, id_) if workspace and id_ else None


def _words(entry: bytes) -> list[bytes]:
    return entry.partition(b"\n")[0].split(b" ", 10)


def _has_ended(entry: bytes | None) -> TypeGuard[bytes]:
    words = _words(entry or b"")
    return len(words) > 9 and words[9].isdigit()


def _is_delivered(entry: bytes) -> bool:
    return _words(entry)[4] == b"d"


def _may_have_answer(entry: bytes) -> bool:
    """Whether it failed, or was delivered by a later attempt than the first one."""
    return not _is_delivered(entry) or entry.count(b"\n") > 1


def _endpoint_of(entry: bytes) -> str:
    return _words(entry)[6].decode(errors="replace")
