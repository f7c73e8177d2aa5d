"""The queues of an installation's partitions, as producers write them. No I/O: `round_trips.py` sends."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Any, Protocol

from dispatcher.errors import (
    EnqueueInterrupted,
    InvalidInput,
    OtherFormat,
    RedisFull,
    RedisUnavailable,
    sentence,
)
from dispatcher.rules.partitions import MOST, Partitioning
from dispatcher.store.command_parts import in_parts
from dispatcher.store.durability import Durability
from dispatcher.store.keys import GROWN_INTO, Keys, keys_of, partitions_key
from dispatcher.store.placement import Command, Placement
from dispatcher.store.round_trips import Trips, Word
from dispatcher.store.routed import Failure, send

BATCH_BYTES = 1024 * 1024
"""Bytes of status changes per round trip, which has to end within 5 s on a slow link too."""


class Change(Protocol):
    """A status change that may be enqueued."""

    @property
    def event_id(self) -> str: ...
    @property
    def workspace(self) -> str: ...
    @property
    def raw(self) -> bytes: ...
    @property
    def message(self) -> str:
        """Its message's UUID."""


class ProducerQueue:
    """The queues of all partitions. Every method returns a generator for `Nodes.run` or `AsyncNodes.run`."""

    def __init__(
        self,
        prefix: str,
        placement: Placement,
        batch: int,
        partitions: int = 1,
        widths: Mapping[str, int] | None = None,
    ) -> None:
        self._batch = batch  # status changes per round trip
        self._prefix = prefix
        self._keys = keys_of(prefix, partitions)
        self._placement = placement
        self._partitioning = Partitioning(partitions)
        self._widths = widths or {}
        self._is_agreed = partitions == 1

    def enqueue(self, changes: Iterable[Change], durable: Durability | None = None) -> Trips[list[str]]:
        """Enqueues status changes in order; returns their eventIds.

        What a server does not take is refused with all that would follow it there; the other servers' changes are enqueued.
        Raises RedisFull, EnqueueInterrupted, or InvalidInput for another number of partitions than the installation's.
        """
        progress = _Progress()
        try:
            yield from self._agree()
            for batch in _batches(changes, self._batch):
                yield from self._add(batch, progress, durable)
                if len(progress.refused) == len(self._keys):
                    break
        except RedisUnavailable as error:
            raise _interrupted(error, progress.confirmed) from error
        if progress.failure:
            raise _interrupted(progress.failure.ours, progress.confirmed) from progress.failure.error
        return progress.confirmed

    def unknown(self, workspaces: Iterable[str]) -> Trips[list[str]]:
        """Which of the workspaces do not exist. Raises RedisUnavailable."""
        names = list(dict.fromkeys(workspaces))
        homes: dict[int, list[str]] = {}
        for name in names:
            homes.setdefault(self._partitioning.home(name), []).append(name)
        parts = [(home, some) for home, there in homes.items() for some in in_parts(there)]
        asked = [self._command(home, "workspaces", "SMISMEMBER", *some) for home, some in parts]
        rule = f"check=True needs `~{self._prefix}:{'{*}:' if len(self._keys) > 1 else ''}workspaces +smismember`"
        found = yield from self._ask(asked, f"ask which workspaces there are; {rule}")
        known = {
            name
            for (_, some), replies in zip(parts, found, strict=True)
            for name, is_there in zip(some, replies, strict=True)
            if is_there
        }
        return [name for name in names if name not in known]

    def length(self) -> Trips[int]:
        """How many status changes are on the queues. Raises RedisUnavailable."""
        asked = [self._command(one.partition, "events", "XLEN") for one in self._keys]
        return sum((yield from self._ask(asked, "")))

    def _command(self, partition: int, key: str, name: str, *words: Word) -> Command:
        key = getattr(self._keys[partition], key)
        return Command(partition, key, (name, key, *words))

    def _agree(self) -> Trips[None]:
        """Compares the number of partitions with the installation's, until it is known. Raises InvalidInput, RedisUnavailable."""
        if self._is_agreed:
            return
        key = partitions_key(self._prefix)
        need = f"read how many partitions there are; it needs `~{key} +get`"
        (found,) = yield from self._read([Command(0, key, ("GET", key))], need)
        if found is None:  # no worker has ever been started with several
            yield from self._refuse_single()
            return
        text, ours = found.decode() if isinstance(found, bytes) else str(found), len(self._keys)
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST):
            raise OtherFormat(f"the key {key} in Redis holds no number of partitions from 1 to {MOST}")
        if int(text) != ours:
            raise InvalidInput(_another(int(text), ours))
        self._is_agreed = True

    def _refuse_single(self) -> Trips[None]:
        """Raises InvalidInput if Redis holds an installation with one partition, as far as this Redis user may see that."""
        key = Keys(self._prefix).format
        (found,) = yield from send(self._placement, [Command(0, key, ("GET", key))])
        if found is None or isinstance(found, Failure):
            return
        text = found.decode(errors="replace") if isinstance(found, bytes) else str(found)
        if into := text.partition(GROWN_INTO)[2]:
            raise InvalidInput(
                f"this Redis held an installation that has grown into {into} partitions: give the URL of the servers that hold "
                "these (docs/partitions.md, From one Redis)"
            )
        raise InvalidInput(_another(1, len(self._keys)))

    def _ask(self, commands: Sequence[Command], need: str) -> Trips[list[Any]]:
        yield from self._agree()
        return (yield from self._read(commands, need))

    def _read(self, commands: Sequence[Command], need: str) -> Trips[list[Any]]:
        """The replies to commands. Raises RedisUnavailable; `need` says what a Redis user without the permission needs."""
        replies = yield from send(self._placement, commands)
        for reply in replies:
            if isinstance(reply, Failure):
                if need and ("NOPERM" in str(reply.error) or "no permissions" in str(reply.error).lower()):
                    text = f"this Redis user may not {need} (ACL SETUSER; see docs/operations.md)"
                    raise RedisUnavailable(text) from reply.error
                raise reply.ours from reply.error
        return replies

    def _add(self, batch: Sequence[Change], progress: "_Progress", durable: Durability | None) -> Trips[None]:
        """One round trip of XADDs, and what it leads to."""
        commands = [self._xadd(one) for one in batch]
        if progress.failure:
            taken = [progress.takes(one, self._placement) for one in commands]
            batch, commands = list(compress(batch, taken)), list(compress(commands, taken))
        replies = yield from send(self._placement, commands, durable)
        for one, command, reply in zip(batch, commands, replies, strict=True):
            if type(reply) is Failure:
                progress.refuse(command, reply)
            else:
                progress.confirmed.append(one.event_id)

    def _xadd(self, change: Change) -> Command:
        keys = self._keys[0]
        if len(self._keys) > 1:
            workspace = change.workspace
            width = self._widths.get(workspace, 1)
            keys = self._keys[self._partitioning.of(workspace, change.message, width)]
        return Command(keys.partition, keys.events, ("XADD", keys.events, "*", "event", change.raw))


