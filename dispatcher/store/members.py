"""The live workers of an installation with several partitions, by the registries that hold their heartbeats.

A registry is a partition to which every worker writes its heartbeat. There are three, on different servers if there are
several: one that is away hides no worker.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dispatcher.errors import RedisUnavailable
from dispatcher.rules.ownership import ALIVE_MS
from dispatcher.store.ledger import Ledger

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


def partitions_of(mask: object) -> frozenset[int]:
    """Parses what `mask_of` writes; anything else is no partition."""
    try:
        number = int(str(mask), 16)
    except ValueError:
        return frozenset()
    return frozenset(one for one in range(number.bit_length()) if number >> one & 1)


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
    watched: bool
    """Whether someone watches attempts live."""


class Registry:
    """All registries, as one. `ledgers` are those of `registries`."""

    def __init__(self, ledgers: Sequence[Ledger]) -> None:
        self._ledgers = ledgers

    async def beat(self, worker: str, heartbeat: str = "") -> Members:
        """Stores a worker's heartbeat, unless it is empty, and returns all. Raises RedisUnavailable if no registry answers."""
        found = await asyncio.gather(
            *(self._beat(one, worker, heartbeat) for one in self._ledgers), return_exceptions=True
        )
        answers = [one for one in found if not isinstance(one, BaseException)]
        if not answers:
            raise next(one for one in found if isinstance(one, BaseException))
        heartbeats: dict[str, Any] = {}
        ages: dict[str, int] = {}
        for name, age, text in (one for answer in answers for one in answer.heartbeats):
            if age < ages.get(name, 1 << 60):
                heartbeats[name], ages[name] = _read(text), age
        return Members(heartbeats, ages, any(one.watched for one in answers))

    @staticmethod
    async def _beat(ledger: Ledger, worker: str, heartbeat: str) -> Any:
        try:
            return await asyncio.wait_for(ledger.beat(worker, heartbeat), BEAT_SECONDS)
        except TimeoutError:
            raise RedisUnavailable(f"a registry has not answered for {BEAT_SECONDS:g} s") from None

    async def leave(self, worker: str) -> None:
        """Removes a worker's heartbeat; if a registry is away, it expires there."""
        await asyncio.gather(*(self._leave(one, worker) for one in self._ledgers), return_exceptions=True)

    @staticmethod
    async def _leave(ledger: Ledger, worker: str) -> None:
        await asyncio.wait_for(ledger.leave(worker), BEAT_SECONDS)


def _read(text: bytes) -> Mapping[str, Any]:
    """A heartbeat; empty if it was written over by hand."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
