"""An installation with several partitions on real servers, with the intake of each."""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType

import redis.asyncio

from dispatcher.rules.partitions import Partitioning
from dispatcher.rules.workspace import Workspace
from dispatcher.store.arguments import Room
from dispatcher.store.keys import keys_of
from dispatcher.store.known_messages import KnownMessages
from dispatcher.store.ledger import Ledger
from dispatcher.store.queue import Queue
from dispatcher.store.replies import Claim, Hint
from dispatcher.store.sealing import SecretBox
from dispatcher.store.servers import PlainServers
from dispatcher.store.wire import Wire
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.store.workspaces import Workspaces
from dispatcher.worker.forwarder import Routing
from dispatcher.worker.intake import Intake
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.router import Router

URL = "https://a.example/hooks"


def line(number: int, workspace: str = "acme", message: str | None = None, reference: object = None) -> bytes:
    """A valid status change."""
    told = {"uuid": message or f"m{number}", "src": "ACME", "dest": "+233200000001"}
    if reference:
        told["reference"] = reference  # type: ignore[assignment]
    change = {"eventId": f"e{number}", "workspace": workspace, "status": "SENT", "message": told}
    return json.dumps(change | {"timestamp": "2026-06-09T13:04:57Z"}).encode()


class Counted(WorkspaceCache):
    """A cache that notes what it is asked for."""

    def __init__(self, workspaces: Workspaces) -> None:
        super().__init__(workspaces)
        self.reads: list[str] = []

    async def get(self, workspace: str, revision: str | None = None) -> Workspace | None:
        """The workspace."""
        self.reads.append(workspace)
        return await super().get(workspace, revision)


class NoTurns:
    """There are no slots here, and nothing is sent."""

    def hint(self, hints: Iterable[Hint]) -> None:
        """Nobody serves them."""

    def set_intake_behind(self, behind: bool, partition: int = 0) -> None:
        """There are no turns here."""

    def reserve(self, count: int, workspaces: Iterable[str]) -> Room:
        """Room for nothing."""
        return Room()

    def serve_claims(self, claims: Sequence[tuple[str, Claim]], reserved: int, partition: int = 0) -> None:
        """Nothing was reserved, so there is nothing."""
        assert ([], 0) == (claims, reserved)


