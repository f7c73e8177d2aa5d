"""Says on which partition's queue a status change belongs: a producer may use any queue, or not know the workspace's width."""

import time
from collections import OrderedDict
from collections.abc import Callable

from dispatcher.fast_decode import Change
from dispatcher.model import LONGEST_TTL_SECONDS
from dispatcher.rules.partitions import MOST, MOST_WIDTH, Partitioning
from dispatcher.rules.workspace import Workspace
from dispatcher.store.queue import QueueEntry
from dispatcher.worker.batch import Asked

STRANGER_SECONDS = 10.0
"""How long a workspace without a record here is not looked up again. A workspace's parts have its record before producers
hear of a new width, by more than this."""
MOST_STRANGERS = 20_000
"""Most such workspaces that are remembered."""


class Router:
    """The routes of one partition, `here`. `clock` returns seconds.

    The home of a workspace decides where its entries belong, as it alone has the workspace's own record; its other
    partitions, the parts, have copies, which may be late. So

    - home takes an entry, or forwards it to the part that its width says;
    - a part takes what came from home, whatever its own copy says, and what producers put there rightly by its copy; without
      a copy it waits for one as long as home has the workspace (worker/homes.py);
    - anyone else, and a part in any other case, forwards to home.

    An entry is forwarded at most twice, to home and to a part, because what came from home is not forwarded again.

    A message that began before its workspace's width grew stays where it began (worker/earlier.py): home forwards its changes
    there, and a part that would take one from a producer leaves that to home. `remembered_ms` is how long the ledger
    remembers what has ended.

    If the installation has grown, a message that the previous Redis knows stays there, and what belongs to it is forwarded
    there by whoever reads it first, before all that; from there goes what it does not know. That makes one hop more at most.
    """

    def __init__(
        self,
        partitioning: Partitioning,
        here: int,
        clock: Callable[[], float] = time.monotonic,
        remembered_ms: int = 0,
    ) -> None:
        self.partitioning = partitioning
        self.here = here
        self._clock = clock
        self._needed_ms = 2 * LONGEST_TTL_SECONDS * 1000 + remembered_ms
        """How long after a width grew messages of before may be known: a last change, its callback's time, and the memory of it."""
        self._strangers: OrderedDict[str, float] = OrderedDict()
        """Workspaces without a record here, and until when that is believed; the oldest first."""

    @property
    def is_previous(self) -> bool:
        """Whether `here` is the previous Redis."""
        return self.here == self.partitioning.previous

    def may_stay(self, entry: QueueEntry) -> bool:
        """Whether the previous Redis is to be asked for an entry's message: once, by its first reader, and there."""
        return self.partitioning.has_previous and (self.is_previous or came_from(entry) is None)

    def needs_record(self, workspace: str, entry: QueueEntry) -> bool:
        """Whether only the workspace's record says where an entry belongs; of a stranger none is read."""
        if self.is_previous:
            return False
        home = self.partitioning.home(workspace)
        if home == self.here:
            return True
        if came_from(entry) == home:
            return False
        may_be_part = (self.here - home) % self.partitioning.partitions < MOST_WIDTH
        return may_be_part and self._strangers.get(workspace, 0.0) <= self._clock()

    def takes_all(self, workspace: Workspace) -> bool:
        """Whether all that its home has of a workspace belongs here, so that no entry of it need be looked at; it was read here."""
        if workspace.width > 1 or workspace.earlier_widths or self.is_previous:
            return False
        return self.partitioning.home(workspace.id) == self.here

    def groups(self, change: Change, workspace: Workspace) -> list[str]:
        """What a status change of a workspace whose width has grown may have to wait behind, the latest last.

        Messages that are asked for in the same partitions are one group: it is put off alone, so that what does not depend
        on these goes on, above all what others wait for to be handed on. A group is named by the partitions that its
        messages had by all widths; the groups before the last are those of before the width grew again.
        """
        widths = [*(one.width for one in workspace.earlier_widths), workspace.width]
        path = [self.partitioning.of(workspace.id, change.message.uuid, width) for width in widths]
        return [f"{workspace.id} ?{'.'.join(map(str, path[:length]))}" for length in range(2, len(path) + 1)]

    def asked(self, entry: QueueEntry, change: Change, workspace: Workspace, now_ms: int) -> Asked | None:
        """What to ask of an entry if its message may have begun elsewhere, before its workspace's width grew; else None.

        `workspace` is its record, which was needed; `now_ms` is Redis's clock.
        """
        if not workspace.earlier_widths:
            return None
        its, name, uuid = self.partitioning, change.workspace, change.message.uuid
        widths = [one.width for one in workspace.earlier_widths if now_ms < one.until_ms + self._needed_ms]
        right = its.of(name, uuid, workspace.width)
        if not widths or self.here not in (its.home(name), right):
            return None
        earlier = [
            one for one in dict.fromkeys(its.of(name, uuid, width) for width in widths) if one != right
        ]
        if not earlier:
            return None
        return Asked(entry, change, workspace, right, earlier, self.groups(change, workspace)[-1])

    def target(
        self,
        entry: QueueEntry,
        change: Change,
        workspace: Workspace | None,
        *,
        stays: bool = False,
        began: int | None = None,
    ) -> int | None:
        """The partition to forward an entry to; None: it belongs here.

        `workspace` is its record, if that was needed; `stays`: the previous Redis knows its message; `began`: where it is,
        if that was asked.
        """
        if stays:
            return None if self.is_previous else self.partitioning.previous
        home = self.partitioning.home(change.workspace)
        if home != self.here and came_from(entry) == home:
            return None
        if workspace is None:
            return None if home == self.here else home
        right = (
            self.partitioning.of(change.workspace, change.message.uuid, workspace.width)
            if began is None
            else began
        )
        if right == self.here:
            return None
        return right if home == self.here else home

    def note_stranger(self, workspace: str) -> None:
        """Remembers that a workspace has no record here."""
        if self.partitioning.home(workspace) == self.here:
            return
        self._strangers[workspace] = self._clock() + STRANGER_SECONDS
        self._strangers.move_to_end(workspace)
        if len(self._strangers) > MOST_STRANGERS:
            self._strangers.popitem(last=False)


def came_from(entry: QueueEntry) -> int | None:
    """The partition that forwarded an entry here (lua/forward.lua); None: a producer enqueued it."""
    if b"from" not in entry.fields[::2]:
        return None
    number = entry.field(b"from").partition(b" ")[0]
    return int(number) if number.isdigit() and len(number) <= len(str(MOST)) else None
