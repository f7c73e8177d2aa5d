"""Messages of the archive as the message store has them."""

from collections.abc import AsyncIterator, Iterable

import structlog

from dispatcher.store.archive.archived_message import ArchivedMessage
from dispatcher.store.archive.messages import ArchivedMessages, Place, Wanted
from dispatcher.store.message_record import Head
from dispatcher.store.stored_message import DAMAGED, StoredMessage

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


async def pages(archive: ArchivedMessages, wanted: Wanted, size: int) -> AsyncIterator[list[ArchivedMessage]]:
    """The rows that are wanted, in pages. Raises ArchiveUnavailable."""
    after: Place | None = None
    while page := await archive.listed(wanted, after, size):
        yield page
        if len(page) < size:
            return
        after = page[-1].place
