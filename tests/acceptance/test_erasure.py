"""A person's data is erased by the command line, beside a real worker, in SQLite and in PostgreSQL."""

import json

import psycopg
import pytest
from aiohttp import web

from tests.acceptance.stack import Stack, change, wait_until
from tests.acceptance.test_archive import with_archive

NUMBER, OTHER = "+233209990001", "+233209990002"


@pytest.fixture(params=["sqlite", "postgres"])
def archived(request: pytest.FixtureRequest, stack: Stack) -> Stack:
    """A stack with an archive of each kind, and a customer whose callbacks are delivered, or answered 410."""
    url = f"sqlite:///{stack.folder}/archive.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        with psycopg.connect(url, autocommit=True) as connection:  # what was erased before would not go there
            connection.execute("DROP SCHEMA IF EXISTS dispatcher CASCADE")
    with_archive(stack, url)
    assert 0 == stack.cli("archive", "migrate").returncode

    async def answer(request: web.Request, _: int) -> web.Response:
        event = str(request.headers)
        text = NUMBER if "a-failed" in event else "gone"
        return web.Response(status=410 if "failed" in event else 200, text=text)

    stack.answer = answer
    stack.add_workspace("acme", "namirial", f"{stack.listen()}/hooks")
    return stack


def enqueue(stack: Stack, number: str, uuid: str, status: str, event_id: str, text: str = "") -> None:
    """Enqueues one status change."""
    message = {"uuid": uuid, "src": "ACME", "dest": number} | ({"network": text} if text else {})
    stack.enqueue(status=status, eventId=event_id, message=message)


@pytest.mark.parametrize("retired", [False, True])
def test_erase_phone(archived: Stack, retired: bool) -> None:
    """All about one number is gone, its events are known and are not sent again, and another number's are as they were.

    Also where the callbacks are in the archive alone.
    """
    archived.environment["DISPATCHER_ARCHIVE_AFTER_SECONDS"] = "0" if retired else "300"
    archived.start_worker().wait_ready()
    for number, name in ((NUMBER, "a"), (OTHER, "b")):
        for status in ("SENT", "FAILED"):
            enqueue(archived, number, f"message-{name}", status, f"{name}-{status.lower()}")
    ids = [f"{name}-{status}" for name in "ab" for status in ("sent", "failed")]

    def state(event_id: str) -> str:
        return str(archived.event(event_id)["state"])

    wait_until(lambda: all(state(one) in ("delivered", "failed") for one in ids), what="ends")
    archived.redis.xadd("dispatcher:events", {"event": json.dumps(change(1))[:-30] + NUMBER})
    wait_until(lambda: archived.redis.xlen("dispatcher:rejected") == 1, what="a rejected entry")
    if retired:
        for key in ("dispatcher:event:*", "dispatcher:status:*"):
            wait_until(lambda: not archived.redis.keys(key), what="a Redis that has retired them")  # noqa: B023
    command = ("erase", "phone", "acme", NUMBER)
    in_redis, in_archive = (0, 2) if retired else (2, 0)
    counts = {
        "queued": 0,
        "callbacks": in_redis,
        "waiting": 0,
        "archived": in_archive,
        "messages": int(not retired),
        "archivedMessages": int(retired),
        "rejected": 1,
    }
    found = archived.cli_json(*command, "--dry-run")
    assert {"workspace": "acme", "found": counts, "beingSent": 0} == found
    refused = archived.cli(*command)
    assert (2, True) == (refused.returncode, "confirm with --yes" in refused.stderr), refused
    refused = archived.cli(*command, "--json")
    assert (2, True) == (refused.returncode, "--json needs" in refused.stderr), refused
    assert {"workspace": "acme", "erased": counts, "beingSent": 0} == archived.cli_json(*command, "--yes")

    show = ("event", "show", "a-sent", "--workspace", "acme")
    for shown in (archived.cli(*show), archived.cli(*show, "--json")):
        assert (1, "") == (shown.returncode, shown.stdout), shown
        assert (
            shown.stderr == "error: event a-sent of workspace acme was erased: nothing else is known of it\n"
        )
    assert "failed" == state("b-failed")
    told = [json.loads(one)["eventId"] for one in archived.cli("history").stdout.splitlines()]
    assert (["b-failed", "b-sent"] if retired else []) == sorted(told)
    assert 1 == archived.cli("event", "replay", "a-failed", "--workspace", "acme").returncode
    [entry] = [one for one in archived.cli_json("audit", "list") if one["what"].startswith("erase")]
    written = counts | {"sending": 0, "archived_messages": counts["archivedMessages"]}
    del written["archivedMessages"]
    assert ("erase.phone", written) == (entry["what"], entry["to"])
    said = archived.cli("check").stdout
    assert "nothing had to be repaired" in said, said

    sent = len(archived.received)
    enqueue(archived, NUMBER, "message-a", "SENT", "a-sent", "another")
    enqueue(archived, OTHER, "message-b", "DELIVERED", "b-last")
    wait_until(lambda: sent + 1 == len(archived.received), what="a later callback")
    wait_until(lambda: archived.redis.xlen("dispatcher:events") == 0, what="an empty queue")
    assert sent + 1 == len(archived.received)
    assert [] == archived.redis.keys("dispatcher:body:acme:a-*")  # a dump may be compressed
    dump = [(key, archived.redis.dump(key)) for key in archived.redis.keys("*") if b"audit" not in key]
    assert [] == [key for key, value in dump if NUMBER.encode() in key + (value or b"")]
    assert [] == [key for key, value in dump if b"message-a" in key + (value or b"")]
    nothing = archived.cli(*command)
    assert (0, True) == (nothing.returncode, "nothing to" in nothing.stdout), nothing


