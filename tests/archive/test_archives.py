"""What every archive does, on SQLite and on PostgreSQL."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
import psycopg
import pytest

from dispatcher.errors import ArchiveUnavailable
from dispatcher.store.archive import postgres, postgres_erased
from dispatcher.store.archive.archived_callback import ArchivedCallback, Kept
from dispatcher.store.archive.sqlite import SqliteArchive
from tests.archive.conftest import Run
from tests.conftest import postgres_server

DAY_MS = 86_400_000
DAY = 20_500
DATA = Path(__file__).parent / "data"
ENTRY = "0123456789abcdef message.delivered d {accepted} {state} 1 endpoint7 m{message} 172800000 35 to=a,b\n3 12 {status}"


def callback(
    number: int, day: int = DAY, *, workspace: str = "acme", failed: bool = False
) -> ArchivedCallback:
    """One that ended that day."""
    state, status = ("failed", "500 http_500") if failed else ("d", "200")
    entry = ENTRY.format(accepted=day * DAY_MS + number, state=state, message=number % 10, status=status)
    answer, body = (b"no \x00 luck", b"https://a.example\n{}") if failed else (None, None)
    return Kept(
        workspace, f"e{number}", entry.encode(), f"{workspace} https://a.example:443", answer, body
    ).archived()


def in_order(callbacks: Sequence[ArchivedCallback]) -> list[ArchivedCallback]:
    """Sorted by workspace and id."""
    return sorted(callbacks, key=lambda one: one.key)


def test_what_is_put_is_got(run: Run) -> None:
    """Each callback comes back as it was, and its entry byte for byte; what was never put is not there."""
    some = [callback(n, DAY + n % 3, failed=n % 2 == 0) for n in range(1000)]
    run(run.archive.put(some))
    found = run(run.archive.get([("acme", f"e{n}") for n in range(1001)] + [("other", "e1")]))
    assert in_order(some) == in_order(found)


def test_told_again(run: Run) -> None:
    """The same again, beside others, changes nothing; nor does it take an id of another workspace for the same."""
    run(run.archive.put([callback(n) for n in range(500)]))
    run(run.archive.put([callback(n) for n in range(250, 750)] + [callback(3, workspace="bluefin")]))
    ids = [("acme", f"e{n}") for n in range(1000)] + [("bluefin", "e3")]
    assert 751 == len(run(run.archive.get(ids)))


def test_of_one_day(run: Run) -> None:
    """Only what ended on the days that are named is looked for, where that is cheaper; and is found there."""
    run(run.archive.put([callback(n, DAY + n) for n in range(3)]))
    assert {"e1"} <= {one.id for one in run(run.archive.get([("acme", "e1")], [DAY + 1]))}


def test_of_a_message(run: Run) -> None:
    """The callbacks of a message come in order of acceptance, those of other messages and workspaces do not."""
    run(run.archive.put([callback(13), callback(3), callback(4), callback(23, workspace="bluefin")]))
    assert ["e3", "e13"] == [one.id for one in run(run.archive.of_message("acme", "m3"))]


def test_remove(run: Run) -> None:
    """What is removed is not there any more; what is not there is not counted."""
    run(run.archive.put([callback(n) for n in range(10)]))
    assert 2 == run(run.archive.remove([("acme", "e1"), ("acme", "e2"), ("acme", "e99"), ("bluefin", "e3")]))
    assert 8 == len(run(run.archive.get([("acme", f"e{n}") for n in range(10)])))


def test_days_that_are_over(run: Run) -> None:
    """All that ended before a day is forgotten, and only that; days that come later find their place."""
    run(run.archive.put([callback(n, DAY + n) for n in range(5)]))
    assert 3 == run(run.archive.drop_days(DAY + 3))
    run(run.archive.put([callback(9, DAY)]))
    assert ["e3", "e4", "e9"] == sorted(
        one.id for one in run(run.archive.get([("acme", f"e{n}") for n in range(10)]))
    )


def test_without_tables(run: Run) -> None:
    """Its tables may be made again; a call without them says what is wrong, and the next one works once they are there."""
    assert 3 == run(run.archive.version()) == run(run.archive.migrate())
    run(run.archive.put([callback(1)]))
    with pytest.raises(ArchiveUnavailable, match="cannot be used"):
        run(run.archive.put([msgspec.structs.replace(callback(2), message=None)]))  # type: ignore[type-var]
    run(run.archive.put([callback(3, DAY + 1, workspace="crest")]))
    assert 2 == len(run(run.archive.get([("acme", "e1"), ("acme", "e2"), ("crest", "e3")])))


def test_days_are_dropped_wherever_names_are_looked_up(run: Run, request: pytest.FixtureRequest) -> None:
    """A user of PostgreSQL who sees the tables without their schema, as one named `dispatcher` does, drops old days only."""
    if isinstance(run.archive, SqliteArchive):
        pytest.skip("it has no schemas")
    url = request.getfixturevalue("postgres_url")
    same = postgres.PostgresArchive(f"{url}&options=-csearch_path%3Ddispatcher", "the test's PostgreSQL")
    run(same.put([callback(n, DAY + n) for n in range(3)]))
    assert 1 == run(same.drop_days(DAY + 1))
    run(same.aclose())
    assert ["e1", "e2"] == sorted(
        one.id for one in run(run.archive.get([("acme", f"e{n}") for n in range(3)]))
    )


def test_many_calls_while_a_server_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are given up together: one does not wait for each of those before it."""
    connect, asked = postgres._connect, []

    async def counted(url: str) -> Any:
        asked.append(url)
        return await connect(url)

    monkeypatch.setattr(postgres, "_connect", counted)
    with postgres_server() as server:
        psutil.Process(server.get_pid()).suspend()
        archive = postgres.PostgresArchive(server.get_uri(), "the test's PostgreSQL", 1.0)

        async def ask() -> list[object]:
            calls = [archive.messages.get("acme", ["m1"]) for _ in range(20)]
            found: list[object] = await asyncio.gather(*calls, return_exceptions=True)
            return found

        assert {ArchiveUnavailable} == {type(one) for one in asyncio.run(ask())}
        psutil.Process(server.get_pid()).resume()
    assert len(asked) < 5  # the next one may begin in the moment in which it would be given up


