"""What has ended goes to the archive, which answers for what Redis has forgotten; real workers, SQLite and PostgreSQL."""

import csv
import importlib
import itertools
import json
import os
import sqlite3
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiohttp import web

from tasks.receiver import answer_ok
from tests.acceptance.divided import divide
from tests.acceptance.stack import CLI, Stack, wait_until

DATA = Path(__file__).parent.parent / "archive" / "data"


@pytest.fixture(params=["sqlite", "postgres"])
def archived(request: pytest.FixtureRequest, stack: Stack) -> Stack:
    """A stack with an archive of each kind, which is empty."""
    if request.param == "sqlite":
        url = f"sqlite:///{stack.folder}/archive.db"
    else:
        url = request.getfixturevalue("postgres_url")
        with psycopg.connect(url, autocommit=True) as server:
            server.execute("DROP SCHEMA IF EXISTS dispatcher CASCADE")
    return with_archive(stack, url)


def with_archive(stack: Stack, url: str) -> Stack:
    """The stack with an archive, which takes what ends at once."""
    stack.environment["DISPATCHER_ARCHIVE_URL"] = url
    stack.environment["DISPATCHER_ARCHIVE_AFTER_SECONDS"] = "0"
    return stack


def state(stack: Stack, event_id: str) -> str:
    """The state of a callback, wherever it is."""
    return str(stack.cli_json("event", "show", event_id, "--workspace", "acme")["state"])


def wait_retired(stack: Stack, *ids: str) -> None:
    """Waits until Redis has nothing of callbacks but fingerprints, and bodies that are kept for some time."""

    def left() -> list[bytes]:
        found: list[bytes] = stack.redis.keys("dispatcher:*")
        kept = [key for key in found if not key.startswith(b"dispatcher:body:")]
        return [key for key in kept if any(one.encode() in key for one in ids)]

    wait_until(lambda: not left(), what="a Redis that has retired them")
    assert stack.redis.keys("dispatcher:fingerprint:*")
    wait_until(
        lambda: stack.redis.xlen("dispatcher:ended") == 0, what="nothing noted for the archive any more"
    )


