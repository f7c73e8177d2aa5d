"""Takes messages to the archive, and then out of the message store: soon after their last status, or when they have not changed for long."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import structlog

from dispatcher.errors import InvalidInput, OtherFormat
from dispatcher.store.archive.archived_message import ArchivedMessage, archived, is_final, is_over, lists_on
from dispatcher.store.archive.messages import ArchivedMessages
from dispatcher.store.ledger import Ledger
from dispatcher.store.messages_to_archive import Due, Leaving, MessagesToArchive, Place
from dispatcher.store.stored_message import DAMAGED
from dispatcher.worker.metrics import Metrics

BATCH = 200
"""Messages that are read, and written, at once."""
AT_A_STRETCH = 50
"""Messages that are read before the event loop serves others."""
RETIRED_AT_ONCE = 50
"""Messages that one script takes out: Redis does nothing else meanwhile, some milliseconds."""
CUSTOMER = "customer:"
"""How a key begins that is an id of a customer (ArchivedMessage.keys)."""
OPEN, OVER, REFUSED = "open", "over", "refused"
"""What lua/retire_messages.lua does with one."""

log = structlog.get_logger()


class Taken(NamedTuple):
    """What became of a batch."""

    looked_at: int
    put: int
    """How many the archive took."""


class MessageArchiver:
    """One partition's. `after_ms`: how long a message stays in Redis after its last status; `kept_ms`: how long the store keeps one after
    its last change. Of one that may still get another status half of that passes first. `stays`: what the archive has stays in Redis too.
    """

    def __init__(
        self,
        source: MessagesToArchive,
        ledger: Ledger,
        archive: ArchivedMessages,
        metrics: Metrics,
        after_ms: int,
        kept_ms: int,
        *,
        stays: bool = False,
    ) -> None:
        self._source = source
        self._ledger = ledger
        self._archive = archive
        self._metrics = metrics
        self._after_ms = after_ms
        self._kept_ms = kept_ms
        self._stays = stays

    async def take(self, token: str, now_ms: int, allow: Callable[[], Awaitable[None]]) -> Taken:
        """Takes one batch.

        Raises NotLeader, RedisUnavailable, ArchiveUnavailable, OtherFormat.
        """
        due = await self._source.batch(now_ms - self._after_ms, BATCH)
        if not due:
            return Taken(0, 0)
        await allow()
        found: dict[Place, ArchivedMessage | None] = {}
        for number, one in enumerate(due):
            if number % AT_A_STRETCH == 0:
                await asyncio.sleep(0)  # let callbacks go on in between
            found[one.workspace, one.uuid] = self._read(one)
        still_open = [place for place, message in found.items() if message and not is_over(message)]
        later = await self._later(still_open, now_ms)
        ripe = [message for place, message in found.items() if message and place not in later]
        ripe = await self._with_their_names(ripe)
        taken = {(one.workspace, one.uuid) for one in await self._put(ripe)} if ripe else set()
        self._metrics.archived_messages += len(taken)
        leaving = [
            _leaving(one, later.get(place), message if place in taken and not self._stays else None)
            for one, (place, message) in zip(due, found.items(), strict=True)
        ]
        for at in range(0, len(leaving), RETIRED_AT_ONCE):
            if await self._ledger.retire_messages(token, leaving[at : at + RETIRED_AT_ONCE]) is None:
                raise OtherFormat("the data's format has changed meanwhile: no message leaves Redis")
        return Taken(len(due), len(taken))

    def _read(self, due: Due) -> ArchivedMessage | None:
        """What the archive is to keep of it; None, and logged, for a record that no script of ours wrote."""
        if not due.record:
            return None
        try:
            return archived(due.workspace, due.uuid, due.record, due.at_ms, due.platform)
        except DAMAGED as error:
            log.error("archive.unreadable", workspace=due.workspace, message=due.uuid, problem=str(error))
            return None

    async def _with_their_names(self, messages: Sequence[ArchivedMessage]) -> list[ArchivedMessage]:
        """The same, without those ids of their customer that another message has got since: these lead to that one."""
        named = [(one, key) for one in messages for key in one.look_ups() if key.startswith(CUSTOMER)]
        if not named:
            return [*messages]
        names = [(one.workspace, key.removeprefix(CUSTOMER)) for one, key in named]
        lost: set[tuple[str, str, str]] = set()
        for (one, key), holder in zip(named, await self._source.of_customers(names), strict=True):
            if not holder:  # Redis has forgotten it, or it led to a message that the archive has by now
                listed = await self._archive.latest(one.workspace, [key])
                holder = next(iter(listed.get(key, ())), one.uuid)
            if holder != one.uuid:
                lost.add((one.workspace, one.uuid, key))
        return [
            one.only(key for key in one.look_ups() if (one.workspace, one.uuid, key) not in lost)
            for one in messages
        ]

    async def _later(self, places: Sequence[Place], now_ms: int) -> dict[Place, int]:
        """When to look again at those that have changed lately."""
        found: dict[Place, int] = {}
        for place, left_ms in zip(places, await self._source.left_ms(places), strict=True):
            until = left_ms - self._kept_ms // 2
            if until > 0:
                found[place] = now_ms + until
        return found

    async def _put(self, messages: Sequence[ArchivedMessage]) -> list[ArchivedMessage]:
        """Puts messages into the archive; returns those that it took. Each of the others is logged: it stays in the message store."""
        try:
            await self._archive.put(messages)
            return [*messages]
        except InvalidInput as error:
            if len(messages) == 1:
                [one] = messages
                log.error("archive.refused", workspace=one.workspace, message=one.uuid, problem=str(error))
                return []
            half = len(messages) // 2
            return [*await self._put(messages[:half]), *await self._put(messages[half:])]


def _leaving(due: Due, at_ms: int | None, taken: ArchivedMessage | None) -> Leaving:
    """What Redis is to do about a message: look at it at a time, or let it go as the archive took it, or keep it."""
    if at_ms is not None:
        return Leaving(due.workspace, due.uuid, due.record, at_ms)
    if taken is None:
        return Leaving(due.workspace, due.uuid, due.record, REFUSED)
    what = OVER if is_final(taken) else OPEN  # a READ that comes now is late
    return Leaving(due.workspace, due.uuid, due.record, what, lists_on(due.platform, due.record))
