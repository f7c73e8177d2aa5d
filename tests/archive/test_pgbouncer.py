"""What pgbouncer needs of its clients when each transaction may get another connection; other tests here run through it too."""

from typing import Any

import pytest

from dispatcher.store.archive.postgres import PostgresArchive
from dispatcher.store.archive.postgres_schema import Connection
from dispatcher.store.archive.which import Which
from tests.archive.conftest import Run
from tests.archive.test_archives import DAY, callback

LEFT = """
SELECT 'prepared statement', name FROM pg_prepared_statements
UNION ALL SELECT 'cursor', name FROM pg_cursors
UNION ALL SELECT 'setting', name FROM pg_settings WHERE source = 'session'
UNION ALL SELECT 'advisory lock', objid::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'temporary table', relname FROM pg_class WHERE relkind = 'r' AND relnamespace = pg_my_temp_schema()
UNION ALL SELECT 'channel', pg_listening_channels()
"""
"""What outlives a transaction on a connection: asked outside of one."""


async def asked(db: Connection, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    return await (await db.execute(query)).fetchall()


@pytest.mark.parametrize("run", ["pgbouncer"], indirect=True)
def test_another_connection_each_time(run: Run) -> None:
    """The tests' pgbouncer does give each transaction a connection of its own."""
    archive = run.archive
    assert isinstance(archive, PostgresArchive)
    pids = {
        one for _ in range(9) for one in run(archive._run(lambda db: asked(db, "SELECT pg_backend_pid()")))
    }
    assert 9 == len(pids)


@pytest.mark.parametrize("run", ["postgres", "pgbouncer"], indirect=True)
def test_nothing_outlives_a_transaction(run: Run) -> None:
    """No call leaves on its connection what a later one could miss on another: also without a pgbouncer at hand."""
    archive = run.archive
    assert isinstance(archive, PostgresArchive)
    some = [callback(number, DAY + number % 3, failed=True) for number in range(50)]
    for _ in range(2):
        run(archive.put(some))
    assert 1 == run(archive.drop_days(DAY + 1))
    for number in range(50, 59):  # a library may prepare a statement when it comes for the sixth time
        run(archive.migrate())
        run(archive.put([callback(number, DAY + 1)]))
        assert 1 == len(run(archive.get([("acme", f"e{number}")], [DAY + 1])))
        assert run(archive.of_message("acme", f"m{number % 10}"))
        for which in (Which("acme", ("failed",)), Which()):
            assert 10 == len(run(archive.ended(which, None, 10)).found)
        assert 1 == run(archive.remove([("acme", f"e{number}")]))
    assert archive._connection
    assert [] == run(asked(archive._connection, LEFT))
