"""Growing from one Redis to several partitions: what is copied from the previous Redis, and what is noted of it.

Copied is what has no end: workspaces with their subscriptions, API keys, and which endpoints the operator stopped. Callbacks
and messages stay where they are until they are over. The previous Redis is changed until all is copied, so a run that is
repeated replaces what one before it copied; once the installation has grown, nothing is copied any more.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from dispatcher.errors import (
    InvalidInput,
    PreviousUnavailable,
    RedisUnavailable,
    StillWaiting,
    sentence,
)
from dispatcher.model import LONGEST_TTL_SECONDS, iso
from dispatcher.store import format, grown
from dispatcher.store.across.installation import InstallationAcross
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.api_keys import OPERATORS, PRODUCERS
from dispatcher.store.connection import translated
from dispatcher.store.damaged import needed, needed_type
from dispatcher.store.growth_copies import Copies
from dispatcher.store.growth_lock import GrowthLock
from dispatcher.store.installation import Installation
from dispatcher.store.keys import FORMAT_TEXT, GROWN_INTO, Keys, grown_key
from dispatcher.store.nobody_there import is_nobody_there
from dispatcher.store.partition_count import require_partitions
from dispatcher.store.queue import GROUP

LAST_ENTRY = f"{2**64 - 1}-{2**64 - 1}"
"""The last id of an entry that a stream can have: behind it XADD adds nothing, and is answered with an error."""
NAMED = 3
"""How many workspaces an error names."""
WHAT_IS_LOST = (
    "callbacks and status changes that waited in the previous Redis are lost, and its eventIds and messages are not known any "
    "more: status changes that are enqueued once more cause callbacks once more"
)


class Growth:
    """The growth of one installation; the last of `partitions`, all of which are needed, is the previous Redis."""

    def __init__(self, partitions: Partitions, prefix: str) -> None:
        number = partitions.partitioning.previous
        assert number is not None
        self._of = partitions
        self._prefix = prefix
        self._number = number
        self._old: Any = partitions.servers.client(number)
        self._keys: Keys = partitions.keys[number]
        self._url = partitions.url(number)
        self._installation = Installation(self._old, self._keys, self._url)

    async def copy(
        self, tell: Callable[[int, int], None] = lambda *_: None, *, replace: bool = False
    ) -> Counter[str]:
        """Copies, and lets workers start; `tell` hears of how many workspaces, of how many, are done.

        If that was done before, copies nothing and only takes an end back. With `replace` what the partitions have of their own
        goes, as what an earlier run copied always does.

        Returns how many of each kind were copied. Raises InvalidInput if the previous Redis holds no installation with one
        partition, or the partitions have one of their own; or OtherFormat, RedisUnavailable.
        """
        async with GrowthLock(self._of.servers, self._prefix) as lock:
            return await self._copy(tell, lock, replace=replace)

    async def _copy(
        self, tell: Callable[[int, int], None], lock: GrowthLock, *, replace: bool
    ) -> Counter[str]:
        number, is_noted = await self._format()
        noted = await grown.noted(self._of.servers, self._prefix)
        has_grown = grown.read(noted)[0] > 0
        if is_noted and not noted:
            raise InvalidInput(
                f"the previous Redis has grown into these partitions, and {grown_key(self._prefix)} on the servers of "
                "DISPATCHER_REDIS_URL is gone: set it to the time at which that was (ms since 1970; now, if it is not known)"
            )
        if has_grown and not is_noted:
            raise InvalidInput(
                f"the partitions have grown, and {self._keys.format} in the previous Redis does not say so. If it has gone on as "
                f"before since, delete {grown_key(self._prefix)} on the servers of DISPATCHER_REDIS_URL, and run `dispatcher grow "
                f"--replace`. If it was restored from a backup, set that key there to '{number}{GROWN_INTO}{self._number}'"
            )
        if not is_noted:
            await self._require_no_other(replace=replace)
        await require_partitions(self._of.servers, self._prefix, keep=True)
        await self._raise_format(number)
        copied = Counter[str]()
        if is_noted:  # then all was copied, also if `grown` says that a run was under way
            await self._open_queue()
        else:
            await grown.note(self._of.servers, self._prefix, noted, grown.BEGUN)
            copied = await Copies(self._of, self._number, lock.renew).make(tell)
            await lock.renew()
        await self._note()
        return copied

    async def end(self, retention_seconds: int, *, force: bool = False) -> str:
        """Lets workers start without the previous Redis, which remembers what ended there for `retention_seconds`.

        Returns what `force` has left behind; empty if that is nothing.

        Raises StillWaiting while something waits there or, without `force`, is known there, or not in the archive yet, or it is
        empty; OtherFormat, RedisUnavailable.
        """
        async with GrowthLock(self._of.servers, self._prefix):
            return await self._end(retention_seconds, force=force)

    async def _end(self, retention_seconds: int, *, force: bool) -> str:
        await grown.require_grown(self._of.servers, self._prefix)
        try:
            is_empty = await self._is_empty()
            queued, pending = await self.waiting()
        except RedisUnavailable as error:
            own = PreviousUnavailable.of(error)
            if not is_nobody_there(error):
                raise own from error
            raise RedisUnavailable(
                f"{sentence(str(own))} Bring it back; if it is gone for good, "
                f"`dispatcher grow --end --lost` ends it: {WHAT_IS_LOST}"
            ) from error
        if queued or pending:
            raise StillWaiting(
                f"{_counted(queued, 'status change')} and {_counted(pending, 'callback')} wait in the previous Redis: "
                "workers send them as long as "
                "DISPATCHER_PREVIOUS_REDIS_URL is set"
            )
        if is_empty and not force:
            raise StillWaiting(
                "the previous Redis holds nothing of this installation: is DISPATCHER_PREVIOUS_REDIS_URL right? If it is, and all "
                f"that it knew is lost, `dispatcher grow --end --force` ends it: {WHAT_IS_LOST}"
            )
        unarchived = not_archived(*await self.to_archive())
        if unarchived and not force:
            raise StillWaiting(
                f"{unarchived}: workers and archivers take them there as long as DISPATCHER_PREVIOUS_REDIS_URL is set, messages once "
                "they are over (--force leaves them behind)"
            )
        until_ms = await self.known_until_ms(retention_seconds)
        if not force and until_ms >= await self.now_ms():
            raise StillWaiting(
                f"the previous Redis knows eventIds and messages until {iso(until_ms)}, if nothing comes to them; without it a "
                "repeated eventId would be sent twice (--force ends it all the same)"
            )
        await self._close_queue()
        await self._set_ended()
        return WHAT_IS_LOST if is_empty else unarchived

    async def require_own(self) -> None:
        """As `require_previous`."""
        await grown.require_previous(self._of.servers)

    async def _is_empty(self) -> bool:
        """Whether the previous Redis has lost all that it had. Raises OtherSettings if it is another installation's."""
        stored = await grown.stored_format(self._of.servers, self._number)
        if not stored and await self._installation.is_empty():
            return True
        format.require_previous(stored or "0", self._number)
        return False

    async def end_lost(self) -> None:
        """Lets workers start without the previous Redis, which is gone for good (WHAT_IS_LOST).

        Raises StillWaiting if it answers; OtherFormat, RedisUnavailable.
        """
        async with GrowthLock(self._of.servers, self._prefix):
            await self._end_lost()

    async def _end_lost(self) -> None:
        await grown.require_grown(self._of.servers, self._prefix)
        try:
            await self.now_ms()
        except RedisUnavailable as error:
            if not is_nobody_there(error):
                why = str(error).replace("DISPATCHER_REDIS_URL", "DISPATCHER_PREVIOUS_REDIS_URL")
                raise StillWaiting(
                    f"the previous Redis answers, so it is not lost: {sentence(why)} If that is another server in its "
                    "place, set DISPATCHER_PREVIOUS_REDIS_URL to where none is"
                ) from error
        else:
            raise StillWaiting("the previous Redis answers, so it is not lost: leave --lost out")
        await self._set_ended()

    async def _set_ended(self) -> None:
        noted = await grown.noted(self._of.servers, self._prefix)
        await grown.note(self._of.servers, self._prefix, noted, f"{grown.read(noted)[0]}{grown.ENDED}")

    async def known_until_ms(self, retention_seconds: int) -> int:
        """Until when the previous Redis knows eventIds and messages, if nothing comes to them; ms since 1970.

        That is a longest ttlSeconds and a retention after the last use of an endpoint there, and not before as long after the
        growth: messages without callbacks use none. Raises RedisUnavailable.
        """
        since_ms, _ = await grown.grown(self._of.servers, self._prefix)
        with translated(self._url):
            newest = await self._old.zrange(
                self._keys.endpoints,
                "(inf",
                "-inf",
                desc=True,
                byscore=True,
                offset=0,
                num=1,
                withscores=True,
            )
        last_ms = int(max([since_ms, *(used_ms for _, used_ms in newest)]))
        return last_ms + (LONGEST_TTL_SECONDS + retention_seconds) * 1000

    async def now_ms(self) -> int:
        """The previous Redis's clock, ms since 1970."""
        return await self._installation.now_ms()

    async def waiting(self) -> tuple[int, int]:
        """How many status changes are on the previous queue, and how many callbacks have not ended there."""
        return await self._installation.waiting()

    async def to_archive(self) -> tuple[int, int]:
        """How many ended callbacks, and how many messages, of the previous Redis are to go to the archive and are not there yet."""
        with translated(self._url):
            with needed_type(self._keys.to_archive):
                callbacks = await self._old.xlen(self._keys.to_archive)
            # also those whose time has not come: nobody takes them after the end
            with needed_type(self._keys.status_due):
                return callbacks, await self._old.zcard(self._keys.status_due)

    async def _close_queue(self) -> None:
        """Has the previous queue take nothing more, as nobody reads it: a producer that still has it gets an error.

        Raises StillWaiting if something was enqueued just now.
        """
        key = self._keys.events

        async def close(pipe: Any) -> None:
            if queued := await pipe.xlen(key):
                raise StillWaiting(f"{_counted(queued, 'status change')} came to the previous queue just now")
            is_there = await pipe.exists(key)
            pipe.multi()
            if not is_there:
                pipe.execute_command("XGROUP", "CREATE", key, GROUP, "$", "MKSTREAM")
            pipe.execute_command("XSETID", key, LAST_ENTRY)

        with translated(self._url):
            await self._old.transaction(close, key)  # runs again if something is enqueued meanwhile

    async def _open_queue(self) -> None:
        """Has the previous queue take status changes again, if `_close_queue` was the last that changed it."""
        key = self._keys.events
        with translated(self._url):
            if not await self._old.exists(key):
                return
            last = (await self._old.xinfo_stream(key))["last-generated-id"]
            if last == LAST_ENTRY.encode():
                await self._old.execute_command("XSETID", key, f"{await self.now_ms()}-0")

    async def _format(self) -> tuple[int, bool]:
        """The previous Redis's data format, and whether it is noted there that it has grown.

        Raises InvalidInput or OtherFormat if it cannot be copied from.
        """
        with translated(self._url):
            stored, count = await self._old.mget(self._keys.format, self._keys.count)
        found, _, into = needed(stored, self._keys.format, FORMAT_TEXT).partition(GROWN_INTO)
        if into not in ("", str(self._number)):
            raise InvalidInput(f"the previous Redis has grown into {into} partitions, not {self._number}")
        if count:
            raise InvalidInput(
                f"the previous Redis holds an installation with {needed(count, self._keys.count)} partitions: only one with one partition can grow"
            )
        if not found:
            raise InvalidInput(
                f"DISPATCHER_PREVIOUS_REDIS_URL holds no installation with the prefix {self._prefix!r}: is it the right server, "
                "database and DISPATCHER_KEY_PREFIX, and were its workers upgraded to this version?"
            )
        format.require_format(found, archives=True)  # the partitions are looked at next, with the settings
        return int(found), bool(into)

    async def _require_no_other(self, *, replace: bool) -> None:
        """Raises InvalidInput if the partitions have workers, callbacks that wait, or, unless `replace`, what is no copy."""
        workers = await InstallationAcross(self._of).workers()
        waiting = await self._of.everywhere(lambda n: self._at(n).waiting(), range(self._number))
        pending = sum(pending for _, pending in waiting.values())
        if workers or pending:
            raise InvalidInput(
                f"the servers of DISPATCHER_REDIS_URL hold an installation of their own, with {_counted(len(workers), 'worker')} and "
                f"{_counted(pending, 'waiting callback')}, which this one cannot grow into. Are these the right servers? If they are, let "
                "it send what waits, and stop its workers"
            )
        if replace or await grown.noted(self._of.servers, self._prefix):
            return
        if own := await self._own():
            more = f" and {len(own) - NAMED:,} more" if len(own) > NAMED else ""
            raise InvalidInput(
                f"the servers of DISPATCHER_REDIS_URL hold {', '.join(own[:NAMED])}{more} already. Are these the right servers? If they "
                "are, and all there may go, `dispatcher grow --replace` has the previous Redis's workspaces and API keys in its place"
            )

    async def _own(self) -> list[str]:
        """What the partitions have of workspaces and API keys, for an error text."""
        found = await self._of.everywhere(self._of.names, range(self._number))
        names = [f"workspace {name}" for name in sorted({name for names in found.values() for name in names})]
        for owner, what in ((PRODUCERS, "API keys of producers"), (OPERATORS, "keys of the console")):
            home = self._of.partitioning.home(owner)
            if await self._of.call(home, "EXISTS", self._of.keys[home].api_keys(owner)):
                names.append(what)
        return names

    async def _raise_format(self, number: int) -> None:
        """Raises the partitions' data format to that of the previous Redis."""
        await self._of.everywhere(lambda n: self._at(n).raise_format(number), range(self._number))

    def _at(self, n: int) -> Installation:
        return Installation(self._of.servers.client(n), self._of.keys[n], self._of.url(n))

    async def _note(self) -> None:
        """Notes on both sides what the previous Redis is now: processes that take it for the whole do not start any more."""
        with translated(self._url):
            number = (await self._old.get(self._keys.format)).decode().partition(GROWN_INTO)[0]
            await self._old.set(self._keys.format, f"{number}{GROWN_INTO}{self._number}")
        noted = await grown.noted(self._of.servers, self._prefix)
        since_ms, _ = grown.read(noted)
        await grown.note(
            self._of.servers, self._prefix, noted, str(since_ms or await self.now_ms())
        )  # an end is taken back


def not_archived(callbacks: int, messages: int) -> str:
    """Says what the previous Redis has and the archive has not; empty if there is nothing."""
    if not (callbacks or messages):
        return ""
    return f"{_counted(callbacks, 'ended callback')} and {_counted(messages, 'message')} of the previous Redis are not in the archive"


def _counted(count: int, one: str) -> str:
    """A number and what it counts: `1 callback`, `1,200 callbacks`."""
    return f"{count:,} {one}{'' if count == 1 else 's'}"
