"""An archive without tables is given them only if no partition of the installation needs those of another one."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from config.settings import Settings
from dispatcher.store.archive.sqlite import SqliteArchive
from dispatcher.store.keys import Keys, keys_of
from dispatcher.worker import archiver
from dispatcher.worker.metrics import Metrics
from tasks import wiring
from tasks.archiver_wiring import Made

COUNT = 4
OF_EACH = keys_of("dispatcher", COUNT)
OF_PREVIOUS = Keys("dispatcher")
LEADS = 1
"""The partition whose archiver runs; it knows nothing by an archive."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiver, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(archiver, "FIRST_SECONDS", 0.01)


async def until(
    settings: Settings, archive: SqliteArchive, done: Callable[[Metrics], Awaitable[bool]]
) -> None:
    """Runs one partition's archiver until `done` says so."""
    servers, metrics = wiring.servers(settings), Metrics()
    try:
        source = Made(settings, servers, archive, metrics)
        ledger = wiring.ledger(settings, servers.wire(LEADS).call, of=servers.keys[LEADS])

        async def lease() -> str:
            return "token"

        stopping = asyncio.Event()
        running = asyncio.create_task(source.archiver(LEADS, ledger, lease, {}).run(stopping))
        async with asyncio.timeout(60):
            while not await done(metrics):
                await asyncio.sleep(0.01)
        stopping.set()
        await running
    finally:
        await servers.aclose()


def problem_of(settings: Settings, archive: SqliteArchive) -> str:
    """What the log says of an archive that gets no tables."""

    async def run() -> int:
        async def refused(metrics: Metrics) -> bool:
            return metrics.archive_errors > 1 or bool(await archive.version())

        await until(settings, archive, refused)
        return await archive.version()

    with capture_logs() as logs:
        assert 0 == asyncio.run(run())
    [said] = [one for one in logs if one["event"] == "archive.away"]
    return str(said["problem"])


@pytest.mark.parametrize("knows", [OF_EACH[0], OF_EACH[3], OF_PREVIOUS])
def test_another_partition_knows_callbacks_by_the_archive_alone(
    redis_url: str, tmp_path: Path, knows: Keys
) -> None:
    """No partition makes tables while another one, or the previous Redis, knows callbacks that a lost archive has."""
    of_partitions = f"{redis_url}?db=1"
    with redis.Redis.from_url(redis_url if knows is OF_PREVIOUS else of_partitions) as client:
        client.hset(knows.fingerprints, "0", b"x")
    settings = configured(of_partitions, previous_redis_url=redis_url)
    said = problem_of(settings, SqliteArchive(tmp_path / "archive.db"))
    assert "Redis knows callbacks by the archive alone" in said


def test_a_partition_that_does_not_answer(redis_url: str, tmp_path: Path) -> None:
    """Without its answer nobody knows whether this is the right archive: it gets no tables, and the log says why."""
    gone = f"unix://{tmp_path}/gone.sock"
    settings = configured(f"{gone} {redis_url}")
    said = problem_of(settings, SqliteArchive(tmp_path / "archive.db"))
    assert "it has no tables, and gets none before all partitions answer" in said
    assert "gone.sock" in said


def test_nobody_knows_callbacks_by_an_archive(redis_url: str, tmp_path: Path) -> None:
    """Then the archive is a new one, and gets its tables."""

    async def run() -> None:
        archive = SqliteArchive(tmp_path / "archive.db")

        async def is_made(_: Metrics) -> bool:
            return bool(await archive.version())

        await until(configured(redis_url), archive, is_made)
        await archive.aclose()

    asyncio.run(run())


def configured(redis_urls: str, **more: Any) -> Settings:
    """The settings of an installation with several partitions."""
    return Settings(
        _env_file=None, redis_url=redis_urls, broker_url=redis_urls.split()[-1], partitions=COUNT, **more
    )
