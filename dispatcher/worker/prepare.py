"""Prepares queue entries for acceptance: they are validated and rendered, rejected with a reason, or put off."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from dispatcher.errors import InvalidInput, RedisUnavailable
from dispatcher.model import StatusChange
from dispatcher.rules.render import RenderOptions, fan_out
from dispatcher.rules.workspace import Workspace
from dispatcher.store.arguments import ToAccept
from dispatcher.store.previous import Previous
from dispatcher.store.queue import Between, Place, QueueEntry, place
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.worker.recorder import Recorder
from dispatcher.worker.router import Router

PREPARED_AT_ONCE = 16
"""Entries that are rendered before the loop gets to other work: the batch before must get onto the wire."""

OF_THE_MACHINE = (OSError, MemoryError, ImportError)
"""Errors that do not depend on the entry: no descriptors, no memory, a module that is being replaced."""

NOBODY: Mapping[str, bool] = {}


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an entry cannot be used; `detail` says what to do."""

    reason: str
    detail: str
    workspace: str = ""
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """An error that an entry met and that is not its fault."""

    text: str
    of_the_machine: bool = True
    """False: the fault is in our code, which may break on this entry alone."""
    error: Exception | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, error: Exception) -> "Fault":
        """Makes a fault from an exception."""
        return cls(f"{type(error).__name__}: {error}", isinstance(error, OF_THE_MACHINE), error)

    def __str__(self) -> str:
        return self.text


Read = StatusChange | Rejection | Exception
COPY_LATE = Fault("the workspace's record is at its home, and has not come to this partition yet")


@dataclass(slots=True)
class Later:
    """Entries of one workspace that are put off."""

    ids: list[str] = field(default_factory=list)
    fault: Fault | None = None
    """What the first one broke on; None: it waits behind others, or its workspace keeps changing."""

    @property
    def after(self) -> Place:
        """The place just before the first entry."""
        ms, number = min(map(place, self.ids))
        return (ms, number - 1) if number else (ms - 1, 2**64 - 1)


@dataclass(frozen=True, slots=True)
class Batch:
    """Prepared entries, sorted by result."""

    workspaces: dict[str, Workspace | None] = field(default_factory=dict)
    """The workspaces that entries name; None for a name without a workspace."""
    parts: list[ToAccept] = field(default_factory=lambda: [ToAccept()])
    """What is to be accepted, in order; each fits into one call."""
    rendered: list[tuple[QueueEntry, str]] = field(default_factory=list)
    """Entries that cause callbacks, in the order of `parts`, each with its workspace."""
    skipped: list[tuple[QueueEntry, str]] = field(default_factory=list)
    """Entries that cause no callback, each with its workspace."""
    rejected: list[tuple[QueueEntry, Rejection]] = field(default_factory=list)
    forwarded: dict[int, list[tuple[QueueEntry, str]]] = field(default_factory=dict)
    """Entries that belong on the queue of another partition, by its number, each with its route."""
    later: dict[str, Later] = field(default_factory=dict)
    """Entries that are put off, by workspace (empty: unknown); those to be forwarded by their route."""
    trying: Mapping[str, bool] = field(default_factory=dict)
    """Workspaces whose entries are tried again, and whether entries that break our code are rejected this time."""
    between: Between | None = None
    """Where no other entry may be on the queue when these are accepted; None: anywhere."""

    @property
    def routes(self) -> set[str]:
        """The workspaces of entries that are to be forwarded, each with where to."""
        return {route for entries in self.forwarded.values() for _, route in entries}

    @property
    def revisions(self) -> dict[str, str]:
        """The revisions that entries were rendered with, by workspace."""
        return {one.id: one.revision for one in self.workspaces.values() if one}

    @property
    def names_forwarded(self) -> set[str]:
        """The workspaces of entries to be forwarded."""
        return {route.rpartition(" ")[0] for entries in self.forwarded.values() for _, route in entries}

    def part_for(self, callbacks: int) -> ToAccept:
        """The part that an entry with so many callbacks belongs to: the last one, or a new one if it is full."""
        if not self.parts[-1].has_room(callbacks):
            self.parts.append(ToAccept())
        return self.parts[-1]

    def not_forwarded(self, changed: Collection[str]) -> list[tuple[QueueEntry, str]]:
        """Takes out the entries to be forwarded whose workspace is one of these; returns them, each with its workspace."""
        found: list[tuple[QueueEntry, str]] = []
        for target, entries in self.forwarded.items():
            named = [(entry, route, route.rpartition(" ")[0]) for entry, route in entries]
            found += [(entry, name) for entry, _, name in named if name in changed]
            self.forwarded[target] = [(entry, route) for entry, route, name in named if name not in changed]
        return found

    def put_off(self, workspace: str, entry: QueueEntry, fault: Fault | None = None) -> None:
        """Puts off an entry that cannot be taken now."""
        self.later.setdefault(workspace, Later(fault=fault)).ids.append(entry.id)

    def forward(self, target: int, workspace: str, route: str, entry: QueueEntry) -> None:
        """Adds an entry that belongs to another partition; if its workspace was read for that, it must not have changed."""
        self.part_for(0).workspaces.add(workspace)
        self.forwarded.setdefault(target, []).append((entry, route))

    def broke(self, workspace: str, entry: QueueEntry, error: Exception) -> None:
        """Puts off an entry that met an error, or rejects it if it has broken our code too often."""
        fault = Fault.of(error)
        if self.trying.get(workspace) and not fault.of_the_machine:
            self.rejected.append((entry, Rejection("internal_error", fault.text, workspace)))
        else:
            self.put_off(workspace, entry, fault)


