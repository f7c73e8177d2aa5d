"""A batch of queue entries, sorted by what becomes of them: accepted, rejected, forwarded or put off."""

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dispatcher.fast_decode import Change
from dispatcher.rules.callback import Callback
from dispatcher.rules.workspace import Workspace
from dispatcher.store.arguments import Id, ToAccept
from dispatcher.store.queue import Between, Place, QueueEntry, place

OF_THE_MACHINE = (OSError, MemoryError, ImportError)
"""Errors that do not depend on the entry: no descriptors, no memory, a module that is being replaced."""


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
    is_soon_over: bool = False
    """It passes by itself in some seconds: the log need not say so."""
    seconds: float | None = None
    """How long to wait before the first try, if it passes sooner than most."""

    @classmethod
    def of(cls, error: Exception) -> "Fault":
        """Makes a fault from an exception."""
        return cls(f"{type(error).__name__}: {error}", isinstance(error, OF_THE_MACHINE), error)

    def __str__(self) -> str:
        return self.text


class Rendered(NamedTuple):
    """An entry and what it causes."""

    entry: QueueEntry
    change: Change
    dialect: str
    callbacks: Sequence[Callback]


@dataclass(frozen=True, slots=True)
class Asked:
    """An entry whose message may have begun in another partition than its own, `right`."""

    entry: QueueEntry
    change: Change
    workspace: Workspace
    right: int
    earlier: Sequence[int]
    """The partitions where it may have begun, the oldest first."""
    group: str
    """What it is put off by while they do not answer (Router.groups)."""


BEHIND = Fault("status changes from before its width grew wait to be forwarded", is_soon_over=True)


@dataclass(slots=True)
class Later:
    """Entries of one workspace that are put off."""

    ids: list[str] = field(default_factory=list)
    fault: Fault | None = None
    """What the one that was put off first broke on; None: it waits behind others, or its workspace keeps changing."""

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
    unknown: set[str] = field(default_factory=set)
    """Those of the names without a workspace that their homes were asked for, and have none for."""
    unplaced: dict[str, list[Rendered]] = field(default_factory=dict)
    """Rendered entries by workspace, until all are rendered and `parts` has them."""
    parts: list[ToAccept] = field(default_factory=lambda: [ToAccept()])
    """What is to be accepted, each in a call of its own. The entries of a workspace are one after the other.

    So accept does what each endpoint costs once a batch, not once a call, where a burst goes to many endpoints.
    """
    rendered: list[tuple[QueueEntry, str]] = field(default_factory=list)
    """Entries that cause callbacks, in the order of `parts`, each with its workspace."""
    skipped: list[tuple[QueueEntry, str]] = field(default_factory=list)
    """Entries that cause no callback, each with its workspace."""
    rejected: list[tuple[QueueEntry, Rejection]] = field(default_factory=list)
    forwarded: dict[int, list[tuple[QueueEntry, str]]] = field(default_factory=dict)
    """Entries that belong on the queue of another partition, by its number, each with its route."""
    later: dict[str, Later] = field(default_factory=dict)
    """Entries that are put off, by workspace (empty: unknown); those to be forwarded by their route, and those of which
    other partitions are to be asked by their group."""
    groups: set[str] = field(default_factory=set)
    """The groups that its entries may have to wait for."""
    asked: list[Asked] = field(default_factory=list)
    """Entries whose message may have begun in another partition, until these have been asked."""
    retired: list[tuple[QueueEntry, Sequence[Id]]] = field(default_factory=list)
    """Entries with an eventId that the archive is to be asked for, and all of theirs."""
    archived: Mapping[Id, str] = field(default_factory=dict)
    """What the archive has said about eventIds of these entries."""
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

    def broke(self, workspace: str, entry: QueueEntry, error: Exception) -> bool:
        """Puts off an entry that met an error, or rejects it if it has broken our code too often; returns whether it is put off."""
        fault = Fault.of(error)
        is_rejected = bool(self.trying.get(workspace)) and not fault.of_the_machine
        if is_rejected:
            self.rejected.append((entry, Rejection("internal_error", fault.text, workspace)))
        else:
            self.put_off(workspace, entry, fault)
        return not is_rejected


def name_of(entry: QueueEntry) -> str:
    """What a partition remembers an entry by that is forwarded to it (lua/forward.lua).

    The checksum tells it from one that had its id before a fail-over here.
    """
    return f"{entry.id} {zlib.crc32(entry.field(b'event')):08x}"
