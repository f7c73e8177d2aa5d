"""The golden requests and answers of each platform's API, with an archive."""

from pathlib import Path

import psycopg
import pytest

from dispatcher.store.archive.archive import Archive
from dispatcher.store.archive.postgres import PostgresArchive
from dispatcher.store.archive.sqlite import SqliteArchive
from tasks.redis_server import RedisServer
from tests.http.api import Api
from tests.http.test_status_api import CASES, GOLDEN, fresh, shown


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
@pytest.mark.parametrize("state", ["redis", "half", "archive"])
def test_golden_with_an_archive(
    redis_server: RedisServer, request: pytest.FixtureRequest, tmp_path: Path, kind: str, state: str
) -> None:
    """Every answer about messages is the same while all are in Redis, those that may get another status, and none."""
    if kind == "sqlite":
        archive: Archive = SqliteArchive(tmp_path / "archive.db")
    else:
        archive = emptied(request.getfixturevalue("postgres_url"))
    api = Api(fresh(redis_server), archive=archive)
    try:
        whole = api.records()
        api.run(archive.migrate())
        if state != "redis":
            api.to_archive(open_too=state == "archive")
        assert {"redis": whole, "half": whole // 3, "archive": 0}[state] == api.records()
        for case in CASES:
            request_text, _, expected = (GOLDEN / f"{case}.http").read_text().partition("\n--- \n")
            assert expected == shown(api, request_text), case
    finally:
        api.close()


def emptied(url: str) -> Archive:
    """An archive without tables in a server of PostgreSQL."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS dispatcher CASCADE")
    return PostgresArchive(url, "the test's PostgreSQL")
