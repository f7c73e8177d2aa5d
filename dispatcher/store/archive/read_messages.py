"""Messages of the archive as the message store has them."""

from collections.abc import AsyncIterator, Collection, Iterable

import structlog

from dispatcher.store.archive.archived_message import ArchivedMessage, whole
from dispatcher.store.archive.messages import ArchivedMessages, Place, Wanted
from dispatcher.store.message_record import Head
from dispatcher.store.messages import Messages
from dispatcher.store.stored_message import DAMAGED, StoredMessage, completed

log = structlog.get_logger()


def read_messages(rows: Iterable[ArchivedMessage]) -> list[StoredMessage]:
    """The messages of rows. An unreadable one is logged and left out, so that it does not hide others."""
    found = []
    for row in rows:
        try:
            found.append(row.message())
        except DAMAGED:
            log.error("archive.unreadable", workspace=row.workspace, message=row.uuid)
    return found


def head_of(message: StoredMessage) -> Head:
    """What a message is filtered by."""
    return Head(message.uuid, message.status, message.sent_ms)


def place_of(message: StoredMessage) -> Place:
    """Where it stands among others, by time."""
    return message.sent_ms, message.uuid


async def known_messages(
    in_redis: Messages, archive: ArchivedMessages, workspace: str, uuids: Collection[str]
) -> dict[str, StoredMessage]:
    """Messages by their uuids. Asks the archive for those alone that Redis does not know. Raises RedisUnavailable, ArchiveUnavailable."""
    found = {one.uuid: one for one in await in_redis.get_many(workspace, [*dict.fromkeys(uuids)])}
    missing = [uuid for uuid in dict.fromkeys(uuids) if uuid not in found]
    return found | await _kept(archive, workspace, missing)


async def listed_messages(
    in_redis: Messages, archive: ArchivedMessages, workspace: str, uuids: Collection[str]
) -> dict[str, StoredMessage]:
    """Messages that the archive lists, each put together from all that it has of it, in the order of `uuids`. Raises as known_messages.

    One that Redis has as well is as Redis has it, but for details that only the archive was told: by these it may have been listed.
    """
    wanted = [*dict.fromkeys(uuids)]
    in_both = {
        one.uuid: one for one in await in_redis.get_many(workspace, wanted)
    }  # first: it goes from there
    kept = await _kept(archive, workspace, wanted)
    found = kept | {
        uuid: completed(one, kept[uuid]) if uuid in kept else one for uuid, one in in_both.items()
    }
    return {uuid: found[uuid] for uuid in wanted if uuid in found}


async def _kept(
    archive: ArchivedMessages, workspace: str, uuids: Collection[str]
) -> dict[str, StoredMessage]:
    rows = await archive.get(workspace, uuids) if uuids else []
    return {one.uuid: one for one in read_messages(whole(rows).values())}


async def pages(archive: ArchivedMessages, wanted: Wanted, size: int) -> AsyncIterator[list[ArchivedMessage]]:
    """The rows that are wanted, in pages. Raises ArchiveUnavailable."""
    after: Place | None = None
    while page := await archive.listed(wanted, after, size):
        yield page
        if len(page) < size:
            return
        after = page[-1].place