@pytest.mark.parametrize("retired", [False, True])
def test_an_erased_event_is_said_to_be_erased(archived: Stack, retired: bool) -> None:
    """`event show` says so in one line, whether Redis or the archive alone knows it, also of a workspace that was removed since."""
    archived.environment["DISPATCHER_ARCHIVE_AFTER_SECONDS"] = "0" if retired else "300"
    assert 0 == archived.cli("archive", "migrate").returncode
    archived.start_worker().wait_ready()
    enqueue(archived, NUMBER, "message-a", "FAILED", "a-failed")

    def has_ended() -> bool:
        if retired:
            return bool(archived.cli("history").stdout) and not archived.redis.keys("dispatcher:event:*")
        return archived.state("a-failed") == "failed"

    wait_until(has_ended, what="its end")
    assert 0 == archived.cli("erase", "message", "acme", "message-a", "--yes").returncode
    show = ("event", "show", "a-failed", "--workspace", "acme")
    said = "error: event a-failed of workspace acme was erased: nothing else is known of it\n"
    for options in ((), ("--json",)):
        shown = archived.cli(*show, *options)
        assert (1, "", said) == (shown.returncode, shown.stdout, shown.stderr)
    other = archived.cli("event", "show", "a-sent", "--workspace", "acme")
    assert (1, True) == (other.returncode, "never accepted" in other.stderr)
    assert 0 == archived.cli("workspace", "remove", "acme").returncode
    assert said == archived.cli(*show).stderr


def test_erase_workspace(archived: Stack) -> None:
    """All of a workspace is gone, with what waits; another workspace's stays, and an unknown name is said to be one."""
    archived.start_worker().wait_ready()
    archived.add_workspace("bluefin", "zeckta", archived.refusing_url())
    archived.add_workspace("crest", "zeckta", archived.refusing_url())
    for name in ("bluefin", "crest"):
        archived.enqueue(3, workspace=name)
    listed = ("event", "list", "--state", "waiting")
    wait_until(lambda: 6 == len(archived.cli_json(*listed)), what="callbacks that wait")
    archived.workers[0].terminate()
    done = archived.cli("erase", "workspace", "bluefin", "--yes")
    assert 0 == done.returncode, done
    assert "erased" in done.stdout
    waiting = archived.cli_json(*listed)
    assert {"crest"} == {one["workspace"] for one in waiting}
    assert [] == archived.redis.keys("dispatcher:status:bluefin:*")
    assert 3 == len(archived.redis.keys("dispatcher:status:crest:*"))
    unknown = archived.cli("erase", "workspace", "blufin", "--yes")
    assert (1, True) == (unknown.returncode, "blufin" in unknown.stderr), unknown