def test_what_redis_has_forgotten(archived: Stack) -> None:
    """`event show` and `event list` show what was delivered or failed, with every attempt, also when Redis has forgotten it."""

    answers = itertools.cycle((200, 410))

    async def answer(_: web.Request, __: int) -> web.Response:
        return web.Response(status=next(answers), text="gone")

    archived.answer = answer
    url = archived.listen()
    archived.add_workspace("acme", "zeckta", f"{url}/hooks")
    archived.environment["DISPATCHER_ARCHIVE_AFTER_SECONDS"] = "300"
    worker = archived.start_worker().wait_ready()
    wait_until(lambda: "no tables" not in finding(archived), what="tables, which commands would miss aloud")
    ids = [archived.enqueue(first=number)[0] for number in range(6)]
    wait_until(lambda: all(state(archived, one) in ("delivered", "failed") for one in ids), what="ends")
    shown = {one: archived.cli_json("event", "show", one, "--workspace", "acme") for one in ids}
    failed = archived.cli_json("event", "list", "--state", "failed", "--workspace", "acme")
    assert 0 == worker.terminate()
    archived.environment["DISPATCHER_ARCHIVE_AFTER_SECONDS"] = "0"
    archived.start_worker().wait_ready()
    wait_retired(archived, *ids)
    for one in ids:
        found = archived.cli_json("event", "show", one, "--workspace", "acme")
        assert shown[one] | {"nextStep": found["nextStep"]} == found
    assert failed == archived.cli_json("event", "list", "--state", "failed", "--workspace", "acme")
    assert 3 == len(failed)
    exported = archived.cli("history", "--workspace", "acme").stdout.splitlines()
    assert sorted(ids) == sorted(json.loads(one)["eventId"] for one in exported)
    assert [shown[one["eventId"]]["attempts"] for one in map(json.loads, exported)] == [
        one["attempts"] for one in map(json.loads, exported)
    ]
    rows = list(
        csv.DictReader(archived.cli("history", "--state", "failed", "--format", "csv").stdout.splitlines())
    )
    assert [one["eventId"] for one in failed] == [one["eventId"] for one in rows]
    assert {("410", "http_410", "1")} == {(one["httpStatus"], one["error"], one["attempts"]) for one in rows}
    assert "ok" in finding(archived)
    again, other, _ = (one["eventId"] for one in failed)
    archived.answer = answer_ok
    assert 0 == archived.cli("event", "replay", again, "--workspace", "acme").returncode
    assert 0 == archived.cli("event", "replay", other, "--workspace", "acme", "--as-new").returncode
    wait_until(lambda: state(archived, again) == "delivered", what="a delivery of what only the archive had")
    bodies = [one.body for one in archived.received if one.event_id == again]
    assert [bodies[0]] * 2 == bodies
    assert 2 == len(archived.cli_json("event", "show", again, "--workspace", "acme")["attempts"])
    wait_retired(archived, again)
    told = [json.loads(one) for one in archived.cli("history").stdout.splitlines()]
    assert [("delivered", 2)] == [
        (one["state"], len(one["attempts"])) for one in told if one["eventId"] == again
    ]
    no_body = next(one for one in ids if shown[one]["state"] == "delivered")
    archived.redis.delete(f"dispatcher:body:acme:{no_body}")  # as DELIVERED_BODY_SECONDS later
    refused = archived.cli("event", "replay", no_body, "--workspace", "acme")
    assert (1, True) == (refused.returncode, "body" in refused.stderr), refused
    purged = archived.cli("purge", "ended", "--workspace", "acme", "--state", "failed", "--yes")
    assert "1 callback is removed from the ledger, 2 from the archive" in purged.stdout
    left = [
        json.loads(one)["state"] for one in archived.cli("history", "--workspace", "acme").stdout.splitlines()
    ]
    assert ["delivered"] * 5 == left
    assert "archive has its tables: version 3" in archived.cli("archive", "migrate").stdout


def finding(stack: Stack) -> str:
    """What `check` says of the archive."""
    lines = [one for one in stack.cli("check").stdout.splitlines() if one.startswith("archive")]
    assert 1 == len(lines), lines
    return lines[0]


def test_an_archive_that_is_away(stack: Stack) -> None:
    """Callbacks go on while it is away, `check` and the metrics say so, and once it is back it gets all that ended meanwhile."""
    folder = stack.folder / "not-there"
    with_archive(stack, f"sqlite:///{folder}/archive.db")
    stack.add_workspace("acme", "zeckta", f"{stack.listen()}/hooks")
    worker = stack.start_worker().wait_ready()
    ids = [stack.enqueue(first=number)[0] for number in range(5)]
    wait_until(lambda: len(stack.received) == 5, what="POSTs")
    wait_until(lambda: stack.redis.xlen("dispatcher:ended") == 5, what="ends")
    wait_until(lambda: worker.lines("archive.away"), what="a line in the log")
    assert 5 == stack.redis.xlen("dispatcher:ended")
    said = stack.cli("check")
    assert 1 == said.returncode
    assert "5 ended callbacks and" in " ".join(said.stdout.split())
    folder.mkdir()
    wait_until(lambda: stack.redis.xlen("dispatcher:ended") == 0, 60, "an empty backlog")
    wait_until(lambda: worker.lines("archive.back"), what="a line in the log")
    assert 1 == len(worker.lines("archive.away"))
    assert 1 == len(worker.lines("archive.back"))
    assert sorted(ids) == sorted(
        json.loads(one)["eventId"] for one in stack.cli("history").stdout.splitlines()
    )


