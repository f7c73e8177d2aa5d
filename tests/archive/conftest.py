"""The archives that tests use: a file, and a real PostgreSQL server, also behind pgbouncer."""

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis.asyncio

from dispatcher.store.archive.archive import Archive
from dispatcher.store.archive.postgres import PostgresArchive
from dispatcher.store.archive.sqlite import SqliteArchive
from dispatcher.store.arguments import WITH_ARCHIVE
from dispatcher.store.wire import Wire
from tests.archive.pgbouncer import pgbouncer
from tests.archive.retiring_scene import Scene

T = TypeVar("T")


class Run:
    """An archive, driven by a test that is not a coroutine."""

    def __init__(self, archive: Archive, runner: asyncio.Runner) -> None:
        self.archive = archive
        self.runner = runner

    def __call__(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result."""
        return self.runner.run(coroutine)


@pytest.fixture(scope="session")
def pgbouncer_url(postgres_url: str) -> Iterator[str]:
    """The URL of a pgbouncer before that server of PostgreSQL."""
    with pgbouncer(postgres_url) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres", "pgbouncer"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Run]:
    """Each kind of archive, empty and with its tables."""
    import psycopg

    with asyncio.Runner() as runner:
        archive: Archive
        if request.param == "sqlite":
            archive = SqliteArchive(tmp_path / "archive.db")
        else:
            url = request.getfixturevalue("postgres_url")
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("DROP SCHEMA IF EXISTS dispatcher CASCADE")
            archive = PostgresArchive(
                request.getfixturevalue(f"{request.param}_url"), "the test's PostgreSQL"
            )
        runner.run(archive.migrate())
        yield Run(archive, runner)
        runner.run(archive.aclose())


@pytest.fixture
def scene(redis_url: str) -> Iterator[Scene]:
    """An empty Redis, led, in the format that allows to retire."""
    with asyncio.Runner() as runner:
        client = redis.asyncio.Redis.from_url(redis_url)
        wire = Wire(client)
        scene = Scene(client, wire, runner=runner, archives=True)
        scene.call("set", scene.keys.format, WITH_ARCHIVE)
        scene.lead()
        yield scene
        scene.run(wire.close())
        scene.run(client.aclose())
