"""What has ended goes to the archive, which answers for what Redis has forgotten; real workers, SQLite and PostgreSQL."""

import csv
import itertools
import json
import sqlite3

import pytest
from aiohttp import web

from tasks.receiver import answer_ok
from tests.acceptance.divided import divide
from tests.acceptance.stack import Stack, wait_until


@pytest.fixture(params=["sqlite", "postgres"])
def archived(request: pytest.FixtureRequest, stack: Stack) -> Stack:
    """A stack with an archive of each kind, which is empty."""
    if request.param == "sqlite":
        url = f"sqlite:///{stack.folder}/archive.db"
    else:
        url = request.getfixturevalue("postgres_url")
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
    assert 0 == stack.redis.xlen("dispatcher:ended")


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
    assert "archive has its tables: version 2" in archived.cli("archive", "migrate").stdout


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
    assert "5 ended callbacks have not gone there yet" in " ".join(said.stdout.split())
    folder.mkdir()
    wait_until(lambda: stack.redis.xlen("dispatcher:ended") == 0, 60, "an empty backlog")
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
        ("sqlite:///", "names no file"),
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
