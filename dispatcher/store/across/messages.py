"""Reads the message store of an installation with several partitions. All that is asked is of one workspace.

In a workspace that is spread over several partitions each message is in one of them; in two, if its width grew meanwhile: then
the record with the newer status counts.
"""

from collections.abc import Sequence

from dispatcher.model import Status
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.across.without_previous import without_previous
from dispatcher.store.message_reader import BOUNDS, Bounds, Filter, Look, MessageReader, free
from dispatcher.store.messages import Campaign, Messages
from dispatcher.store.stored_message import StoredMessage, newest


class MessagesAcross(Messages):
    """As Messages, of all partitions."""

    def __init__(
        self, partitions: Partitions, retention_ms: int = 604_800_000, bounds: Bounds = BOUNDS
    ) -> None:
        self._partitions = partitions
        self._retention_ms = retention_ms
        self._at = partitions.on_wire(lambda call, keys, url: Messages(call, keys, url, retention_ms, bounds))

    async def get_many(self, workspace: str, uuids: Sequence[str]) -> list[StoredMessage]:
        """As Messages.get_many."""

        async def ask(n: int) -> list[StoredMessage]:
            return await self._at(n).get_many(workspace, uuids)

        def is_whole(there: Sequence[Sequence[StoredMessage]]) -> bool:
            return {one.uuid for some in there for one in some} >= set(uuids)

        found = await without_previous(self._partitions, workspace, ask, is_whole)
        if found is None:
            found = await self._partitions.for_workspace(workspace, ask)
        known = newest(one for some in found for one in some)
        return [known[uuid] for uuid in uuids if uuid in known]

    async def of_customer(self, workspace: str, channel: str, ids: Sequence[str]) -> dict[str, StoredMessage]:
        """As Messages.of_customer."""
        found: dict[str, StoredMessage] = {}
        for some in await self._partitions.for_workspace(
            workspace, lambda n: self._at(n).of_customer(workspace, channel, ids)
        ):
            for id_, one in some.items():
                if id_ not in found or found[id_].sent_ms < one.sent_ms:
                    found[id_] = one
        return {id_: found[id_] for id_ in ids if id_ in found}

    async def of_channels(
        self, workspace: str, channels: Sequence[str], ids: Sequence[str]
    ) -> dict[str, list[list[str]]]:
        """As Messages.of_channels; of each channel one for each partition at most."""
        found = await self._partitions.for_workspace(
            workspace, lambda n: self._at(n).of_channels(workspace, channels, ids)
        )
        return {
            id_: [
                [uuid for uuids in of_channel for uuid in uuids] for of_channel in zip(*groups, strict=True)
            ]
            for id_, groups in ((id_, [some[id_] for some in found]) for id_ in ids)
        }

    async def to_phone(
        self, workspace: str, number: str, before_ms: int, count: int, keep: Filter, look: Look = free
    ) -> list[StoredMessage]:
        """As Messages.to_phone."""
        found = await self._partitions.for_workspace(
            workspace, lambda n: self._at(n).to_phone(workspace, number, before_ms, count, keep, look)
        )
        return _latest(found, count)

    async def with_reference(
        self, workspace: str, key: str, before_ms: int, count: int, keep: Filter, look: Look = free
    ) -> list[StoredMessage]:
        """As Messages.with_reference."""
        found = await self._partitions.for_workspace(
            workspace, lambda n: self._at(n).with_reference(workspace, key, before_ms, count, keep, look)
        )
        return _latest(found, count)

    async def campaign(self, workspace: str, campaign: str) -> Campaign | None:
        """As Messages.campaign: counts are added."""
        found = await self._partitions.for_workspace(
            workspace, lambda n: self._at(n).campaign(workspace, campaign)
        )
        known = [one for one in found if one]
        if len(known) < 2:
            return known[0] if known else None
        counts: dict[Status, int] = {}
        for one in known:
            for status, count in one.counts.items():
                counts[status] = counts.get(status, 0) + count
        return Campaign(campaign, min(one.started_ms for one in known), counts)

    async def recipient_ids(self, workspace: str, campaign: str, skip: int, count: int) -> list[str]:
        """As Messages.recipient_ids; those of one partition after those of another."""
        places = await self._partitions.of(workspace)
        if len(places) == 1:
            return await self._at(places[0]).recipient_ids(workspace, campaign, skip, count)
        found: list[str] = []
        for n in places:
            length = await self._recipients_in(n, workspace, campaign)
            taken = max(0, min(count, length - skip))
            if taken:
                found += await self._at(n).recipient_ids(workspace, campaign, skip, taken)
            skip, count = max(0, skip - length), count - taken
        return list(dict.fromkeys(found))

    async def readers(self, workspace: str) -> list[MessageReader]:
        """As Messages.readers."""
        found = await self._partitions.for_workspace(workspace, lambda n: self._at(n).readers(workspace))
        return [one for some in found for one in some]

    async def _recipients_in(self, n: int, workspace: str, campaign: str) -> int:
        key = self._partitions.keys[n].status_recipients(workspace, campaign)
        return int(await self._partitions.call(n, "LLEN", key))


def _latest(found: Sequence[Sequence[StoredMessage]], count: int) -> list[StoredMessage]:
    if len(found) == 1:
        return [*found[0]]
    return sorted(newest(one for some in found for one in some).values(), key=lambda one: -one.sent_ms)[
        :count
    ]
