"""Passes a batch to the ledger; entries that it does not accept are rejected, rendered again or put off."""

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import structlog
from msgspec.structs import replace

from dispatcher.errors import NotLeader, Overtakes, RedisFull, RedisUnavailable
from dispatcher.store.arguments import MOST_OF_ENTRY, OF_EACH_RETIRED, Id, ToAccept
from dispatcher.store.command_parts import in_parts
from dispatcher.store.ledger import Ledger
from dispatcher.store.queue import Place, QueueEntry, place
from dispatcher.store.replies import LEFT_ON_THE_QUEUE, Accepted
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.worker.batch import Batch, Fault
from dispatcher.worker.forwarder import Forwarder
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.prepare import Preparer
from dispatcher.worker.recorder import Recorder
from dispatcher.worker.retired import ASKING, ROUTE, RetiredCallbacks
from dispatcher.worker.turns import Turns

RENDERED_AGAIN = 2
"""How often entries are rendered again at once, if their workspace changes in between, before they are put off."""

BROKEN = Fault("a key of its endpoint in Redis is not of the type it should be")
BROKEN_WORD, RETIRED_WORD = "broken", "retired"

log = structlog.get_logger()


class Acceptor:
    """Accepts batches. `token` is the intake lease's; `turns` serves what accept leases to this worker at once.

    `forwarder` forwards entries of other partitions; None: there are none. `retired` knows what the archive says; None: there is
    no archive.
    """

    def __init__(
        self,
        ledger: Ledger,
        token: str,
        preparer: Preparer,
        workspaces: WorkspaceCache,
        turns: Turns,
        recorder: Recorder | None,
        metrics: Metrics,
        forwarder: Forwarder | None = None,
        retired: RetiredCallbacks | None = None,
    ) -> None:
        self._ledger = ledger
        self._token = token
        self._preparer = preparer
        self._workspaces = workspaces
        self._turns = turns
        self._recorder = recorder
        self._metrics = metrics
        self._forwarder = forwarder
        self._retired = retired

    async def accept(self, batch: Batch, again: int = RENDERED_AGAIN) -> None:
        """Has a batch accepted, rejected or forwarded; entries that stay on the queue are in `batch.later` afterwards.

        Entries whose workspace changed after they were rendered are rendered again, up to `again` times; other entries
        are not. If the whole batch fails with an unexpected error, each entry is accepted alone, to find the one that
        causes it. Raises NotLeader, RedisFull, RedisUnavailable, or Overtakes if an entry is on the queue where `batch.between` allows
        none.
        """
        try:
            changed = await self._take_here(batch)
        except RedisFull:
            await self._look_at_revisions(batch)  # the refused call has not said what it found
            await self._forward(batch)  # what leaves makes room
            raise
        await self._forward(batch)
        if changed and again:
            entries = [entry for entry, _ in changed]
            prepared = await self._preparer.prepare(entries, again=batch)
            await self.accept(prepared, again - 1)
        else:
            for entry, workspace in changed:
                batch.put_off(workspace, entry)
        if batch.retired and self._retired:
            await self._accept_retired(batch, self._retired, again)

    def forget_answers(self) -> None:
        """Forgets what the archive has said: another worker leads now."""
        if self._retired:
            self._retired.clear()

    async def _accept_retired(self, batch: Batch, retired: RetiredCallbacks, again: int) -> None:
        """Has entries accepted about whose eventIds the archive has said what it knows; puts the others off."""
        known: list[tuple[QueueEntry, Mapping[Id, str]]] = []
        for entry, ids in batch.retired:
            said = retired.said(ids)
            if isinstance(said, Fault) or not again:
                batch.put_off(ROUTE, entry, said if isinstance(said, Fault) else ASKING)
            else:
                known.append((entry, said))
        for some in in_parts(known, lambda one: MOST_OF_ENTRY + OF_EACH_RETIRED * len(one[1])):
            prepared = await self._preparer.prepare([entry for entry, _ in some], again=batch)
            archived = {id_: digest for _, said in some for id_, digest in said.items()}
            await self.accept(dataclasses.replace(prepared, archived=archived), again - 1)
            retired.used(archived)

    async def _take_here(self, batch: Batch) -> list[tuple[QueueEntry, str]]:
        """Has the ledger accept or reject what belongs to this partition, and look whether anything else may be forwarded.

        Returns the entries whose workspace changed after they were rendered, with that workspace.
        """
        changed: list[tuple[QueueEntry, str]] = []
        try:
            if batch.rendered or batch.skipped or batch.forwarded:
                changed = await self._accept_rendered(batch)
        except (NotLeader, Overtakes, RedisUnavailable):
            raise
        except Exception as error:
            await self._accept_one_by_one(batch, error)
        if batch.rejected:
            await self._reject(batch)
        return changed

    async def _forward(self, batch: Batch) -> None:
        """Forwards what belongs to other partitions."""
        if batch.forwarded and self._forwarder:
            await self._forwarder.forward(batch)

    async def _look_at_revisions(self, batch: Batch) -> None:
        """Leaves entries here that may not be forwarded; accept, with nothing to take in, says so of a full Redis too."""
        if not (batch.forwarded and self._forwarder):
            return
        asked = ToAccept()
        asked.workspaces |= batch.names_forwarded
        revisions = {name: one for name, one in batch.revisions.items() if name in asked.workspaces}
        found = await self._ledger.accept(self._token, revisions, (), asked, between=batch.between)
        for workspace in found.changed:
            self._workspaces.forget(workspace)
        batch.not_forwarded(found.changed)

    async def _accept_one_by_one(self, batch: Batch, error: Exception) -> None:
        """Accepts each entry alone, after they failed together; one that fails alone is put off or rejected."""
        rendered = sorted([*batch.rendered, *batch.skipped], key=_place_of)
        if len(rendered) == 1:
            [(entry, workspace)] = rendered
            batch.broke(workspace, entry, error)
            return
        for entry, _ in rendered:
            await self.accept(await self._preparer.prepare([entry], again=batch))

    async def _accept_rendered(self, batch: Batch) -> list[tuple[QueueEntry, str]]:
        """Returns the entries whose workspace changed after they were rendered, with that workspace."""
        changed: list[tuple[QueueEntry, str]] = []
        accepted = await self._accept_callbacks(batch)
        for entry, workspace, word in _words(batch, accepted):
            if word == "changed":
                changed.append((entry, workspace))
            elif word == BROKEN_WORD:
                batch.put_off(workspace, entry, BROKEN)
        if RETIRED_WORD in accepted.words:
            ids = (ids for part in batch.parts for ids in part.ids())
            named = zip(batch.rendered, ids, accepted.words, strict=True)
            batch.retired.extend((entry, of) for (entry, _), of, word in named if word == RETIRED_WORD)
        for workspace in accepted.changed:
            self._workspaces.forget(workspace)
        changed += batch.not_forwarded(accepted.changed)
        return sorted(changed, key=_place_of)

    async def _accept_callbacks(self, batch: Batch) -> Accepted:
        """Calls the ledger for each part.

        An entry that was left because of a damaged key is not overtaken by a later one of its message, should the key
        be mended between two parts.
        """
        accepted = await self._accept_part(batch, batch.parts[0])
        left = _broken(batch.parts[0], accepted.words) if len(batch.parts) > 1 else set()
        for part in batch.parts[1:]:
            waits = {index for index, message in enumerate(part.messages()) if message in left}
            further = await self._accept_part(batch, part.without(waits) if waits else part)
            words = list(further.words)
            for index in sorted(waits):
                words.insert(index, BROKEN_WORD)
            left |= _broken(part, words)
            changed = [*dict.fromkeys([*accepted.changed, *further.changed])]
            accepted = replace(further, words=[*accepted.words, *words], changed=changed)
        return accepted

    async def _accept_part(self, batch: Batch, part: ToAccept) -> Accepted:
        """Calls the ledger, with slots reserved for the callbacks that it leases to this worker at once."""
        revisions = {name: revision for name, revision in batch.revisions.items() if name in part.workspaces}
        room, claims = self._turns.reserve(part.count, revisions), []
        try:
            said = _said(batch.archived, part)
            accepted = await self._ledger.accept(
                self._token, revisions, part.skipped, part, room, batch.between, said
            )
            claims = accepted.claims
        finally:  # deferred, so that the next batch, if there is one, goes to Redis first
            asyncio.get_running_loop().call_soon(
                self._turns.serve_claims, claims, room.claims, self._ledger.keys.partition
            )
        self._count(part.skipped, accepted)
        self._turns.hint(accepted.hints)
        return accepted

    def _count(self, skipped: Sequence[tuple[str, str]], accepted: Accepted) -> None:
        self._metrics.taken.update(word for word in accepted.words if word not in LEFT_ON_THE_QUEUE)
        self._metrics.taken["no_callback"] += sum(w not in accepted.changed for _, w in skipped)
        if self._recorder:
            self._recorder.count(accepted.recorded, accepted.problem)

    async def _reject(self, batch: Batch) -> None:
        """Records entries in `rejected`; puts off those that could not be recorded."""
        left = await self._ledger.reject(
            self._token, [(e.id, r.reason, r.detail, r.workspace, r.event_id) for e, r in batch.rejected]
        )
        for entry, r in batch.rejected:
            if entry.id in left:
                batch.put_off(r.workspace, entry, BROKEN)
                continue
            self._metrics.rejected[r.reason] += 1
            log.warning(
                "event.rejected",
                entry=entry.id,
                reason=r.reason,
                workspace=r.workspace,
                event_id=r.event_id,
            )


def _said(archived: Mapping[Id, str], part: ToAccept) -> Mapping[Id, str]:
    """What the archive has said about the callbacks of a part."""
    if not archived:
        return archived
    return {id_: archived[id_] for ids in part.ids() for id_ in ids if id_ in archived}


def _broken(callbacks: ToAccept, words: Sequence[str]) -> set[tuple[str, str]]:
    """The messages of the entries that a damaged key left on the queue, each with its workspace."""
    told = zip(callbacks.messages(), words, strict=True)
    return {message for message, word in told if word == BROKEN_WORD}


def _words(batch: Batch, accepted: Accepted) -> Iterator[tuple[QueueEntry, str, str]]:
    """Each entry with its workspace and the word that accept returned for it."""
    for (entry, workspace), word in zip(batch.rendered, accepted.words, strict=True):
        yield entry, workspace, word
    for entry, workspace in batch.skipped:
        yield entry, workspace, "changed" if workspace in accepted.changed else "skipped"


def _place_of(one: tuple[QueueEntry, str]) -> Place:
    """The place on the queue of an entry, which is given with its workspace."""
    return place(one[0].id)
