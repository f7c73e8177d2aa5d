"""Which of several partitions this worker leads: it says so in its heartbeat, and takes or gives up what the rule says."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import structlog

from dispatcher.errors import OtherFormat, RedisUnavailable
from dispatcher.rules.ownership import Candidate, Decision, Member, alive
from dispatcher.store.members import Registry, mask_of, partitions_of
from dispatcher.worker.heartbeat import Heartbeat
from dispatcher.worker.leading import Leading
from dispatcher.worker.outages import Outages
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.tail import Tail
from dispatcher.worker.tenure import Tenure
from dispatcher.worker.turns import Turns

LOOK_SECONDS = 0.25
UNREACHABLE_SECONDS = 2.0
"""A partition whose server has not answered for this long is one that this worker cannot lead."""
TRY_SECONDS = 2.0
"""How often a server that could not be reached is asked again."""

log = structlog.get_logger()


class _Running:
    """A tenure under way."""

    def __init__(self, tenure: Tenure) -> None:
        self.tenure = tenure
        self.stopping = asyncio.Event()
        self.task = asyncio.create_task(tenure.run(self.stopping))


class PartitionOwner:
    """Leads this worker's share of the partitions; `new_tenure` begins one, `answers` says whether a partition's server does."""

    def __init__(
        self,
        partitions: int,
        registry: Registry,
        heartbeat: Heartbeat,
        new_tenure: Callable[[int], Tenure],
        answers: Callable[[int], Awaitable[bool]],
        turns: Turns,
        tail: Tail,
        watch: RedisWatch,
        outages: Outages,
    ) -> None:
        self._partitions = range(partitions)
        self._candidate = Candidate(self._partitions, heartbeat.name)
        self._registry = registry
        self._others = MembersRead()
        self._heartbeat = heartbeat
        self._new_tenure = new_tenure
        self._answers = answers
        self._turns = turns
        self._tail = tail
        self._watch = watch
        self._outages = outages
        self._ask_at = 0.0
        """When partitions that others lead, and that were away for this worker, are asked next, in monotonic seconds."""
        self._leading = Leading(partitions)
        self._running: dict[int, _Running] = {}
        self._cannot: dict[int, float] = {}
        """Partitions whose server does not answer, and when to ask it again, in monotonic seconds."""
        self._trying: asyncio.Task[None] | None = None

    def owned(self) -> frozenset[int]:
        """The partitions that this worker leads now."""
        return frozenset[int]().union(*(running.tenure.owned() for running in self._running.values()))

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs until `stopping`, then hands over all partitions. Survives failures of Redis. Raises OtherFormat."""
        while not stopping.is_set():
            owned = self.owned()
            self._heartbeat.measure(len(owned))
            self._leading.note(owned)
            try:
                await self._look()
            except RedisUnavailable as error:
                self._watch.failed(error)
            except OtherFormat:
                raise
            except Exception:
                log.exception("owner.internal_error")
            self._raise_failures()
            self._heartbeat.load.look_in(LOOK_SECONDS)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), LOOK_SECONDS)
        await self._end()

    async def _look(self) -> None:
        """If a heartbeat is due: acts on those of all workers, then sends its own. Raises RedisUnavailable.

        The order is the rule's (rules/ownership.py): what was just given up must not be said to be led.
        """
        self._note_unreachable()
        if not self._heartbeat.is_due:
            return
        name = self._heartbeat.name
        members = await self._registry.read()
        self._watch.worked()
        live = alive({one: -age for one, age in members.ages_ms.items()}, 0)
        self._turns.workers = max(1, len(live | {name}))
        others = self._others.of({one: members.heartbeats[one] for one in live - {name}})
        own = Member(name, self.owned(), frozenset(self._cannot))
        self._follow(self._candidate.decide([own, *others]))
        owns = frozenset(one for one in self.owned() if not self._running[one].stopping.is_set())
        text = self._heartbeat.if_due(
            leads=bool(owns),
            watched=self._tail.watched,
            owns=mask_of(owns),
            cannot=mask_of(set(self._cannot)),
        )
        watched = await self._registry.store(text)
        self._tail.begin_publishing(watched=watched)

    def _follow(self, decision: Decision) -> None:
        """Ends the tenures of partitions that others should lead, and begins those that are to be tried for."""
        self._raise_failures()
        for partition, running in list(self._running.items()):
            if running.task.done():
                del self._running[partition]
            elif partition in decision.give_up or not (running.tenure.owned() or partition in decision.take):
                running.stopping.set()
        for partition in decision.take - set(self._running):
            self._running[partition] = _Running(self._new_tenure(partition))

    def _note_unreachable(self) -> None:
        """Notes partitions whose server does not answer, and asks the servers of those that were noted before."""
        now = time.monotonic()
        for partition, running in self._running.items():
            since = running.tenure.intake.failing_since
            if since is not None and now - since >= UNREACHABLE_SECONDS:
                self._cannot.setdefault(partition, now + TRY_SECONDS)
        due = [one for one, at in self._cannot.items() if at <= now] + self._others_away(now)
        if due and (self._trying is None or self._trying.done()):
            self._trying = asyncio.create_task(self._try_again(due))

    def _others_away(self, now: float) -> list[int]:
        """Partitions that were away and that this worker does not lead: whether they are back it learns by asking."""
        self._outages.look()
        if now < self._ask_at:
            return []
        self._ask_at = now + TRY_SECONDS
        return list(self._outages.away() - self._running.keys() - self._cannot.keys())

    async def _try_again(self, partitions: list[int]) -> None:
        answers = await asyncio.gather(*map(self._answers, partitions), return_exceptions=True)
        found = dict(zip(partitions, answers, strict=True))
        for partition, answer in found.items():
            if answer is True:
                self._cannot.pop(partition, None)
                self._outages.worked(partition)
            elif partition in self._cannot:
                self._cannot[partition] = time.monotonic() + TRY_SECONDS
        if broken := {one: answer for one, answer in found.items() if isinstance(answer, BaseException)}:
            action, error = "asking them again", next(iter(broken.values()))
            log.error("owner.internal_error", partitions=list(broken), action=action, exc_info=error)

    def _raise_failures(self) -> None:
        for running in self._running.values():
            if running.task.done():
                running.task.result()

    async def _end(self) -> None:
        """Hands over all partitions, and takes this worker off the registries."""
        for running in self._running.values():
            running.stopping.set()
        await self._registry.leave()  # those who look now, take over
        await asyncio.gather(*(running.task for running in self._running.values()))
        if self._trying:
            self._trying.cancel()
        await self._tail.end()


class MembersRead:
    """Reads what workers' heartbeats say that they lead; the partitions of one that says the same as before are not parsed again."""

    def __init__(self) -> None:
        self._before: Mapping[str, tuple[tuple[object, object], Member]] = {}

    def of(self, heartbeats: Mapping[str, Mapping[str, Any]]) -> list[Member]:
        """The workers with these heartbeats, without those of a version that knows no partitions."""
        self._before = {name: self._member(name, one) for name, one in heartbeats.items() if "owns" in one}
        return [member for _, member in self._before.values()]

    def _member(self, name: str, heartbeat: Mapping[str, Any]) -> tuple[tuple[object, object], Member]:
        owns, cannot = said = heartbeat["owns"], heartbeat.get("cannot", "0")
        before = self._before.get(name)
        if before and before[0] == said:
            return before
        return said, Member(name, partitions_of(owns), partitions_of(cannot))
