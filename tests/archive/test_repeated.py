"""Intake on a real Redis with a real archive: an eventId that only the archive knows is no new event."""

import asyncio
import time
from collections.abc import Collection
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dispatcher.errors import ArchiveUnavailable
from dispatcher.model import iso
from dispatcher.rules.callback import Claimed
from dispatcher.rules.outcomes import Attempt, Delivered, EndpointHealth
from dispatcher.store.archive.archive import Archive
from dispatcher.store.archive.archived_callback import Id
from dispatcher.store.archive.sqlite import SqliteArchive
from dispatcher.store.arguments import WITH_ARCHIVE, LedgerOptions
from dispatcher.store.installation import Installation
from dispatcher.store.keys import endpoint_id
from dispatcher.store.ledger import Ledger
from dispatcher.store.queue import Queue
from dispatcher.store.rejected import Rejected
from dispatcher.store.replies import Claim, Settlement, ToClaim, ToSettle
from dispatcher.store.to_archive import ToArchive
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.worker import put_off, retired
from dispatcher.worker.archiver import Archiver
from dispatcher.worker.intake import Intake
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.retired import RetiredCallbacks
from tests.archive.conftest import Run
from tests.redis import test_intake
from tests.redis.test_intake import KEYS, Reader

ENDPOINT = "acme https://a.example:443"


NOW = iso(time.time() * 1000)


def line(number: int, **fields: object) -> bytes:
    """A valid status change of just now."""
    return test_intake.line(number, **{"timestamp": NOW, **fields})