def test_several_partitions(stack: Stack) -> None:
    """Each partition's owner takes what ended there."""
    with_archive(stack, f"sqlite:///{stack.folder}/archive.db")
    divide(stack, 4, ["w1", "w2", "w3", "w4", "w5"])
    for _ in range(2):
        stack.start_worker().wait_ready()
    names = [f"w{number % 5 + 1}" for number in range(40)]
    ids = [stack.enqueue(first=number, workspace=name)[0] for number, name in enumerate(names)]
    wait_until(lambda: len(stack.received) >= 40, what="POSTs")
    wait_until(lambda: len(stack.cli("history").stdout.splitlines()) == 40, what="an archive with all")
    wait_until(lambda: not stack.redis.keys("dispatcher:*event:*"), what="a Redis without entries")
    for one, name in zip(ids[:5], names, strict=False):
        assert "delivered" == stack.cli_json("event", "show", one, "--workspace", name)["state"]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://a/b", "an archive is sqlite:"),
        ("postgresql://user:hush@db", "an archive is sqlite:"),
        ("postgresql://user:hush@db:nowhere/callbacks", "an archive is sqlite:"),
        ("postgresql://user:hush@db:70000/callbacks", "an archive is sqlite:"),
        ("postgresql://user:hush%zz9@db/callbacks", "% as %25"),
        ("postgresql://user:hush%ff@db/callbacks", "% as %25"),
        ("postgresql://user:hu sh@db/callbacks", "holds a blank"),
        ("postgresql://user:x@hush@db/callbacks", "@ as %40"),
        ("postgresql://user:1/hush@db/callbacks", "@ as %40"),
        ("postgresql://user:1/2?hush@db/callbacks", "look at its options"),
        ("postgresql://user:x@db/callbacks?pasword=hush", "look at its options"),
        ("sqlite:///", "names no file"),
        ("sqlite:///archive.db", "with a fourth slash it is the whole path"),
    ],
)
def test_wrong_urls(stack: Stack, url: str, says: str) -> None:
    """They are refused in one line, without a password."""
    stack.environment["DISPATCHER_ARCHIVE_URL"] = url
    done = stack.cli("archive", "migrate")
    assert 0 != done.returncode
    assert says in done.stderr
    assert "hush" not in done.stderr
    assert 1 == len(done.stderr.splitlines())


def test_without_an_archive(stack: Stack) -> None:
    """Commands that need one say what to set."""
    for command in (("archive", "migrate"), ("history",)):
        done = stack.cli(*command)
        assert (2, True) == (done.returncode, "DISPATCHER_ARCHIVE_URL" in done.stderr), done


