"""The endpoints that this worker serves: those that have a turn now, and those that wait for one."""

import asyncio
import time
from collections.abc import Iterable, Sequence

from dispatcher.store.arguments import Room
from dispatcher.store.replies import Claim, Hint
from dispatcher.worker.admission import Admission
from dispatcher.worker.hints import Hints
from dispatcher.worker.load import Load
from dispatcher.worker.task_set import TaskSet
from dispatcher.worker.turn import Turn, TurnParts

CROWD = 64
"""While this many endpoints wait for a turn, new ones are left to other workers."""
OF_ONE = 16
"""Most callbacks of a workspace that accept leases to this worker at once, and most endpoints of it that accept hints.

Both limits hold while several workspaces want slots.
"""
RATION = 32
"""Callbacks that may start for each batch that intake accepts while it is behind: one for 16 entries."""
ACCEPTS_SECONDS = 2.0
"""An intake that has accepted nothing for this long is not waited for: its server may be silent."""


class Turns:
    """Runs turns, at most one for each endpoint. Endpoints wait in `Admission` until there is room for their turn.

    Endpoints that this worker has no time for go to `hints`, for other workers. `parts` are those of each partition.
    """

    def __init__(self, parts: Sequence[TurnParts], hints: Hints, load: Load) -> None:
        self.workers = 1
        """How many workers are alive, this one included; whoever reads the heartbeats sets it."""
        self._parts = parts
        self._hints = hints
        self._load = load
        self._slots = parts[0].slots
        self._slots.on_free = self._admit_soon
        self._admission = Admission(self._slots)
        self._admits_soon = False
        """Whether the loop is about to call `_admit`."""
        self._turns: dict[tuple[str, int], Turn] = {}
        """By endpoint and partition."""
        self._behind: dict[int, float] = {}
        """Partitions whose intake is behind, and when each last accepted a batch, in monotonic seconds."""
        self._tasks = TaskSet()
        self._closed = False

    def __len__(self) -> int:
        """Number of endpoints that have a turn."""
        return len(self._turns)

    @property
    def are_crowded(self) -> bool:
        """Whether many endpoints wait for a turn."""
        return len(self._admission) >= CROWD

    def hint(self, hints: Iterable[Hint]) -> None:
        """Has endpoints served soon: here, or by another worker if this one has no time."""
        for hint in hints:
            if self._closed or not (self.workers < 2 or self._has_time(hint)):
                self._hints.add(hint)
            else:
                self._serve_soon(hint)

    def _has_time(self, hint: Hint) -> bool:
        is_free = self._slots.free(hint.endpoint, hint.workspace) > 0
        return is_free and not self._load.is_high and not self.are_crowded

    def serve(self, hints: Iterable[Hint]) -> None:
        """Serves endpoints here, however busy this worker is: they were hinted to it, or could not be published.

        While this worker stops, they go to `hints`.
        """
        for hint in hints:
            if self._closed:
                self._hints.add(hint)
            else:
                self._serve_soon(hint)

    def _serve_soon(self, hint: Hint) -> None:
        if turn := self._turns.get((hint.endpoint, hint.partition)):
            turn.nudge()
        else:
            self._admission.add(hint)
            self._admit()

    def reserve(self, count: int, workspaces: Iterable[str]) -> Room:
        """Reserves slots for callbacks that accept may lease to this worker; returns how many, and of whom."""
        busy = self.workers > 1 and self._load.is_high
        claims = 0 if busy else self._slots.reserve(count)
        if not self._slots.are_shared():
            return Room(claims)
        return Room(claims, {one: min(OF_ONE, self._slots.free("", one)) for one in workspaces}, OF_ONE)

    def serve_claims(self, claims: Sequence[tuple[str, Claim]], reserved: int, partition: int = 0) -> None:
        """Serves callbacks that accept leased to this worker, even while it stops; `reserved` slots were taken."""
        self._slots.release(reserved, sum(len(claim.callbacks) for _, claim in claims))
        for endpoint, claim in claims:
            turn = self._turns.get((endpoint, partition))
            self._slots.hold(endpoint, turn.workspace if turn else claim.workspace, len(claim.callbacks))
            if turn:
                turn.take(claim)
            else:
                self._begin(Turn(Hint(endpoint, claim.workspace, partition), self._parts[partition], claim))

    def set_intake_behind(self, behind: bool, partition: int = 0) -> None:
        """Notes whether a partition's intake is behind: while one is, at most RATION callbacks start for each batch accepted."""
        now = time.monotonic()
        self._behind.pop(partition, None)
        if behind:
            self._behind[partition] = now
        is_behind = any(now - at < ACCEPTS_SECONDS for at in self._behind.values())
        self._slots.ration(RATION if is_behind else None)
        self._admit()

    def _admit_soon(self) -> None:
        """Slots became free: schedules one `_admit` for all slots that become free now."""
        if len(self._admission) and not self._admits_soon:
            self._admits_soon = True
            asyncio.get_running_loop().call_soon(self._admit)

    def _admit(self) -> None:
        """Begins turns for waiting endpoints, as far as there is room."""
        self._admits_soon = False
        while admitted := self._admission.next():
            hint, quota = admitted
            if turn := self._turns.get((hint.endpoint, hint.partition)):
                self._admission.begun(quota)
                turn.nudge()
            else:
                self._begin(Turn(hint, self._parts[hint.partition]), quota)

    def _begin(self, turn: Turn, quota: str | None = None) -> None:
        """Begins a turn; its first claim counts under the name `quota`, or None if it was created with a claim."""
        self._turns[turn.endpoint, turn.partition] = turn
        self._tasks.start(self._run(turn, quota))

    async def _run(self, turn: Turn, quota: str | None) -> None:
        try:
            if quota is not None:
                await self._claim_first(turn, quota)
            more = await turn.run()
        finally:
            del self._turns[turn.endpoint, turn.partition]
            self._admit()
        if more:
            self.hint([Hint(turn.endpoint, turn.workspace, turn.partition)])

    async def _claim_first(self, turn: Turn, quota: str) -> None:
        try:
            await turn.begin()
        finally:
            self._admission.begun(quota)
            self._admit()

    def close(self) -> None:
        """Begins no more turns, except for callbacks that accept leases to this worker. May be called again.

        Running turns end when their POSTs have ended.
        """
        self._closed = True
        self._slots.close()
        self.hint(self._admission.take_all())
        for turn in self._turns.values():
            turn.nudge()  # it may wait for a token of its endpoint's rate

    async def ended(self) -> None:
        """Waits until no turn runs."""
        await self._tasks.ended()
