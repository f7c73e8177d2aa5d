"""Erases what is known of a message, a phone number or a workspace; only counts it first.

Everything may break off and be run again: what leads to the rest is removed last.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

from dispatcher.errors import InvalidInput
from dispatcher.rules.endpoint_name import event_id_of
from dispatcher.rules.outcomes import State
from dispatcher.store.archive.archive import After
from dispatcher.store.archive.archived_message import whole
from dispatcher.store.archive.messages import Wanted as ArchivedBy
from dispatcher.store.archive.read_messages import pages
from dispatcher.store.archive.which import Which
from dispatcher.store.entry import Entry
from dispatcher.store.stored_callback import Waiting
from dispatcher.store.traces import Traces, Wanted, bare, written
from tasks import wiring

DAY_MS = 86_400_000
PAGE = 500
"""Rows of the archive that are read at once."""


@dataclass
class Counts:
    """What was found, or erased."""

    queued: int = 0
    """Status changes on the queue."""
    waiting: int = 0
    """Callbacks that waited, and are cancelled first; `callbacks` has them too."""
    callbacks: int = 0
    """In Redis."""
    messages: int = 0
    """Records of the message store."""
    rejected: int = 0
    """Entries in `rejected`."""
    archived: int = 0
    """Callbacks in the archive."""
    archived_messages: int = 0
    """Messages in the archive."""
    sending: int = 0
    """Callbacks that are being sent: they stay until the next run."""

    @property
    def total(self) -> int:
        """How many things these are in all, without what stays."""
        in_archive = self.archived + self.archived_messages
        return self.queued + self.callbacks + self.messages + self.rejected + in_archive


async def count(store: wiring.Store, wanted: Wanted) -> Counts:
    """What would be erased. Changes nothing. Raises NotFound for an unknown workspace of which there is nothing."""
    found = await _Erasing(store, wanted, is_dry=True).run()
    if not found.total and not found.sending:
        await store.workspaces.require(wanted.workspace)
    return found


async def erase(store: wiring.Store, wanted: Wanted) -> Counts:
    """Erases it; returns what was erased. The audit entry has the counts, not what was looked for."""
    kind = "phone" if wanted.number is not None else "message" if wanted.message is not None else "workspace"
    erasing = _Erasing(store, wanted, is_dry=False)
    async with store.audit.steps(f"erase.{kind}", wanted.workspace) as done:
        try:
            return await erasing.run()
        finally:
            done.update(asdict(erasing.counts))


class _Erasing:
    """One run. With `is_dry` it only counts."""

    def __init__(self, store: wiring.Store, wanted: Wanted, *, is_dry: bool) -> None:
        if wanted.number is not None and not bare(wanted.number).isdigit():
            raise InvalidInput(
                "a phone number has digits, and blanks or +-./() between them: +233 20 000 0001"
            )
        self.counts = Counts()
        self._store = store
        self._archive = store.archive
        self._wanted = wanted
        self._workspace = wanted.workspace
        self._is_dry = is_dry
        self._places: Sequence[Traces] = ()
        self._day = 0
        self._left: set[str] = set()
        """Callbacks that are being sent."""

    async def run(self) -> Counts:
        """The queue first, so that nothing more is taken in."""
        self._day = await self._store.installation.now_ms() // DAY_MS
        if self._archive and not self._is_dry:
            await self._archive.migrate()  # an earlier version could not erase
        everywhere = [Traces(one) for one in await self._store.callbacks.places(None)]
        self._places = [Traces(one) for one in await self._store.callbacks.places(self._workspace)]
        self.counts.queued = await self._each(everywhere, Traces.queued, Traces.leave_queue)
        if self._wanted.message is not None:
            await self._of_message(self._wanted.message)
        elif self._wanted.number is not None:
            for uuid in sorted(await self._messages_to(self._wanted.number)):
                await self._of_message(uuid)
        else:
            await self._of_workspace()
        self.counts.rejected = await self._each(everywhere, Traces.rejected, Traces.remove_rejected)
        return self.counts

    async def _each(
        self,
        places: Iterable[Traces],
        find: Callable[[Traces, Wanted], Awaitable[list[str]]],
        remove: Callable[[Traces, Sequence[str]], Awaitable[None]],
    ) -> int:
        number = 0
        for place in places:
            ids = await find(place, self._wanted)
            if ids and not self._is_dry:
                await remove(place, ids)
            number += len(ids)
        return number

    async def _messages_to(self, number: str) -> set[str]:
        found: set[str] = set()
        for place in self._places:
            found |= await place.messages_to(self._workspace, number)
        if self._archive:
            keys = [f"phone:{one}" for one in written(number)] + [f"bare:{bare(number)}"]
            for key in keys:
                wanted = ArchivedBy(self._workspace, key)
                async for page in pages(self._archive.messages, wanted, PAGE):
                    found |= {row.uuid for row in page}
        return found

    async def _of_message(self, uuid: str) -> None:
        """Its callbacks, then the list of these, then its record, which is how it was found."""
        ids: dict[str, None] = {}
        for place in self._places:
            ids |= dict.fromkeys(await place.ids_of_message(self._workspace, uuid))
        ids |= {event_id_of(one): None for one in [*ids]}  # of a status change that went to others alone
        archived = await self._archive.of_message(self._workspace, uuid) if self._archive else []
        ids |= {one.id: None for one in archived}
        if self._is_dry:
            self.counts.archived += len(archived)
        left = await self._callbacks([*ids])
        lists: dict[tuple[str, str], None] = {}
        is_known = False
        for place in self._places:
            for found in (await place.records(self._workspace, [uuid])).values():
                is_known, lists = True, lists | dict.fromkeys(found)
        if self._is_dry or not left:
            self.counts.messages += is_known
        if self._is_dry:
            self.counts.archived_messages += await self._kept([uuid])
        if self._is_dry or left:
            return
        for place in self._places:
            await place.forget_list(self._workspace, uuid)
        if self._wanted.number is not None:  # its record may be gone, and its list not
            lists |= {("phone", one): None for one in written(self._wanted.number)}
        where = [(uuid, kind, which) for kind, which in lists] + [(uuid, "record", "")]
        # first, so that what the archiver has read meanwhile is not put any more
        self.counts.archived_messages += await self._erase_archived(uuid, is_known=is_known)
        await self._store.ledger.unlist(self._workspace, where)

    async def _erase_archived(self, uuid: str, *, is_known: bool) -> int:
        """Takes a message out of the archive; before that out of its campaign, which stays in Redis, unless its record there does that."""
        if not self._archive:
            return 0
        kept = whole([] if is_known else await self._archive.messages.get(self._workspace, [uuid]))
        campaigns = [(uuid, "campaign", one.status + one.campaign) for one in kept.values() if one.campaign]
        await self._store.ledger.unlist(self._workspace, campaigns)
        return await self._archive.messages.erase(self._workspace, [uuid], self._day)

    async def _kept(self, uuids: Sequence[str]) -> int:
        """How many of these messages the archive has."""
        if not self._archive:
            return 0
        return len({one.uuid for one in await self._archive.messages.get(self._workspace, uuids)})

    async def _of_workspace(self) -> None:
        for place in self._places:
            async for ids in place.ids(self._workspace):
                await self._callbacks(ids)
        await self._archived_of_workspace()
        await self._archived_messages_of_workspace()
        for place in self._places:
            async for keys in place.keys_of_messages(self._workspace):
                self.counts.messages += sum(place.is_record(self._workspace, key) for key in keys)
                if not self._is_dry:
                    await place.remove(
                        [key for key in keys if not (self._left and place.is_list(self._workspace, key))]
                    )
            if not self._is_dry:
                await place.forget_due(self._workspace)

    async def _archived_of_workspace(self) -> None:
        after: After | None = None
        while self._archive:
            found, after = await self._archive.ended(Which(self._workspace), after, PAGE)
            if self._is_dry:
                self.counts.archived += len(found)
            else:
                await self._callbacks([one.id for one in found])
            if after is None:
                return

    async def _archived_messages_of_workspace(self) -> None:
        if not self._archive:
            return
        if self._is_dry:
            self.counts.archived_messages = await self._archive.messages.count(self._workspace)
            return
        while uuids := await self._archive.messages.some(self._workspace, PAGE):
            erased = await self._archive.messages.erase(self._workspace, uuids, self._day)
            self.counts.archived_messages += erased

    async def _callbacks(self, ids: Sequence[str]) -> set[str]:
        """Cancels those that wait, and erases those that have ended; returns those that stay because they are being sent."""
        known = await self._entries(ids)
        waiting = {id_: one for id_, one in known.items() if not one.ended and one.state is not State.SENDING}
        if self._is_dry:
            left = {id_ for id_, one in known.items() if one.state is State.SENDING}
            self.counts.callbacks += sum(one.state is not State.ERASED for one in known.values()) - len(left)
            self.counts.waiting += len(waiting)
            self._note_left(left)
            return left
        self.counts.waiting += await self._cancel(waiting)
        left = {id_ for id_, one in (await self._entries(ids)).items() if not one.ended}
        over = [id_ for id_ in ids if id_ not in left]
        if self._archive and over:  # first, so that what the archiver has read meanwhile is not put any more
            found = await self._archive.erase([(self._workspace, id_) for id_ in over], self._day)
            self.counts.archived += found
        erased, _ = await self._store.ledger.erase(self._workspace, over)
        self.counts.callbacks += erased
        self._note_left(left)
        return left

    def _note_left(self, ids: set[str]) -> None:
        self._left |= ids
        self.counts.sending = len(self._left)

    async def _entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for place in self._places:
            found |= await place.entries(self._workspace, ids)
        return found

    async def _cancel(self, waiting: dict[str, Entry]) -> int:
        number = 0
        by_endpoint = sorted(((one.endpoint, id_) for id_, one in waiting.items()), key=lambda one: one[0])
        for endpoint, some in groupby(by_endpoint, key=lambda one: one[0]):
            number += await self._store.ledger.cancel(endpoint, [Waiting(id_) for _, id_ in some])
        return number
