"""Reads messages: from Redis, and from the archive what Redis has forgotten."""

from collections.abc import Callable, Sequence

from dispatcher.errors import InvalidInput
from dispatcher.model import BY_LETTER, MAX_AHEAD_MS
from dispatcher.store.archive.messages import ArchivedMessages, Wanted
from dispatcher.store.archive.messages_by_time import ArchiveSearch, by_time
from dispatcher.store.archive.read_messages import head_of, known_messages, listed_messages, pages, place_of
from dispatcher.store.message_reader import BOUNDS, Bounds, Filter, Look, MessageReader, free
from dispatcher.store.message_record import reference_digest
from dispatcher.store.messages import Campaign, Messages, channels_from, named
from dispatcher.store.stored_message import StoredMessage

LISTED_LONGER_MS = 172_800_000
"""For so much longer than it keeps a message Redis lists it by when it was sent (lua/lib/message_lists.lua)."""
FEWEST = 50
"""Rows of the archive that are read at once, at least: some may not be wanted."""


class MessagesAndArchive(Messages):
    """As Messages, of Redis and the archive; raises ArchiveUnavailable too. What both have is as Redis has it.

    Redis is always read first, since messages go from there to the archive.
    """

    def __init__(
        self, in_redis: Messages, archive: ArchivedMessages, retention_ms: int, bounds: Bounds = BOUNDS
    ) -> None:
        self._in_redis = in_redis
        self._archive = archive
        self._retention_ms = retention_ms
        self._bounds = bounds

    async def get_many(self, workspace: str, uuids: Sequence[str]) -> list[StoredMessage]:
        """As Messages.get_many."""
        known = await known_messages(self._in_redis, self._archive, workspace, uuids)
        return [known[uuid] for uuid in uuids if uuid in known]

    async def of_customer(self, workspace: str, channel: str, ids: Sequence[str]) -> dict[str, StoredMessage]:
        """As Messages.of_customer. Does not ask the archive for an id that leads to a message in Redis by this channel."""
        channels = channels_from(channel)
        leads = await self._in_redis.of_channels(workspace, channels, ids)
        first = {id_: groups[:1] for id_, groups in leads.items()}
        uuids = [uuid for [some] in first.values() for uuid in some]
        there = {one.uuid: one for one in await self._in_redis.get_many(workspace, uuids)}
        found = named(channel, first, there)
        left = {id_: groups for id_, groups in leads.items() if id_ not in found}
        return found | (await self._of_both(workspace, channel, left) if left else {})

    async def _of_both(
        self, workspace: str, channel: str, leads: dict[str, list[list[str]]]
    ) -> dict[str, StoredMessage]:
        """The same, with the archive's leads where Redis has none."""
        channels = channels_from(channel)
        keys = {
            (id_, place): f"customer:{channels[place]}:{id_}"
            for id_, groups in leads.items()
            for place, uuids in enumerate(groups)
            if not uuids
        }
        listed = await self._archive.latest(workspace, [*keys.values()]) if keys else {}
        for (id_, place), key in keys.items():
            leads[id_][place] = listed.get(key, [])[:1]
        uuids = [uuid for groups in leads.values() for some in groups for uuid in some]
        every = list(dict.fromkeys([*uuids, *leads]))
        known = await listed_messages(self._in_redis, self._archive, workspace, every)
        return named(channel, leads, known)

    async def to_phone(
        self, workspace: str, number: str, before_ms: int, count: int, keep: Filter, look: Look = free
    ) -> list[StoredMessage]:
        """As Messages.to_phone."""
        found = await self._in_redis.to_phone(workspace, number, before_ms, count, keep, look)
        return await self._merged(
            found, Wanted(workspace, f"phone:{number}", 0, before_ms - 1, True), count, keep, look
        )

    async def with_reference(
        self, workspace: str, key: str, before_ms: int, count: int, keep: Filter, look: Look = free
    ) -> list[StoredMessage]:
        """As Messages.with_reference."""
        found = await self._in_redis.with_reference(workspace, key, before_ms, count, keep, look)
        wanted = Wanted(workspace, f"reference:{reference_digest(key)}", 0, before_ms - 1, True)

        def has_key(one: StoredMessage) -> bool:
            return one.reference.get("key") == key

        return await self._merged(found, wanted, count, keep, look, has_key)

    async def campaign(self, workspace: str, campaign: str) -> Campaign | None:
        """As Messages.campaign: Redis's counts, as long as it has these; they count what has gone to the archive too."""
        if found := await self._in_redis.campaign(workspace, campaign):
            return found
        counted = await self._archive.campaign(workspace, campaign)
        if not counted:
            return None
        counts = {BY_LETTER[letter]: count for letter, count in counted.by_status.items()}
        return Campaign(campaign, counted.started_ms, counts)

    async def recipients(self, workspace: str, campaign: str, skip: int, count: int) -> list[StoredMessage]:
        """As Messages.recipients; those that only the archive knows are in order of when they were sent."""
        uuids = await self._in_redis.recipient_ids(workspace, campaign, skip, count)
        if uuids or await self._in_redis.campaign(workspace, campaign):
            return await self.get_many(workspace, uuids)
        wanted = Wanted(workspace, f"campaign:{campaign}")
        page = await self._archive.listed(wanted, None, count, skip)
        found = await listed_messages(self._in_redis, self._archive, workspace, [one.uuid for one in page])
        return [*found.values()]

    async def sent_between(
        self,
        workspace: str,
        channel: str,
        from_ms: int,
        to_ms: int,
        *,
        now_ms: int,
        skip: int,
        count: int,
        keep: Filter | None = None,
        look: Look = free,
    ) -> list[StoredMessage]:
        """A page of a channel's messages sent between two times (both inclusive), in order of that and of their uuids.

        Raises InvalidInput if it would have to look at too many.
        """
        since_ms, until_ms = max(from_ms, 0), min(to_ms, now_ms + MAX_AHEAD_MS)
        search = ArchiveSearch(
            workspace, channel, since_ms, until_ms, now_ms - self._retention_ms - LISTED_LONGER_MS, keep, look
        )
        found: list[StoredMessage] = []
        async for one in by_time(self._in_redis, self._archive, search, self._bounds):
            if skip:
                skip -= 1
                continue
            found.append(one)
            if len(found) == count:
                break
        return found

    async def readers(self, workspace: str) -> list[MessageReader]:
        """As Messages.readers: of Redis alone."""
        return await self._in_redis.readers(workspace)

    async def _merged(
        self,
        found: Sequence[StoredMessage],
        wanted: Wanted,
        count: int,
        keep: Filter,
        look: Look,
        is_wanted: Callable[[StoredMessage], bool] = lambda _: True,
    ) -> list[StoredMessage]:
        """The latest of what was found in Redis and of what the archive lists, each once and at its own place: not where a row of it is listed."""
        latest = {one.uuid: one for one in found}
        looked_at = 0
        async for page in pages(self._archive, wanted, max(count, FEWEST)):
            looked_at += len(page)
            await look(len(page))
            uuids = [one.uuid for one in page if one.uuid not in latest]
            there = await listed_messages(self._in_redis, self._archive, wanted.workspace, uuids)
            latest |= {
                uuid: one
                for uuid, one in there.items()
                if one.sent_ms <= wanted.to_ms and keep(head_of(one)) and is_wanted(one)
            }
            if sum(place_of(one) >= page[-1].place for one in latest.values()) >= count:
                break
            if looked_at >= self._bounds.looked_at:
                raise InvalidInput(
                    f"more than {looked_at:,} messages would have to be looked at: say an earlier sendDate"
                )
        return sorted(latest.values(), key=place_of, reverse=True)[:count]