class _Progress:
    """What became of one call so far."""

    def __init__(self) -> None:
        self.confirmed: list[str] = []
        self.failure: Failure | None = None
        """The first one."""
        self.refused: set[int] = set()
        """Partitions that did not take something, and get nothing more: or a message's changes would lose their order."""
        self._failed: set[str] = set()
        """Servers that did not; asking one that is away again and again would take too long."""

    def refuse(self, command: Command, why: Failure) -> None:
        """A partition has not taken a command for certain."""
        self.failure = self.failure or why
        self.refused.add(command.partition)
        self._failed.add(why.node)

    def takes(self, command: Command, placement: Placement) -> bool:
        """Whether nothing speaks against sending a further command."""
        if placement.node(command) in self._failed:
            self.refused.add(command.partition)
        return command.partition not in self.refused


def _batches(changes: Iterable[Change], size: int) -> Iterator[list[Change]]:
    """What goes into one round trip each: so many changes, or fewer if these are large."""
    batch: list[Change] = []
    length = 0
    for one in changes:
        batch.append(one)
        length += len(one.raw)
        if len(batch) == size or length >= BATCH_BYTES:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def _another(found: int, ours: int) -> str:
    return (
        f"this installation has {_partitions(found)}, and {ours} {'is' if ours == 1 else 'are'} configured here: "
        f"pass partitions={found}, or set DISPATCHER_PARTITIONS={found}"
    )


def _partitions(count: int) -> str:
    return f"{count:,} partition{'' if count == 1 else 's'}"


def _interrupted(error: Exception, confirmed: list[str]) -> Exception:
    """What a producer raises for our error, with what is certainly on the queue."""
    if isinstance(error, RedisFull) and not confirmed:
        return error
    if isinstance(error, RedisUnavailable):
        known = (
            f"{len(confirmed):,} {'is' if len(confirmed) == 1 else 'are'} on the queue for certain"
            if confirmed
            else "none is confirmed"
        )
        return EnqueueInterrupted(f"{sentence(str(error))} Of what was to be enqueued {known}", confirmed)
    return error
