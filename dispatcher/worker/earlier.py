"""Where messages are that began before their workspace's width grew: a message stays where it began.

So a message's status changes keep their order, and a repeated eventId is known where it was first accepted.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from dispatcher.rules.partitions import Partitioning
from dispatcher.rules.workspace import Workspace
from dispatcher.store.known_messages import KnownMessages
from dispatcher.worker.batch import Asked, Fault, name_of
from dispatcher.worker.probe import EXPECTED, Probe

SETTLE_MS = 5_000
"""How long after its width grew a workspace's entries wait: by then all that was being forwarded by the old width has come."""
SOON_MS = 60_000
"""After this the log says that they wait, and why."""
ANSWER_SECONDS = 1.0
"""How long a partition may take to answer. Everything else on the queue waits meanwhile."""
MOST_REMEMBERED = 10_000
"""Most growths of which it is remembered that a partition has settled, or how far it has."""

_Growth = tuple[int, str, int]
"""A partition, a workspace, and when its width grew last."""

log = structlog.get_logger()


class EarlierPartitions:
    """Asks on behalf of the partition `here`. `at` gives what another one knows; `now_ms` is Redis's clock.

    A partition's answer counts once it is *settled*: it has the workspace's new width, and nothing is on its queue from
    before that belongs elsewhere now. From then on no further message of an earlier width begins there. Nobody waits for
    ever: a message's own partition waits for home, home for other parts, and these hand on what belongs elsewhere unasked.
    """

    def __init__(
        self,
        partitioning: Partitioning,
        here: int,
        at: Callable[[int], KnownMessages],
        now_ms: Callable[[], int],
    ) -> None:
        self._partitioning = partitioning
        self._here = here
        self._at = at
        self._now_ms = now_ms
        self._probes: dict[int, Probe] = {}
        self._settled: set[_Growth] = set()
        self._looked: dict[_Growth, str] = {}
        """Up to where the queue of a partition that is not settled has nothing of the workspace."""

    async def places(self, asked: Sequence[Asked]) -> list[int | Fault]:
        """The partition of each entry, or why it is not known now."""
        by_partition: dict[int, list[Asked]] = {}
        for one in asked:
            for number in one.earlier:
                by_partition.setdefault(number, []).append(one)
        answers = await asyncio.gather(*(self._ask(number, some) for number, some in by_partition.items()))
        told = dict(zip(by_partition, answers, strict=True))
        return [_place(one, {number: told[number][one.entry.id] for number in one.earlier}) for one in asked]

    async def _ask(self, number: int, asked: Sequence[Asked]) -> dict[str, bool | Fault]:
        """Whether a partition knows the messages of entries, by entry; or why that is not known."""
        probe = self._probe(number)
        fault = Fault(
            f"partition {number} does not answer, and messages of the workspace may have begun there"
        )
        if not probe.is_away:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await self._told(number, asked)
            except EXPECTED:
                probe.failed()
            except Exception as error:  # whatever it is, the entries are not at fault
                fault = Fault(f"partition {number}: {type(error).__name__}: {error}", error=error)
        return {one.entry.id: fault for one in asked}

    async def _told(self, number: int, asked: Sequence[Asked]) -> dict[str, bool | Fault]:
        workspaces = {one.workspace.id: one.workspace for one in asked}
        waits = {name: await self._waits(number, workspace) for name, workspace in workspaces.items()}
        known = await self._at(number).known([one.change for one in asked])
        # what was forwarded there may not have been accepted yet, nor been taken off the queue here
        there = await self._at(number).are_forwarded([f"{self._here} {name_of(one.entry)}" for one in asked])
        return {
            one.entry.id: waits[one.workspace.id] or is_known or was_forwarded
            for one, is_known, was_forwarded in zip(asked, known, there, strict=True)
        }

    async def _waits(self, number: int, workspace: Workspace) -> Fault | None:
        """Why a partition is not settled; None: it is."""
        grown_ms = workspace.earlier_widths[-1].until_ms
        growth = number, workspace.id, grown_ms
        if growth in self._settled:
            return None
        why = "its width has just grown"
        if self._now_ms() >= grown_ms + SETTLE_MS:
            why = await self._unsettled(growth, workspace) if number != self._here else ""
        if why:
            return Fault(why, is_soon_over=self._now_ms() < grown_ms + SOON_MS)
        self._note_settled(growth)
        return None

    async def _unsettled(self, growth: _Growth, workspace: Workspace) -> str:
        """Why another partition is not settled; empty: it is."""
        number, name, grown_ms = growth
        at = self._at(number)
        if await at.width(name) < workspace.width:
            repeat = f"repeat `dispatcher workspace update {name} --width {workspace.width}`"
            return f"partition {number} has not got the new width of the workspace: {repeat}"

        def belongs_elsewhere(uuid: str) -> bool:
            return self._partitioning.of(name, uuid, workspace.width) != number

        start = self._looked.get(growth, "-")
        further = await at.look_for(name, belongs_elsewhere, start, grown_ms + SETTLE_MS)
        if further is None:
            return ""
        self._looked[growth] = further
        return (
            f"partition {number} has status changes of the workspace from before its width grew on its queue"
        )

    def _note_settled(self, growth: _Growth) -> None:
        if len(self._settled) + len(self._looked) >= MOST_REMEMBERED:
            self._settled.clear()
            self._looked.clear()
        self._looked.pop(growth, None)
        self._settled.add(growth)

    def _probe(self, number: int) -> Probe:
        if number not in self._probes:
            self._probes[number] = Probe(self._at(number).ping, _log)
        return self._probes[number]


def _place(one: Asked, told: dict[int, bool | Fault]) -> int | Fault:
    """Where an entry belongs by what partitions told: to the first that knows its message."""
    knows = [number for number, answer in told.items() if answer is True]
    faults = [answer for answer in told.values() if isinstance(answer, Fault)]
    return knows[0] if knows else faults[0] if faults else one.right


def _log(error: Exception) -> None:
    log.error("intake.not_asked", problem=str(error) or type(error).__name__, exc_info=error)