def test_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call to a PostgreSQL that hangs is given up, and the next one uses another connection."""
    monkeypatch.setattr(postgres, "ANSWER_SECONDS", 1.0)

    async def scene(server: Any) -> None:
        archive = postgres.PostgresArchive(server.get_uri(), "the test's PostgreSQL")
        await archive.migrate()
        await archive.put([callback(1)])
        main = psutil.Process(server.get_pid())
        processes = [main, *main.children(recursive=True)]
        for one in processes:
            one.suspend()
        try:
            for _ in range(2):  # on the connection, and on a new one
                with pytest.raises(ArchiveUnavailable, match="no answer within 1 s"):
                    await archive.put([callback(2)])
        finally:
            for one in processes:
                one.resume()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await archive.put([callback(3)])
        await archive.put([callback(2), callback(3)])
        assert 3 == len(await archive.get([("acme", f"e{n}") for n in range(9)]))
        await archive.aclose()

    with postgres_server() as server:
        asyncio.run(asyncio.wait_for(scene(server), 60))


def test_erased(run: Run) -> None:
    """What is erased is gone, stays known by its id, and is not put again; other ids and workspaces are not touched."""
    both = [callback(n, workspace=name) for n in range(4) for name in ("acme", "bluefin")]
    run(run.archive.put(both))
    ids = [("acme", "e1"), ("acme", "e2"), ("acme", "never-put"), ("crest", "e1")]
    assert 2 == run(run.archive.erase(ids, DAY))
    assert 0 == run(run.archive.erase(ids, DAY))
    asked = [*ids, ("acme", "e3"), ("bluefin", "e1"), ("nobody", "e1")]
    assert set(ids) == run(run.archive.erased(asked))
    again = [msgspec.structs.replace(one, extra="base=1") for one in both]
    for some in ([callback(1)], [*both, callback(9)], again):
        run(run.archive.put(some))
    found = run(run.archive.get([one.key for one in both] + [("acme", "e9")]))
    assert {one.key for one in both} - set(ids) | {("acme", "e9")} == {one.key for one in found}


def test_erased_is_forgotten(run: Run) -> None:
    """What was erased before a day that is dropped is known no more; and nothing is asked for no ids."""
    run(run.archive.erase([("acme", "e1")], DAY))
    run(run.archive.erase([("acme", "e1"), ("acme", "e2")], DAY + 1))
    run(run.archive.drop_days(DAY + 1))
    assert {("acme", "e2")} == run(run.archive.erased([("acme", "e1"), ("acme", "e2")]))
    assert set() == run(run.archive.erased([]))
    assert 0 == run(run.archive.erase([], DAY))


def test_an_archive_of_version_1(run: Run, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """It is taken over: what is in it stays, and it can erase."""
    archive = run.archive
    if isinstance(archive, SqliteArchive):
        archive = SqliteArchive(tmp_path / "old.db")
        request.addfinalizer(lambda: run(archive.aclose()))
        with sqlite3.connect(tmp_path / "old.db") as db:
            db.executescript((DATA / "sqlite_version_1.sql").read_text())
    else:
        with psycopg.connect(request.getfixturevalue("postgres_url"), autocommit=True) as connection:
            connection.execute("DROP SCHEMA dispatcher CASCADE")
            connection.execute((DATA / "postgres_version_1.sql").read_text().encode())
    assert 1 == run(archive.version())
    assert 3 == run(archive.migrate()) == run(archive.version()) == run(archive.migrate())
    ids = [("acme", "e1"), ("acme", "e2")]
    kept = [callback(1), callback(2, failed=True)]
    assert kept == in_order(run(archive.get(ids)))
    run(archive.put([*kept, callback(3)]))
    assert 1 == run(archive.erase([("acme", "e1")], DAY))
    assert {("acme", "e1")} == run(archive.erased(ids))
    assert ["e2", "e3"] == [one.id for one in in_order(run(archive.get([*ids, ("acme", "e3")])))]


def test_what_is_erased_while_it_is_put(run: Run, request: pytest.FixtureRequest) -> None:
    """Of two workers with one archive, the one that puts callbacks waits for the other that erases, and leaves out what is gone."""
    if isinstance(run.archive, SqliteArchive):
        pytest.skip("one call after the other: SQLite locks the file")
    url = request.getfixturevalue("postgres_url")
    run(run.archive.put([callback(1)]))

    async def both() -> None:
        async with await psycopg.AsyncConnection.connect(url) as eraser:
            assert 1 == await postgres_erased.erase(eraser, [("acme", "e1"), ("acme", "e2")], DAY)
            putting = asyncio.create_task(run.archive.put([callback(n) for n in range(4)]))
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as watcher:
                waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                while (await (await watcher.execute(waiting)).fetchone()) != (1,):
                    assert not putting.done()
                    await asyncio.sleep(0.01)
            await eraser.commit()
            await putting

    run(asyncio.wait_for(both(), 30))
    found = run(run.archive.get([("acme", f"e{n}") for n in range(4)]))
    assert ["e0", "e3"] == [one.id for one in in_order(found)]


def test_a_file_that_is_mended(tmp_path: Path) -> None:
    """An archive's file that was damaged, or moved away, is used again when it is back, without a restart."""
    path, backup = tmp_path / "archive.db", tmp_path / "backup.db"

    async def work() -> None:
        archive = SqliteArchive(path)
        await archive.migrate()
        await archive.put([callback(1)])
        with sqlite3.connect(path) as db, sqlite3.connect(backup) as copy:
            db.backup(copy)
        for damaged in (b"x" * 8192, None):
            for one in tmp_path.glob("archive.db*"):
                one.unlink()
            if damaged:
                path.write_bytes(damaged)
            with pytest.raises(ArchiveUnavailable, match=r"not a database|it has no tables"):
                await archive.get([("acme", "e1")])
            for one in tmp_path.glob("archive.db*"):
                one.unlink()
            path.write_bytes(backup.read_bytes())
            assert ["e1"] == [one.id for one in await archive.get([("acme", "e1")])]
        await archive.aclose()

    asyncio.run(work())


