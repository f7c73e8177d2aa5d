"""Forwards queue entries to the partitions that they belong to: in their order, each once.

An entry is put on the other queue first, which remembers it (lua/forward.lua), and then leaves this one
(lua/forwarded.lua). If this worker dies in between, the next leader does both again, and the memory keeps the entry from
being added twice. The next entries bring the news that the ones before have left; where that is lost, with a worker or
with the reply of the second step, the memory keeps them for the retention.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import structlog

from dispatcher.store.known_messages import KnownMessages
from dispatcher.store.ledger import Ledger
from dispatcher.store.previous import Previous
from dispatcher.store.queue import QueueEntry
from dispatcher.worker.batch import Batch, name_of
from dispatcher.worker.earlier import EarlierPartitions
from dispatcher.worker.homes import Homes
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.probe import EXPECTED, Probe
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.router import Router

MOST_ENTRIES, MOST_GONE, MOST_BYTES = 1000, 1500, 4_000_000
"""Most of one call: entries, two arguments each; names to forget; and bytes of entries. Proxies allow 3,999 arguments."""
TARGET_SECONDS = 1.0
"""How long the entries of one batch for one partition may take. Everything else on the queue waits meanwhile."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Routing:
    """What intake needs to forward: which entries, and the ledger of another partition."""

    router: Router
    ledger_of: Callable[[int], Ledger]
    known_at: Callable[[int], KnownMessages]
    """What another partition knows, where messages may have begun before a width grew, and of workspaces without a record here."""
    previous: Previous | None = None
    """Set if the installation has grown."""
    waits: RedisWatch | None = None
    """Logs that intake waits for the previous Redis; set with it."""

    def earlier(self, now_ms: Callable[[], int]) -> EarlierPartitions:
        """What asks where messages began; `now_ms` is the clock of the Redis of `router`'s partition."""
        return EarlierPartitions(self.router.partitioning, self.router.here, self.known_at, now_ms)

    def homes(self) -> Homes:
        """What asks whether there are workspaces without a record in `router`'s partition."""
        return Homes(self.router.partitioning, self.router.here, self.known_at)


@dataclass(slots=True)
class _Target:
    """A partition that entries are forwarded to."""

    ledger: Ledger
    probe: Probe
    """While it is away it gets no entries."""
    gone: set[str] = field(default_factory=set)
    """Names of entries that have left our queue, and that the target still remembers."""
    said: str = ""
    """The failure that was logged."""


class Forwarder:
    """Forwards what is on the queue of one ledger. `token` is the intake lease's."""

    def __init__(
        self, ledger: Ledger, token: str, ledger_of: Callable[[int], Ledger], metrics: Metrics
    ) -> None:
        self._ledger = ledger
        self._token = token
        self._ledger_of = ledger_of
        self._metrics = metrics
        self._targets: dict[int, _Target] = {}

    async def forward(self, batch: Batch) -> None:
        """Forwards the batch's entries of other partitions; those that cannot be now are in `batch.later` afterwards.

        Repeating it, as intake does when a batch fails, forwards none again. Raises NotLeader, RedisUnavailable.
        """
        if self._ledger.leads_until < time.monotonic() + TARGET_SECONDS:
            # another worker may have forwarded them by then, and the target have forgotten them
            _put_off_all(batch)
            return
        targets = [(self._target(number), entries) for number, entries in batch.forwarded.items()]
        sent = await asyncio.gather(*(self._send_all(target, _named(some)) for target, some in targets))
        left = [entry.id for (_, some), count in zip(targets, sent, strict=True) for entry, _ in some[:count]]
        for first in range(0, len(left), MOST_ENTRIES):
            await self._ledger.forwarded(self._token, left[first : first + MOST_ENTRIES])
        for (target, some), count in zip(targets, sent, strict=True):
            target.gone.update(name_of(entry) for entry, _ in some[:count])
            for entry, route in some[count:]:
                batch.put_off(route, entry)

    def _target(self, number: int) -> _Target:
        if number not in self._targets:
            ledger = self._ledger_of(number)
            probe = Probe(
                lambda: ledger.forward(self._here, []), lambda error: self._log_failure(target, error)
            )
            target = self._targets[number] = _Target(ledger, probe)
        return self._targets[number]

    async def _send_all(self, target: _Target, entries: Sequence[tuple[str, bytes]]) -> int:
        """Puts entries on a target's queue, in calls of bounded size; returns how many of the first are there."""
        sent = 0
        # They may be there, if this repeats a batch that failed: the target is to remember them until it is done.
        target.gone.difference_update(name for name, _ in entries)
        if target.probe.is_away:
            return sent
        try:
            async with asyncio.timeout(TARGET_SECONDS):
                for part in _parts(entries):
                    gone = list(islice(target.gone, MOST_GONE))
                    added = await target.ledger.forward(self._here, part, gone)
                    self._metrics.forwarded += added
                    target.gone.difference_update(gone)
                    sent += len(part)
        except Exception as error:  # whatever it is, the entries are not at fault
            self._note_failure(target, error)
        else:
            self._note_success(target)
        return sent

    @property
    def _here(self) -> int:
        return self._ledger.keys.partition

    def _note_failure(self, target: _Target, error: Exception) -> None:
        """Marks a target as away."""
        target.probe.failed()
        self._log_failure(target, error)

    @staticmethod
    def _log_failure(target: _Target, error: Exception) -> None:
        """Logs a failure that is not the one logged last."""
        expected = isinstance(error, EXPECTED)
        problem = f"no answer in {TARGET_SECONDS:g} s" if isinstance(error, TimeoutError) else str(error)
        if problem != target.said:
            log.error(
                "intake.not_forwarded",
                partition=target.ledger.keys.partition,
                problem=problem or type(error).__name__,
                action="trying again; its entries stay on the queue",
                exc_info=None if expected else error,
            )
        target.said = problem

    def _note_success(self, target: _Target) -> None:
        if target.said:
            log.info("intake.forwarding", partition=target.ledger.keys.partition)
        target.said = ""


def _put_off_all(batch: Batch) -> None:
    for entries in batch.forwarded.values():
        for entry, route in entries:
            batch.put_off(route, entry)


def _named(entries: Sequence[tuple[QueueEntry, str]]) -> list[tuple[str, bytes]]:
    return [(name_of(entry), entry.field(b"event")) for entry, _ in entries]


def _parts(entries: Sequence[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Parts of at most MOST_ENTRIES entries and MOST_BYTES, in order; a longer entry is alone."""
    part: list[tuple[str, bytes]] = []
    size = 0
    for entry in entries:
        if part and (len(part) == MOST_ENTRIES or size + len(entry[1]) > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(entry)
        size += len(entry[1])
    yield part