class Preparer:
    """Prepares batches. `now_ms` is Redis's clock; `is_held` says whether entries of a workspace are put off.

    `router` says which entries belong to other partitions; None: there are none. `previous` is asked for the messages that stay
    with it; None: the installation has not grown.
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
    ) -> None:
        self._workspaces = workspaces
        self._now_ms = now_ms
        self._options = options
        self._recorder = recorder
        self._is_held = is_held
        self._router = router
        self._previous = previous

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
        return batch

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
        changes = {id_: change for id_, change in read.items() if isinstance(change, StatusChange)}
        if not self._previous:
            return set()
        known = await self._previous.known([*changes.values()])
        return {id_ for id_, stays in zip(changes, known, strict=True) if stays}

    async def _add(self, batch: Batch, entry: QueueEntry, read: Read | None, *, stays: bool) -> None:
        """Adds an entry to the batch, by its result; `read`: what is in it; `stays`: its message is with the previous Redis."""
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
            elif self._router and await self._goes_elsewhere(batch, entry, change, self._router, stays=stays):
                return
            elif rejection := await self._render(batch, entry, change):
                batch.rejected.append((entry, rejection))
        except RedisUnavailable:
            raise
        except Exception as error:
            if not workspace and isinstance(error, OF_THE_MACHINE):
                raise
            batch.broke(workspace, entry, error)

    def _waits(self, batch: Batch, workspace: str) -> bool:
        """Whether entries of a workspace, or of a route, are put off."""
        return workspace in batch.later or (workspace not in batch.trying and self._is_held(workspace))

    async def _goes_elsewhere(
        self, batch: Batch, entry: QueueEntry, change: StatusChange, router: Router, *, stays: bool = False
    ) -> bool:
        """Whether an entry does not belong here; it is in the batch then: to be forwarded, or put off until that is known."""
        name, workspace = change.workspace, None
        if not stays and router.needs_record(name, entry):
            workspace = await self._workspace(batch, name)
            if workspace is None:
                router.note_stranger(name)
        target = router.target(entry, change, workspace, stays=stays)
        if target is not None:
            route = f"{name} {target}"  # put off by itself, so that entries for other partitions go on
            if self._waits(batch, route):
                batch.put_off(route, entry)
            else:
                batch.forward(target, name, route, entry)
            return True
        if (
            not stays
            and router.copy_is_late(name, entry, self._now_ms())
            and not await self._workspace(batch, name)
        ):
            batch.put_off(name, entry, COPY_LATE)
            return True
        return False

    async def _workspace(self, batch: Batch, name: str) -> Workspace | None:
        """A workspace, read once for a batch."""
        if name not in batch.workspaces:
            batch.workspaces[name] = await self._workspaces.get(name)
        return batch.workspaces[name]

    async def _render(self, batch: Batch, entry: QueueEntry, change: StatusChange) -> Rejection | None:
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
        part = batch.part_for(len(rendered))
        part.add_entry(entry.id, workspace.id, rendered)
        (batch.rendered if rendered else batch.skipped).append((entry, workspace.id))
        if self._recorder:
            self._recorder.add(part, change, workspace.dialect, part.entries if rendered else 0)
        return None


def _read(entry: QueueEntry) -> StatusChange | Rejection:
    """Returns the status change of an entry, or why it has none."""
    fields = entry.fields
    raw = next(
        (value for name, value in zip(fields[::2], fields[1::2], strict=True) if name == b"event"), None
    )
    if raw is None:
        return Rejection(
            "no_event_field", "the entry has no field `event`: XADD dispatcher:events '*' event '<json>'"
        )
    try:
        return StatusChange.from_json(raw)
    except InvalidInput as error:
        return Rejection("invalid", str(error))
