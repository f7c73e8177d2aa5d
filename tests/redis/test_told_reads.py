"""When the queue of one of several partitions is read."""

import asyncio

from dispatcher.store.arrivals import Arrivals, ToldQueue
from dispatcher.store.keys import keys_of
from dispatcher.store.ledger import Ledger
from dispatcher.store.queue import QueueEntry
from dispatcher.store.sealing import SecretBox
from dispatcher.store.servers import PlainServers
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.store.workspaces import Workspaces
from dispatcher.worker.intake import BATCH, Intake
from dispatcher.worker.read_ahead import READ_AHEAD_FROM
from dispatcher.worker.redis_watch import RedisWatch
from tests.partitioned import NoTurns, line

COUNT, HERE = 4, 1


class Noted(ToldQueue):
    """A queue that notes how many entries each read found that did not wait."""

    found: list[int]

    async def read(self, count: int, wait_ms: int = 0) -> list[QueueEntry]:
        """As ToldQueue's."""
        entries = await super().read(count, wait_ms)
        if not wait_ms:
            self.found.append(len(entries))
        return entries


def test_nothing_is_read_ahead_when_nothing_has_come(redis_url: str) -> None:
    """A batch that was all that is on the queue is not read ahead of; behind a full batch the rest is read while it is accepted."""

    async def work(number: int) -> list[int]:
        servers = PlainServers([redis_url], keys_of("dispatcher", COUNT))
        keys, client, call = servers.keys[HERE], servers.client(HERE), servers.wire(HERE).call
        arrivals = Arrivals(servers)
        queue = Noted(call, keys, arrivals)
        queue.found = []
        cache = WorkspaceCache(Workspaces(client, keys, SecretBox()))
        intake = Intake(queue, Ledger(call, keys), cache, RedisWatch(), NoTurns())  # type: ignore[arg-type]
        for one in range(number):
            await client.xadd(keys.events, {"event": line(one)})  # of no workspace: they are rejected
        running = asyncio.create_task(intake.run())
        async with asyncio.timeout(20):
            while await client.xlen(keys.rejected) < number:
                await asyncio.sleep(0.01)
        intake.stop()
        await running
        await client.delete(keys.rejected)
        await arrivals.aclose()
        await servers.aclose()
        return queue.found

    assert [] == asyncio.run(work(READ_AHEAD_FROM))
    assert [1] == asyncio.run(work(BATCH + 1))