def test_a_database_that_has_not_every_character(stack: Stack, postgres_url: str) -> None:
    """`archive migrate` makes no tables in it, and `check` says what is wrong with it."""
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute("DROP DATABASE IF EXISTS latin")
        server.execute(
            "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
        with_archive(stack, postgres_url.replace("/postgres?", "/latin?"))
        done = stack.cli("archive", "migrate")
        assert (True, 1) == ("its encoding is LATIN1" in done.stderr, len(done.stderr.splitlines())), done
        assert 0 != done.returncode
        found = " ".join(stack.cli("check").stdout.split())
        assert "its encoding is LATIN1" in found
        server.execute("DROP DATABASE latin")


def test_a_newer_archive(stack: Stack) -> None:
    """An archive that a later version made is not written to: `check` says what to do, and callbacks go on."""
    path = stack.folder / "archive.db"
    stack.environment["DISPATCHER_ARCHIVE_URL"] = f"sqlite:///{path}"
    assert 0 == stack.cli("archive", "migrate").returncode
    with sqlite3.connect(path) as db:
        db.execute("UPDATE archive SET version = 99")
    stack.add_workspace("acme", "zeckta", f"{stack.listen()}/hooks")
    worker = stack.start_worker().wait_ready()
    [one] = stack.enqueue()
    wait_until(lambda: stack.state(one) == "delivered", what="an end")
    wait_until(lambda: "version 99" in str(worker.lines("archive.away")), what="a line in the log")
    assert "version 99" in stack.cli("check").stdout
    assert 1 == stack.redis.xlen("dispatcher:ended")


def pages(stack: Stack, *filters: str, limit: int = 3) -> list[str]:
    """The eventIds of `event list`, page by page; each page but the last is full and prints where the next one begins."""
    found: list[str] = []
    after: tuple[str, ...] = ()
    while True:
        done = stack.cli("event", "list", *filters, "--limit", str(limit), *after, "--json")
        assert 0 == done.returncode, done.stderr
        page = [one["eventId"] for one in json.loads(done.stdout)]
        found += page
        if not done.stderr:
            return found
        assert limit == len(page)
        assert done.stderr.startswith("there are more: --after ")
        after = ("--after", done.stderr.split()[-1])


def test_lists_by_pages(archived: Stack) -> None:
    """`event list` finds by each filter what the archive has, once, page by page."""

    async def answer(_: web.Request, number: int) -> web.Response:
        return web.Response(status=(200, 410, 404)[number % 3])

    archived.answer = answer
    url = archived.listen()
    archived.add_workspace("acme", "zeckta", f"{url}/hooks")
    archived.start_worker(DISPATCHER_MAX_ATTEMPTS="1").wait_ready()
    ids = [archived.enqueue(first=number)[0] for number in range(12)]
    wait_until(lambda: 12 == len(archived.cli("history").stdout.splitlines()), what="an archive with all")
    shown = [archived.event(one) for one in ids]
    in_order = sorted(shown, key=lambda one: (one["endedAt"], one["eventId"]), reverse=True)

    def expected(**fields: str) -> list[str]:
        return [one["eventId"] for one in in_order if fields.items() <= {**one, **last(one)}.items()]

    assert 12 == len(ids)
    assert expected() == pages(archived, "--state", "ended", limit=5)
    assert expected(state="failed") == pages(archived, "--state", "failed", "--workspace", "acme")
    assert expected(state="delivered") == pages(archived, "--state", "delivered")
    assert expected(error="http_404") == pages(archived, "--state", "ended", "--error", "http_404")
    narrow = ("--workspace", "acme", "--endpoint", url, "--subscription", "default")
    assert expected(state="failed") == pages(archived, "--state", "failed", *narrow, "--since", "1h", limit=4)
    assert [] == pages(archived, "--state", "ended", "--until", "1h")
    message = shown[0]["messageId"]
    assert [ids[0]] == pages(archived, "--message", message, "--state", "ended", *narrow)
    assert [] == pages(archived, "--message", message, "--error", "timeout")
    for filters in (("--state", "failed"), ("--error", "http_404"), ("--message", message)):
        wanted = sorted(expected(**{filters[0][2:].replace("message", "messageId"): filters[1]}))
        lines = archived.cli("history", *filters, *narrow[:4]).stdout.splitlines()
        assert wanted == sorted(json.loads(one)["eventId"] for one in lines)


def last(event: dict[str, Any]) -> dict[str, Any]:
    """The error of an event's last attempt."""
    return {"error": event["attempts"][-1]["error"]}


def test_cursors_that_are_none(stack: Stack) -> None:
    """A cursor that was changed, or is of another list, is refused in one line."""
    stack.add_workspace()
    for cursor in ("x", "-x", "AAAAAAAAWzEsImEiLCJlIl0"):
        done = stack.cli("event", "list", "--state", "failed", "--after", cursor)
        assert (2, 1) == (done.returncode, len(done.stderr.splitlines())), done.stderr
        assert "--after is not a cursor of this list" in done.stderr
    done = stack.cli("event", "list", "--state", "delivered")
    assert (2, True) == (done.returncode, "without an archive delivered events are not listed" in done.stderr)


def test_lists_while_the_archive_is_away(stack: Stack) -> None:
    """`event list` and `event show` show what Redis has, and say in one line that the archive is away; `history` fails."""
    stack.answer = lambda *_: gone()
    stack.add_workspace("acme", "zeckta", f"{stack.listen()}/hooks")
    stack.environment["DISPATCHER_ARCHIVE_URL"] = f"sqlite:///{stack.folder}/not-there/archive.db"
    stack.start_worker().wait_ready()
    [one] = stack.enqueue()
    stack.wait_ended([one])
    message = json.loads(stack.cli("event", "show", one, "--workspace", "acme", "--json").stdout)["messageId"]
    for command, is_missing in (
        (("event", "list", "--state", "failed"), True),
        (("event", "list", "--message", message), True),
        (("event", "list", "--state", "waiting"), False),
        (("event", "show", one, "--workspace", "acme"), False),
    ):
        done = stack.cli(*command)
        assert int(is_missing) == done.returncode, done
        assert "waiting" in command or one in done.stdout
        assert int(is_missing) == len(done.stderr.splitlines()), done.stderr
        if is_missing:
            assert done.stderr.startswith("warning: the archive ")
            assert done.stderr.endswith(": what only the archive has is missing above\n")
    unknown = stack.cli("event", "show", "nobody", "--workspace", "acme")
    assert (1, 2) == (unknown.returncode, len(unknown.stderr.splitlines()))
    failed = stack.cli("history")
    assert (1, 1, "") == (failed.returncode, len(failed.stderr.splitlines()), failed.stdout)
    assert failed.stderr.startswith("error: the archive ")


async def gone() -> web.Response:
    """The answer of a receiver that wants nothing more."""
    return web.Response(status=410, text="gone")


def test_parquet(stack: Stack) -> None:
    """`history --format parquet` has the rows of the CSV, with numbers and times; it is refused without its library, or to a terminal."""
    stack.answer = lambda *_: gone()
    stack.add_workspace("acme", "zeckta", f"{stack.listen()}/hooks")
    with_archive(stack, f"sqlite:///{stack.folder}/archive.db")
    stack.start_worker().wait_ready()
    stack.enqueue(5)
    wait_until(lambda: 5 == len(stack.cli("history").stdout.splitlines()), what="an archive with all")
    (stack.folder / "without").mkdir()
    (stack.folder / "without" / "pyarrow.py").write_text("raise ImportError")
    before = os.environ.get("PYTHONPATH", "")
    stack.environment["PYTHONPATH"] = f"{stack.folder}/without:{before}"
    refused = stack.cli("history", "--format", "parquet")
    assert (2, 1) == (refused.returncode, len(refused.stderr.splitlines())), refused
    assert "needs the extra `parquet`" in refused.stderr

    pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    stack.environment["PYTHONPATH"] = before
    path = stack.folder / "history.parquet"
    with path.open("wb") as file:
        command = [*CLI, "history", "--format", "parquet"]
        subprocess.run(
            command, cwd=stack.folder, env=stack.environment, stdout=file, stderr=subprocess.PIPE, check=True
        )
    importlib.import_module("pyarrow.parquet")
    found = pyarrow.parquet.read_table(path).to_pylist()
    rows = list(csv.DictReader(stack.cli("history", "--format", "csv").stdout.splitlines()))
    assert 5 == len(found)
    assert [one["eventId"] for one in rows] == [one["eventId"] for one in found]
    assert {(410, 1, "http_410")} == {(one["httpStatus"], one["attempts"], one["error"]) for one in found}
    assert [datetime.fromisoformat(one["endedAt"]) for one in rows] == [one["endedAt"] for one in found]


def test_an_archive_with_older_tables(stack: Stack) -> None:
    """Until its tables are of this version `check` warns; workers bring them up to date."""
    path = stack.folder / "archive.db"
    with sqlite3.connect(path) as db:
        db.executescript((DATA / "sqlite_version_1.sql").read_text())
    db.close()
    with_archive(stack, f"sqlite:///{path}")

    def found() -> tuple[str, str]:
        [one] = [
            one for one in json.loads(stack.cli("check", "--json").stdout) if one["subject"] == "archive"
        ]
        return one["verdict"], one["detail"]

    verdict, detail = found()
    assert ("warning", True) == (verdict, detail.startswith("its tables have version 1, and")), detail
    stack.add_workspace("acme", "zeckta", f"{stack.listen()}/hooks")
    stack.start_worker().wait_ready()
    wait_until(lambda: found()[0] == "ok", what="tables of this version")
