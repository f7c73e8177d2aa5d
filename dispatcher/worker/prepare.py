"""Prepares queue entries for acceptance: they are validated and rendered, rejected with a reason, or put off."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from dispatcher.errors import InvalidInput, RedisUnavailable
from dispatcher.fast_decode import Change, status_change
from dispatcher.rules.render import RenderOptions, fan_out
from dispatcher.rules.workspace import Workspace
from dispatcher.store.previous import Previous
from dispatcher.store.queue import QueueEntry
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.worker.batch import (
    BEHIND,
    OF_THE_MACHINE,
    Asked,
    Batch,
    Fault,
    Rejection,
    Rendered,
)
from dispatcher.worker.earlier import EarlierPartitions
from dispatcher.worker.homes import Homes
from dispatcher.worker.recorder import Recorder
from dispatcher.worker.router import Router

PREPARED_AT_ONCE, PLACED_AT_ONCE = 16, 64
"""Entries that are rendered, or put into parts, before the loop gets to other work: the batch before must get onto the wire."""

NOBODY: Mapping[str, bool] = {}
Read = Change | Rejection | Exception


class Preparer:
    """Prepares batches. `now_ms` is Redis's clock; `is_held` says whether entries of a workspace are put off.

    `router` says which entries belong to other partitions, and `earlier` where messages began before a width grew, `homes`
    whether there is a workspace without a record here; None: there is one partition. `previous` is asked for the messages that stay with it; None: the installation has not grown.
    """

    def __init__(
        self,
        workspaces: WorkspaceCache,
        now_ms: Callable[[], int],
        options: RenderOptions,
        recorder: Recorder | None = None,
        is_held: Callable[[str], bool] = lambda _: False,
        router: Router | None = None,
        previous: Previous | None = None,
        earlier: EarlierPartitions | None = None,
        homes: Homes | None = None,
    ) -> None:
        self._workspaces = workspaces
        self._now_ms = now_ms
        self._options = options
        self._recorder = recorder
        self._is_held = is_held
        self._router = router
        self._previous = previous
        self._earlier = earlier
        self._homes = homes

    async def prepare(
        self,
        entries: Sequence[QueueEntry],
        trying: Mapping[str, bool] = NOBODY,
        again: Batch | None = None,
    ) -> Batch:
        """Prepares entries in order, each for the first time or `again`, with what that batch says of all of its entries.

        Those of a workspace that waits in `again.later` come behind the ones there. `trying` is as in Batch.

        Raises RedisUnavailable, and an error of OF_THE_MACHINE met while an entry is read: its workspace is unknown then, and
        the entries behind it may be of the same one.
        """
        batch = (
            Batch(later=again.later, trying=again.trying, between=again.between)
            if again
            else Batch(trying=trying)
        )
        read = await self._read_all(entries)
        staying = await self._staying(read)
        for number, entry in enumerate(entries, 1):
            await self._add(batch, entry, read.get(entry.id), stays=entry.id in staying)
            if number % PREPARED_AT_ONCE == 0:
                await asyncio.sleep(0)
        if batch.asked and self._earlier:
            places = await self._earlier.places(batch.asked)
            for asked, place in zip(batch.asked, places, strict=True):
                await self._add_asked(batch, asked, place)
        await self._place_all(batch)
        return batch

    async def _place_all(self, batch: Batch) -> None:
        """Puts rendered entries into the parts of a batch: the few of one customer come before the many of others."""
        number = 0
        for workspace in sorted(batch.unplaced, key=lambda name: len(batch.unplaced[name])):
            is_put_off = False
            for one in batch.unplaced[workspace]:
                if is_put_off:
                    batch.put_off(workspace, one.entry)
                    continue
                try:
                    self._place(batch, workspace, one)
                except Exception as error:
                    is_put_off = batch.broke(workspace, one.entry, error)
                number += 1
                if number % PLACED_AT_ONCE == 0:
                    await asyncio.sleep(0)
        batch.unplaced.clear()

    def _place(self, batch: Batch, workspace: str, one: Rendered) -> None:
        """Puts an entry into the parts of a batch."""
        entry, change, dialect, callbacks = one
        part = batch.part_for(len(callbacks))
        part.add_entry(entry.id, workspace, callbacks)
        (batch.rendered if callbacks else batch.skipped).append((entry, workspace))
        if self._recorder:
            self._recorder.add(part, change, dialect, part.entries if callbacks else 0)

    async def _read_all(self, entries: Sequence[QueueEntry]) -> dict[str, Read]:
        """What is in the entries that the previous Redis may know, so that each is read once; or the error that one meets."""
        read: dict[str, Read] = {}
        for number, entry in enumerate(entries if self._previous else (), 1):
            if self._router and self._router.may_stay(entry):
                try:
                    read[entry.id] = _read(entry)
                except Exception as error:
                    read[entry.id] = error
            if number % PREPARED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return read

    async def _staying(self, read: Mapping[str, Read]) -> set[str]:
        """The entries whose message the previous Redis knows. Raises PreviousUnavailable."""
        changes = {id_: change for id_, change in read.items() if isinstance(change, Change)}
        if not self._previous:
            return set()
        known = await self._previous.known([*changes.values()])
        return {id_ for id_, stays in zip(changes, known, strict=True) if stays}

    async def _add(
        self,
        batch: Batch,
        entry: QueueEntry,
        read: Read | None,
        *,
        stays: bool = False,
        began: int | None = None,
    ) -> None:
        """Adds an entry to the batch, by its result; `read`: what is in it; `stays`: its message is with the previous Redis.

        `began`: its message's partition, if that was asked.
        """
        workspace = ""
        try:
            change = read or _read(entry)
            if isinstance(change, Exception):
                raise change
            if isinstance(change, Rejection):
                batch.rejected.append((entry, change))
                return
            workspace = change.workspace
            if self._waits(batch, workspace):
                batch.put_off(workspace, entry)
            elif self._router and await self._goes_elsewhere(
                batch, entry, change, self._router, stays=stays, began=began
            ):
                return
            elif rejection := await self._render(batch, entry, change):
                batch.rejected.append((entry, rejection))
        except RedisUnavailable:
            raise
        except Exception as error:
            if not workspace and isinstance(error, OF_THE_MACHINE):
                raise
            batch.broke(workspace, entry, error)

    async def _add_asked(self, batch: Batch, asked: Asked, place: int | Fault) -> None:
        """Adds an entry whose message's partition was asked: `place`, or why that is not known."""
        workspace = asked.change.workspace
        held = next((one for one in (workspace, asked.group) if self._waits(batch, one)), None)
        if held is not None:
            batch.put_off(held, asked.entry)
        elif isinstance(place, Fault):
            batch.put_off(asked.group, asked.entry, place)
        elif place == asked.right and self._overtakes(batch, asked):
            batch.put_off(asked.group, asked.entry, BEHIND)
        else:
            await self._add(batch, asked.entry, asked.change, began=place)

    def _overtakes(self, batch: Batch, asked: Asked) -> bool:
        """Whether earlier changes of its message may wait on a route by an earlier width."""
        return any(self._waits(batch, f"{asked.change.workspace} {number}") for number in asked.earlier)

    def _waits(self, batch: Batch, workspace: str) -> bool:
        """Whether entries of a workspace, or of a route, are put off."""
        return workspace in batch.later or (workspace not in batch.trying and self._is_held(workspace))

    async def _goes_elsewhere(
        self,
        batch: Batch,
        entry: QueueEntry,
        change: Change,
        router: Router,
        *,
        stays: bool,
        began: int | None,
    ) -> bool:
        """Whether an entry does not belong here, or that is to be asked or waited for; it is in the batch then."""
        name, workspace = change.workspace, None
        if not stays and began is None and (known := batch.workspaces.get(name)) and router.takes_all(known):
            return False
        if not stays and router.needs_record(name, entry):
            workspace = await self._workspace(batch, name)
            if workspace is None:
                router.note_stranger(name)
            elif began is None and workspace.earlier_widths:
                if held := self._held_group(batch, router.groups(change, workspace)):
                    batch.put_off(held, entry)
                    return True
                if asked := router.asked(entry, change, workspace, self._now_ms()):
                    batch.asked.append(asked)
                    return True
        target = router.target(entry, change, workspace, stays=stays, began=began)
        if target is not None:
            route = f"{name} {target}"  # put off by itself, so that entries for other partitions go on
            if self._waits(batch, route):
                batch.put_off(route, entry)
            else:
                batch.forward(target, name, route, entry)
            return True
        return await self._waits_for_record(batch, entry, name)

    async def _waits_for_record(self, batch: Batch, entry: QueueEntry, name: str) -> bool:
        """Whether an entry is put off because its workspace has no record here, and may have one at its home."""
        if not self._homes or name in batch.unknown or await self._workspace(batch, name):
            return False
        if fault := await self._homes.why_wait(name):
            batch.put_off(name, entry, fault)
            return True
        batch.unknown.add(name)
        return False

    def _held_group(self, batch: Batch, groups: Sequence[str]) -> str | None:
        """The first of an entry's groups that is put off."""
        batch.groups.update(groups)
        return next((one for one in groups if self._waits(batch, one)), None)

    async def _workspace(self, batch: Batch, name: str) -> Workspace | None:
        """A workspace, read once for a batch."""
        if name not in batch.workspaces:
            batch.workspaces[name] = await self._workspaces.get(name)
        return batch.workspaces[name]

    async def _render(self, batch: Batch, entry: QueueEntry, change: Change) -> Rejection | None:
        """Renders an entry into the batch; or returns why it cannot be used."""
        name = change.workspace
        workspace = batch.workspaces.get(name) or await self._workspace(batch, name)
        if workspace is None:
            detail = f"there is no workspace {change.workspace!r}: make it with `dispatcher workspace add`, enqueue again"
            return Rejection("unknown_workspace", detail, change.workspace, change.event_id)
        try:
            rendered = fan_out(change, workspace, self._now_ms(), self._options)
        except InvalidInput as error:
            return Rejection("invalid", str(error), change.workspace, change.event_id)
        batch.unplaced.setdefault(workspace.id, []).append(
            Rendered(entry, change, workspace.dialect, rendered)
        )
        return None


def _read(entry: QueueEntry) -> Change | Rejection:
    """Returns the status change of an entry, or why it has none."""
    try:
        raw = entry.field(b"event")
    except KeyError:
        return Rejection(
            "no_event_field", "the entry has no field `event`: XADD dispatcher:events '*' event '<json>'"
        )
    try:
        return status_change(raw)
    except InvalidInput as error:
        return Rejection("invalid", str(error))