def test_ended_twice_without_a_replay(run: Run) -> None:
    """As after Redis was restored from a copy: by its id its last end is found last, whichever was told first."""
    early, late = callback(1), callback(1, DAY + 1)
    for some in ([late], [early]):
        run(run.archive.put(some))
    found = run(run.archive.get([early.key]))
    assert late.ended_ms == found[-1].ended_ms
    assert {early.key: late.digest} == run(run.archive.digests([early.key]))


@pytest.mark.parametrize(
    ("before", "after"),
    [("", "base=1"), ("", "base=0"), ("base=2", "base=10"), ("to=a,b base=1", "to=a,b base=3 replay_of=e7")],
)
@pytest.mark.parametrize("is_set_back", [True, False])
def test_a_clock_that_was_set_back(run: Run, *, is_set_back: bool, before: str, after: str) -> None:
    """A callback that was replayed is as its replay ended, also where a clock that was set back since says that this was earlier."""
    ended_ms = DAY * DAY_MS + 50_000
    end = msgspec.structs.replace(callback(1, failed=True), ended_ms=ended_ms, extra=before)
    shift_ms = -2 * DAY_MS if is_set_back else DAY_MS
    again = msgspec.structs.replace(callback(1), ended_ms=ended_ms + shift_ms, extra=after)
    other = callback(2, failed=True)
    run(run.archive.put([end, other]))
    for _ in range(2):
        run(run.archive.put([again]))
        assert [again] == run(run.archive.get([end.key]))
    assert [other] == run(run.archive.get([other.key]))
