"""The live workers of an installation with several partitions, by the registries that hold their heartbeats.

A registry is a partition to which every worker writes its heartbeat. There are three, on different servers if there are
several: one that is away, or has lost what it knew, hides no worker.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar
from zlib import crc32

from dispatcher.errors import RedisUnavailable
from dispatcher.rules.ownership import ALIVE_MS, alive, suffices
from dispatcher.store.installation import read_heartbeat
from dispatcher.store.ledger import Ledger
from dispatcher.store.replies import Beat

T = TypeVar("T")

REGISTRIES = 3
BEAT_SECONDS = 1.0
"""How long a registry may take to answer."""


def registries(partitions: int) -> list[int]:
    """The partitions that are registries: a third of all apart, so on different nodes of a cluster.

    With n plain servers partition i is on server i modulo n: so they differ modulo 6, and by it modulo 2 and 3.
    """
    found = set()
    for number in range(min(REGISTRIES, partitions)):
        first = -(-number * partitions // REGISTRIES)
        nearest = next(one for one in range(first, first + 6) if one % 6 == number)
        found.add(nearest if nearest < partitions else number)
    return sorted(found)


def mask_of(partitions: Sequence[int] | frozenset[int] | set[int]) -> str:
    """A set of partitions as text: a number in hexadecimal digits, whose bit i stands for partition i."""
    return f"{sum(1 << one for one in partitions):x}"


_BITS = {f"{digit:x}": tuple(bit for bit in range(4) if digit >> bit & 1) for digit in range(16)}


def partitions_of(mask: object) -> frozenset[int]:
    """Parses what `mask_of` writes; anything else is no partition."""
    try:
        return frozenset(
            4 * place + bit for place, digit in enumerate(reversed(str(mask))) for bit in _BITS[digit]
        )
    except KeyError:
        return frozenset()


@dataclass(frozen=True, slots=True)
class Owners:
    """Who leads which partitions, as the workers' heartbeats say."""

    of: Mapping[str, frozenset[int]]
    """The partitions of each live worker, by its name."""
    without: Sequence[int]
    """The partitions that none leads."""

    @classmethod
    def read(
        cls, heartbeats: Mapping[str, Mapping[str, Any]], partitions: int, now_ms: int | None = None
    ) -> "Owners":
        """Reads heartbeats (Installation.workers). The only partition's owner is who leads intake.

        With `now_ms`, Redis's clock, those of workers that have died since are left out.
        """
        of = {
            name: partitions_of(one.get("owns", "1" if one.get("leadsIntake") else "0"))
            for name, one in heartbeats.items()
            if now_ms is None or now_ms - one["signedMs"] < ALIVE_MS
        }
        owned = frozenset[int]().union(*of.values())
        return cls(of, [one for one in range(partitions) if one not in owned])

    def as_json(self) -> dict[str, Any]:
        """The document that `stats --json` and `check --json` print."""
        return {
            "owners": {name: sorted(partitions) for name, partitions in sorted(self.of.items())},
            "withoutOwner": list(self.without),
        }


@dataclass(frozen=True, slots=True)
class Members:
    """The workers that a registry or more know."""

    heartbeats: Mapping[str, Mapping[str, Any]]
    """The last heartbeat of each, by name."""
    ages_ms: Mapping[str, int]
    """How long ago it was sent."""


class Registry:
    """All registries, as one worker uses them: it stores its heartbeat in all, and reads one while that knows enough.

    Which one depends on the worker's name, so each has a third of the readings.
    """

    def __init__(self, ledgers: Sequence[Ledger], worker: str) -> None:
        """`ledgers` are those of `registries`."""
        first = crc32(worker.encode()) % len(ledgers)
        self._ledgers = [*ledgers[first:], *ledgers[:first]]
        self._worker = worker
        self._answered: Sequence[Ledger] = ()
        """Those that stored the last heartbeat; the first of them is read."""
        self._most = 0
        """How many workers one of them knew then, at most."""
        self._alive = {worker}
        """The workers that were alive at the last reading."""

    async def read(self) -> Members:
        """The heartbeats of all workers, the newest of each. Raises RedisUnavailable if no registry answers."""
        found = await _asked(self._answered[:1], Ledger.members)
        members = _newest(found)
        if not suffices(members.ages_ms, self._alive, self._most):
            found += await _asked(self._answered[1:], Ledger.members)
            if not _answers(found):
                self._answered = ()
                found = await _asked(self._ledgers, Ledger.members)
            members = _newest(_required(found))
        self._alive = {self._worker, *alive({name: -age for name, age in members.ages_ms.items()}, 0)}
        return members

    async def store(self, heartbeat: str) -> bool:
        """Stores the worker's heartbeat; returns whether someone watches attempts live.

        Raises RedisUnavailable if no registry answers.
        """
        found = await _asked(self._ledgers, lambda one: one.beat(self._worker, heartbeat))
        told = _required(found)
        self._answered = [
            one for one, said in zip(self._ledgers, found, strict=True) if isinstance(said, Beat)
        ]
        self._most = max(one.workers for one in told)
        return any(one.watched for one in told)

    async def leave(self) -> None:
        """Removes the worker's heartbeat; if a registry is away, it expires there."""
        await _asked(self._ledgers, lambda one: one.leave(self._worker))


async def _asked(ledgers: Sequence[Ledger], ask: Callable[[Ledger], Awaitable[T]]) -> list[T | BaseException]:
    """What each registry answers in time, or the exception."""

    async def one(ledger: Ledger) -> T:
        try:
            return await asyncio.wait_for(ask(ledger), BEAT_SECONDS)
        except TimeoutError:
            raise RedisUnavailable(f"a registry has not answered for {BEAT_SECONDS:g} s") from None

    return await asyncio.gather(*map(one, ledgers), return_exceptions=True)


def _answers(found: Sequence[T | BaseException]) -> list[T]:
    return [one for one in found if not isinstance(one, BaseException)]


def _required(found: Sequence[T | BaseException]) -> list[T]:
    """The answers. Raises the first exception if there are none."""
    if answers := _answers(found):
        return answers
    raise next(one for one in found if isinstance(one, BaseException))


def _newest(found: Sequence[list[tuple[str, int, bytes]] | BaseException]) -> Members:
    """The newest heartbeat of each worker in the answers."""
    newest: dict[str, tuple[int, bytes]] = {}
    for name, age, text in chain.from_iterable(_answers(found)):
        if name not in newest or age < newest[name][0]:
            newest[name] = age, text
    heartbeats = {name: read_heartbeat(text) for name, (_, text) in newest.items()}
    return Members(heartbeats, {name: age for name, (age, _) in newest.items()})
