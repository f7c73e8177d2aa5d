"""What an archive in PostgreSQL makes of what befalls its server, and of what its user may."""

import asyncio
from collections.abc import Iterator

import psycopg
import pytest
from structlog.testing import capture_logs

from dispatcher.errors import ArchiveUnavailable
from dispatcher.store.archive import postgres_schema
from dispatcher.store.archive.messages import Wanted
from dispatcher.store.archive.postgres import PostgresArchive
from dispatcher.store.archive.postgres_days import TABLES
from tests.acceptance.stack import wait_until
from tests.archive.conftest import Run
from tests.archive.test_archives import DAY, callback, in_order
from tests.archive.test_messages import made


@pytest.fixture
def server(postgres_url: str) -> Iterator[psycopg.Connection]:
    """Its superuser's connection; there are no tables."""
    with psycopg.connect(
        postgres_url, autocommit=True, options="-c default_transaction_read_only=off"
    ) as connection:
        connection.execute("DROP SCHEMA IF EXISTS dispatcher CASCADE")
        yield connection


@pytest.fixture
def here(server: psycopg.Connection, postgres_url: str) -> Iterator[Run]:
    """An archive with its tables."""
    with asyncio.Runner() as runner:
        archive = PostgresArchive(postgres_url, "the test's PostgreSQL")
        runner.run(archive.migrate())
        yield Run(archive, runner)
        runner.run(archive.aclose())


def test_a_server_that_takes_no_writes_for_a_while(
    here: Run, server: psycopg.Connection, postgres_url: str
) -> None:
    """A connection that was made then is not kept: once the server takes writes, they come through."""
    server.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
    mine = PostgresArchive(postgres_url, "the test's PostgreSQL")
    try:
        with pytest.raises(ArchiveUnavailable, match="read-only"):
            here(mine.put([callback(1)]))
    finally:
        server.execute("ALTER DATABASE postgres RESET default_transaction_read_only")
    here(mine.put([callback(1)]))
    assert 1 == len(here(mine.get([callback(1).key])))
    here(mine.aclose())


def test_what_is_there_already_costs_no_connection(here: Run, server: psycopg.Connection) -> None:
    """A batch that is told again is no reason to connect anew."""
    here(here.archive.put([callback(1)]))
    query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY 1"
    before = server.execute(query).fetchall()
    here(here.archive.put([callback(1), callback(2)]))
    assert before == server.execute(query).fetchall()


def test_what_was_given_up_ends_on_the_server_too(
    here: Run, server: psycopg.Connection, request: pytest.FixtureRequest
) -> None:
    """A query that nobody waits for any more does not go on there, also behind pgbouncer; the next one is answered."""
    slow = "SELECT pg_sleep(600) AS given_up"
    for kind in ("postgres", "pgbouncer"):
        mine = PostgresArchive(request.getfixturevalue(f"{kind}_url"), "the test's PostgreSQL", 0.5)
        with pytest.raises(ArchiveUnavailable):
            here(mine._run(lambda db: db.execute(slow)))
        assert 3 == here(mine.version())
        here(mine.aclose())
    active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = %s"
    wait_until(lambda: (0,) == server.execute(active, [slow]).fetchone(), what="a server that does nothing")


def test_a_user_with_the_rights_that_are_documented(
    here: Run, server: psycopg.Connection, postgres_url: str
) -> None:
    """Who owns the tables of days, and may write rows of the others, does all that workers do, without temporary tables."""
    server.execute("DROP ROLE IF EXISTS worker")
    server.execute("CREATE ROLE worker LOGIN")
    server.execute("GRANT USAGE, CREATE ON SCHEMA dispatcher TO worker")
    server.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dispatcher TO worker")
    for table in TABLES:
        server.execute(f"ALTER TABLE dispatcher.{table} OWNER TO worker")
    server.execute("REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC")
    mine = PostgresArchive(postgres_url.replace("postgres:", "worker:", 1), "the test's PostgreSQL")
    some = [callback(number, failed=number % 2 == 0) for number in range(120)]
    try:
        with capture_logs() as logs:
            here(mine.migrate())
            here(mine.put(some[:1]))
            here(mine.put(some))
            assert in_order(some) == in_order(here(mine.get([one.key for one in some])))
            assert 3 == here(mine.drop_days(DAY + 3))
        assert not logs
    finally:
        server.execute("GRANT TEMPORARY ON DATABASE postgres TO PUBLIC")
        here(mine.aclose())
        server.execute("DROP OWNED BY worker CASCADE")
        server.execute("DROP ROLE worker")


@pytest.fixture
def latin(server: psycopg.Connection, postgres_url: str) -> Iterator[str]:
    """The URL of a database in LATIN1."""
    server.execute("DROP DATABASE IF EXISTS latin")
    server.execute("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    yield postgres_url.replace("/postgres?", "/latin?")
    server.execute("DROP DATABASE latin")


def test_a_database_that_has_not_every_character(latin: str) -> None:
    """It is given no tables, because some messages could not be kept; the error says what to make."""
    with asyncio.Runner() as runner:
        mine = PostgresArchive(latin, "the test's PostgreSQL")
        with pytest.raises(ArchiveUnavailable, match=r"LATIN1.*ENCODING 'UTF8'"):
            runner.run(mine.migrate())
        assert 0 == runner.run(mine.version())
        runner.run(mine.aclose())


def test_what_such_a_database_cannot_have_is_not_found(latin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has tables from before answers for what it has; what it cannot have is not found, and no error."""
    monkeypatch.setattr(postgres_schema, "ENCODINGS", ("LATIN1",))
    with asyncio.Runner() as runner:
        mine = PostgresArchive(latin, "the test's PostgreSQL")
        runner.run(mine.migrate())
        monkeypatch.undo()
        one = made("é", campaign="é", keys='["campaign:é"]')
        runner.run(mine.messages.put([one]))
        assert "LATIN1" in runner.run(mine.flaw())
        assert [one] == runner.run(mine.messages.get("acme", ["ł", "m1", "é", "😀", "m2"]))
        assert {"campaign:é": ["é"]} == runner.run(mine.messages.latest("acme", ["campaign:ł", "campaign:é"]))
        assert [one] == runner.run(mine.messages.listed(Wanted("acme", "campaign:é"), None, 10))
        assert [] == runner.run(mine.messages.listed(Wanted("acme", "campaign:ł"), None, 10))
        assert runner.run(mine.messages.campaign("acme", "é"))
        assert None is runner.run(mine.messages.campaign("acme", "ł"))
        assert [] == runner.run(mine.of_message("acme", "ł"))
        runner.run(mine.aclose())