class Installed(Reader):
    """Intake, archiver, and who delivers, in an installation with an archive."""

    def __init__(self, url: str, archive: Archive) -> None:
        super().__init__(url)
        self.archive, self.metrics = archive, Metrics()
        self.ledger = Ledger(self.wire.call, KEYS, url, LedgerOptions(archives=True))
        self.intake = Intake(
            Queue(self.reading.call, KEYS, url),
            self.ledger,
            WorkspaceCache(self.workspaces),
            RedisWatch(),
            self,  # type: ignore[arg-type]
            metrics=self.metrics,
            retired=RetiredCallbacks(archive),
        )
        self.source = ToArchive(self.wire, KEYS)
        self.archiver = Archiver(
            self.source,
            self.ledger,
            archive,
            self.token,
            self.metrics,
            about={},
            allow=lambda: Installation(self.client, KEYS).raise_format(WITH_ARCHIVE),
            by_archive_alone=self.source.has_fingerprints,
            after_ms=0,
        )

    async def token(self) -> str | None:
        """Of the intake's lease."""
        return self.intake.token if self.intake.has_lease else None

    async def enqueue(self, *lines: bytes) -> None:
        """Puts status changes on the queue."""
        for one in lines:
            await self.client.xadd(KEYS.events, {"event": one})

    async def until_empty(self) -> None:
        """Waits until nothing is on the queue; intake runs."""
        async with asyncio.timeout(20):
            while await self.client.xlen(KEYS.events):
                await asyncio.sleep(0.01)

    async def _claimed(self) -> list[Claimed]:
        [claim] = await self.ledger.claim([ToClaim(endpoint_id(ENDPOINT), 100)])
        assert isinstance(claim, Claim)
        return claim.callbacks

    async def delivered(self) -> list[str]:
        """Delivers what waits; the eventIds."""
        ids: list[str] = []
        while found := await self._claimed():
            attempt = Attempt(self.ledger.now_ms(), 5, 200)
            done = [
                Settlement(one.event_id, one.claim, Delivered(), attempt, EndpointHealth.UP) for one in found
            ]
            await self.ledger.settle([ToSettle(endpoint_id(ENDPOINT), done)])
            ids += [one.event_id for one in found]
        return ids

    async def until_retired(self) -> None:
        """Runs the archiver until it has taken all; intake runs."""
        stopping = asyncio.Event()
        task = asyncio.create_task(self.archiver.run(stopping))
        async with asyncio.timeout(20):
            while (await self.source.backlog())[0]:
                await asyncio.sleep(0.01)
        stopping.set()
        await task
        assert not [key async for key in self.client.scan_iter(f"{KEYS.root}event:*")]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that wait for the archive are tried again sooner."""
    monkeypatch.setattr(put_off, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(put_off, "MOST_SECONDS", 0.1)


def test_a_repeated_event(redis_url: str, run: Run) -> None:
    """The same one is a duplicate, another one of the eventId a conflict, which is kept in `rejected`; all others are accepted."""
    ids = [f"e{number}" for number in range(200)]

    async def scenario() -> None:
        reader = Installed(redis_url, run.archive)
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        await reader.enqueue(*(line(number) for number in range(200)))
        async with reader.running():
            await reader.until_empty()
            assert set(ids) == set(await reader.delivered())
            await reader.until_retired()
            conflict = line(7, status="DELIVERED")
            await reader.enqueue(*(line(number) for number in range(200)), conflict, line(500), line(500))
            await reader.until_empty()
            assert ["e500"] == await reader.delivered()
        assert 200 + 1 == reader.metrics.taken["duplicate"]
        assert 1 == reader.metrics.taken["conflict"]
        [kept] = await Rejected(reader.client, KEYS).newest()
        assert ("conflict", "e7", conflict.decode()) == (kept.reason, kept.event_id, kept.raw)
        await reader.close()

    run(scenario())


class Away(SqliteArchive):
    """An archive that can be away."""

    away = False
    asked = 0

    async def digests(self, ids: Collection[Id]) -> dict[Id, str]:
        """As SqliteArchive.digests."""
        self.asked += len(ids)
        if self.away:
            raise ArchiveUnavailable("the archive is away")
        return await super().digests(ids)


def test_the_archive_is_away(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only it can decide stays on the queue, also when another worker takes over; all others go on; then all is decided."""
    monkeypatch.setattr(retired, "MOST_REMEMBERED", 50)

    async def scenario() -> None:
        archive = Away(tmp_path / "archive.db")
        await archive.migrate()
        reader = Installed(redis_url, archive)
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        await reader.enqueue(*(line(number) for number in range(150)))
        with capture_logs() as logs:
            async with reader.running():
                await reader.until_empty()
                await reader.delivered()
                await reader.until_retired()
                archive.away = True
                await reader.enqueue(*(line(number) for number in range(300)))
                await until(lambda: others(reader), {f"e{number}" for number in range(150, 300)})
                assert 150 == await reader.client.xlen(KEYS.events)
            assert ["intake.put_off"] == [one["event"] for one in logs if one["event"] == "intake.put_off"]
            await reader.close()
            reader = Installed(redis_url, archive)
            async with reader.running():
                await reader.enqueue(line(400))
                await until(lambda: others(reader), {"e400"})
                assert 150 == await reader.client.xlen(KEYS.events)
                archive.away = False
                await reader.until_empty()
                assert [] == await reader.delivered()
        assert 150 == reader.metrics.taken["duplicate"]
        await reader.close()
        await archive.aclose()

    async def others(reader: Installed) -> set[str]:
        found.extend(await reader.delivered())
        return set(found)

    async def until(what, wanted: set[str]) -> None:  # type: ignore[no-untyped-def]
        async with asyncio.timeout(20):
            while not wanted <= await what():
                await asyncio.sleep(0.02)

    found: list[str] = []
    asyncio.run(scenario())


def test_it_has_forgotten(redis_url: str, run: Run) -> None:
    """An eventId that the archive does not have any more, as after `purge`, is new."""

    async def scenario() -> None:
        reader = Installed(redis_url, run.archive)
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        await reader.enqueue(line(1))
        async with reader.running():
            await reader.until_empty()
            await reader.delivered()
            await reader.until_retired()
            assert 1 == await run.archive.remove([("acme", "e1")])
            await reader.enqueue(line(1))
            await reader.until_empty()
            assert ["e1"] == await reader.delivered()
        await reader.close()

    run(scenario())