class Partition:
    """One partition, as a worker of its own leads it; its connections are its own, too."""

    def __init__(self, urls: Sequence[str], partitions: int, number: int, widths: Mapping[str, int]) -> None:
        self.number = number
        self.keys = keys_of("dispatcher", partitions)[number]
        self._servers = PlainServers(urls, keys_of("dispatcher", partitions))
        self._reading = Wire(self._servers.client(number))
        self.client: redis.asyncio.Redis = self._servers.client(number)
        self.ledgers = [
            Ledger(self._servers.wire(one).call, keys, urls[one % len(urls)])
            for one, keys in enumerate(self._servers.keys)
        ]
        self.ledger = self.ledgers[number]
        self.metrics = Metrics()
        self.workspaces = Workspaces(self.client, self.keys, SecretBox())
        self.workspaces.partitions = partitions
        self._widths = widths
        self.cache = Counted(self.workspaces)
        self.routing = Routing(
            Router(Partitioning(partitions), number), self.ledgers.__getitem__, self._known_at
        )
        self.intake = Intake(
            Queue(self._reading.call, self.keys),
            self.ledger,
            self.cache,
            RedisWatch(),
            NoTurns(),
            metrics=self.metrics,
            routing=self.routing,
        )
        self._task: asyncio.Task[None] | None = None

    def _known_at(self, number: int) -> KnownMessages:
        return KnownMessages(self._servers.wire(number), self._servers.keys[number])

    def start(self) -> None:
        """Starts its intake."""
        self._task = asyncio.create_task(self.intake.run())

    async def stop(self) -> None:
        """Stops its intake as SIGTERM does."""
        self.intake.stop()
        if self._task:
            await self._task
        await self._close()

    async def crash(self) -> None:
        """Ends its intake as SIGKILL does, but for the lease, which another worker need not wait for."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.client.delete(self.keys.intake)
        await self._close()

    async def _close(self) -> None:
        await self._reading.close()
        await self._servers.aclose()

    async def enqueue(self, lines: Iterable[bytes]) -> None:
        """Puts status changes on its queue."""
        async with self.client.pipeline(transaction=False) as pipe:
            for one in lines:
                pipe.xadd(self.keys.events, {"event": one})
            await pipe.execute()

    async def queued(self) -> int:
        """Entries on its queue."""
        return int(await self.client.xlen(self.keys.events))

    async def has_queued(self, count: int) -> bool:
        """Whether so many are on its queue."""
        return await self.queued() == count

    async def remembered(self) -> int:
        """Entries of others that it remembers."""
        return int(await self.client.zcard(self.keys.forwarded))

    async def add(self, *workspaces: str) -> None:
        """Makes workspaces here, as wide as they are to be."""
        for workspace in workspaces:
            await self.workspaces.add(workspace, "zeckta", URL, now_ms=1, width=self._widths.get(workspace))

    async def accepted(self, workspace: str, message: str) -> list[str]:
        """The eventIds of a message, in the order of acceptance."""
        found: bytes | None = await self.client.get(self.keys.message(workspace, message))
        return (found or b"").decode().split()

    async def has_taken(self, workspace: str, count: int) -> bool:
        """Whether it has accepted so many status changes of a workspace's message `m`."""
        return len(await self.accepted(workspace, "m")) >= count

    async def has_counted(self, count: int) -> bool:
        """Whether its worker has counted so many as taken, which it does after they have left the queue."""
        return self.metrics.taken.total() >= count


class Installation:
    """All partitions. Within `async with` each has a worker, unless `starts` is False."""

    def __init__(
        self,
        urls: Sequence[str],
        partitions: int = 2,
        widths: Mapping[str, int] | None = None,
        *,
        starts: bool = True,
    ) -> None:
        self._urls = urls
        self._count = partitions
        self._widths = widths or {}
        self._starts = starts
        self.code = Partitioning(partitions)
        self.partitions: list[Partition] = []

    def new(self, number: int) -> Partition:
        """A worker for a partition that nobody leads."""
        return Partition(self._urls, self._count, number, self._widths)

    async def replace(self, number: int) -> None:
        """Kills the worker of a partition and starts another one."""
        await self.partitions[number].crash()
        self.partitions[number] = self.new(number)
        self.partitions[number].start()

    async def is_empty(self) -> bool:
        """Whether nothing is on any queue."""
        return not sum([await one.queued() for one in self.partitions])

    def home(self, workspace: str) -> Partition:
        """Where a workspace is at home."""
        return self.partitions[self.code.home(workspace)]

    def messages_of(self, workspace: str, width: int) -> dict[int, str]:
        """A message of each of a workspace's partitions."""
        found: dict[int, str] = {}
        for message in map("m{}".format, range(1000)):
            found.setdefault(self.code.of(workspace, message, width), message)
        return found

    def named(self, number: int, count: int = 1) -> list[str]:
        """Names of workspaces that are at home in a partition."""
        found = (name for name in map("w{}".format, range(100_000)) if self.code.home(name) == number)
        return [next(found) for _ in range(count)]

    async def __aenter__(self) -> "Installation":
        self.partitions = [self.new(number) for number in range(self._count)]
        if self._starts:
            for one in self.partitions:
                one.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(one.crash() if kind else one.stop() for one in self.partitions))


async def holds(value: object) -> bool:
    """Whether something holds now, for `until`."""
    return bool(value)


async def until(condition: Callable[[], Awaitable[object]], seconds: float = 30) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "it does not come to hold"
        await asyncio.sleep(0.01)
