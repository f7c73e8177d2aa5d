"""An operator at work: what is stuck, why, and sending it once more. All by the command line, on real parts."""

import json
import os
import re
import shlex
import subprocess
from threading import Timer
from typing import Any

import pytest
from aiohttp import web

from tests.acceptance.stack import CLI, Stack, wait_until

TWO_ATTEMPTS = {"DISPATCHER_MAX_ATTEMPTS": "2"}


def answering(status: int) -> Any:
    """A receiver that answers so."""

    async def answer(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=status, text="database is gone" if status >= 400 else "ok")

    return answer


@pytest.fixture
def failed(stack: Stack) -> list[str]:
    """EventIds of three callbacks that were given up."""
    stack.answer = answering(503)
    stack.add_workspace()
    stack.start_worker(**TWO_ATTEMPTS).wait_ready()
    event_ids = stack.enqueue(3)
    assert {"failed": 3} == stack.wait_ended(event_ids)
    return event_ids


def test_what_failed_and_why(stack: Stack, failed: list[str]) -> None:
    """What was given up is listed by state, workspace, error and time; each says why, and what to do."""
    listed = stack.cli_json(
        "event", "list", "--state", "failed", "--workspace", "acme", "--error", "http_503"
    )
    assert set(failed) == {event["eventId"] for event in listed}
    assert [] == stack.cli_json("event", "list", "--state", "failed", "--error", "timeout")
    assert [] == stack.cli_json("event", "list", "--state", "failed", "--until", "1h")
    assert 1 == len(stack.cli_json("event", "list", "--state", "failed", "--limit", "1", "--offset", "2"))
    event = stack.event(failed[0])
    assert ("database is gone", 2) == (event["lastAnswer"], len(event["attempts"]))
    assert "its attempts are used up" in event["nextStep"]
    assert f"dispatcher event replay {failed[0]} --workspace acme" in event["nextStep"]
    shown = stack.cli("event", "show", failed[0], "--workspace", "acme").stdout
    assert all(word in shown for word in ("accepted", "attempt 2", "http_503", "Next: "))
    (log,) = wait_until(
        lambda: [line for line in stack.workers[0].lines("callback.ended") if line["event_id"] == failed[0]]
    )
    assert ("failed", "http_503", 503) == (log["state"], log["error"], log["http_status"])


def test_replay(stack: Stack, failed: list[str]) -> None:
    """Many are counted first, then sent once more with the same eventId; a copy has one of its own."""
    stack.answer = answering(200)
    before = len(stack.received)
    many = ("event", "replay", "--state", "failed", "--workspace", "acme")
    counted = stack.cli_json(*many)
    assert (3, False) == (counted["events"], counted["done"])
    assert before == len(stack.received)
    done = stack.cli_json(*many, "--rate", "100", "--yes")
    assert {"replayed": 3} == done["results"]
    assert {"delivered": 3} == stack.wait_ended(failed)
    assert set(failed) == {received.event_id for received in stack.received[before:]}
    assert 0 == stack.cli_json(*many)["events"]
    copy = stack.cli_json("event", "replay", failed[0], "--workspace", "acme", "--as-new")
    assert failed[0] == copy["replayOf"]
    assert {"delivered": 1} == stack.wait_ended([copy["eventId"]])
    assert all(received.problem is None for received in stack.received[before:])
    again = stack.cli("event", "replay", "unknown", "--workspace", "acme")
    assert (1, 1) == (again.returncode, len(again.stderr.splitlines()))


def test_requeue(stack: Stack) -> None:
    """What was rejected for want of a workspace goes back on the queue once that is there."""
    stack.start_worker().wait_ready()
    event_ids = stack.enqueue(2)
    wait_until(lambda: len(stack.cli_json("rejected", "list")) == 2)
    stack.add_workspace()
    (entry, _) = stack.cli_json("rejected", "list", "--reason", "unknown_workspace")
    shown = stack.cli_json("rejected", "show", entry["entry"])
    assert json.loads(shown["raw"])["workspace"] == "acme"
    many = ("rejected", "requeue", "--reason", "unknown_workspace")
    assert {"entries": 2, "requeued": 0, "left": 0} == stack.cli_json(*many)
    assert {"entries": 2, "requeued": 2, "left": 0} == stack.cli_json(*many, "--yes")
    assert {"delivered": 2} == stack.wait_ended(event_ids)
    assert [] == stack.cli_json("rejected", "list")


def test_ping(stack: Stack) -> None:
    """A signed test callback from here: what came back, in the exit code too; it is not in the ledger."""
    stack.add_workspace()
    taken = stack.cli_json("workspace", "ping", "acme")
    assert (True, 200) == (taken["taken"], taken["httpStatus"])
    (received,) = stack.received
    assert (None, taken["eventId"]) == (received.problem, received.event_id)
    assert 1 == stack.cli("event", "show", taken["eventId"], "--workspace", "acme").returncode
    stack.answer = answering(500)
    refused = stack.cli("workspace", "ping", "acme", "--json")
    assert (1, "database is gone") == (refused.returncode, json.loads(refused.stdout)["answer"])
    stack.environment["DISPATCHER_ALLOWED_NETWORKS"] = ""
    blocked = stack.cli("workspace", "ping", "acme", "--json")
    assert (1, "blocked_address") == (blocked.returncode, json.loads(blocked.stdout)["error"])


def test_tail(stack: Stack) -> None:
    """Attempts are seen as they are made, and only those asked for: all once it says that it watches."""
    stack.add_workspace()
    stack.start_worker(DISPATCHER_WAKE_SECONDS="2").wait_ready()
    stack.wait_ended(stack.enqueue(1, first=1))
    with subprocess.Popen(
        [*CLI, "tail", "--json", "--workspace", "acme"],
        cwd=stack.folder,
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as tail:
        assert tail.stdout
        assert tail.stderr
        late = Timer(60, tail.kill)
        late.start()
        assert any("watching" in line for line in tail.stderr)
        (event_id,) = stack.enqueue(1)
        attempt = json.loads(tail.stdout.readline())
        late.cancel()
        tail.terminate()
    assert (event_id, "delivered", 200, 1) == tuple(
        attempt[name] for name in ("eventId", "outcome", "httpStatus", "attempt")
    )


def test_stats(stack: Stack, failed: list[str]) -> None:
    """What was accepted and what became of it, of all, of each workspace and endpoint."""
    stack.answer = answering(200)
    assert {"delivered": 2} == stack.wait_ended(stack.enqueue(2, first=10))
    found = stack.cli_json("stats")
    day = found["windows"]["24 h"]
    assert (5, 2, 3, 0.4) == tuple(day[name] for name in ("accepted", "delivered", "failed", "successRate"))
    assert day["latencyMs"]["p95"] > 0
    assert (0, 0) == (found["now"]["waiting"], found["now"]["queued"])
    (workspace,) = stack.cli_json("stats", "--by", "workspace")
    assert ("acme", 2, 3) == (workspace["workspace"], workspace["delivered"], workspace["failed"])
    (endpoint,) = stack.cli_json("stats", "--by", "endpoint", "--workspace", "acme")
    assert (2, 3) == (endpoint["delivered"], endpoint["failed"])
    assert "success rate" in stack.cli("stats").stdout
    table = stack.cli("stats", "--by", "workspace").stdout
    assert "40.00%" in table
    assert re.search(r"\d (ms|s)\b", table), table


def test_a_customer_that_moved(stack: Stack) -> None:
    """What waits for the old URL is counted, and goes to the new one by the command that is named, in order.

    What was sent to a URL of its own stays there.
    """
    old, own, new = (f"{stack.listen()}/{name}" for name in ("old", "own", "new"))
    stack.add_workspace("acme", "zeckta", old)
    stack.start_worker().wait_ready()
    assert {"delivered": 2} == stack.wait_ended(stack.enqueue(1) + stack.enqueue(1, first=1, callbackUrl=own))
    for url in (old, own):
        assert 0 == stack.cli("endpoint", "stop", "acme", url).returncode
    changes = [stack.enqueue(1, first=2, status=status)[0] for status in ("SUBMITTED", "SENT", "DELIVERED")]
    (apart,) = stack.enqueue(1, first=3, callbackUrl=own)
    wait_until(lambda: stack.cli_json("workspace", "show", "acme")["waiting"] == 4)
    said = stack.cli("workspace", "update", "acme", "--callback-url", new).stderr
    assert (
        f"3 callbacks wait for the server of the previous URL, {old}, and not for the new one; to move "
        in said
    )
    moved = stack.cli(*shlex.split(said.partition("very URL: dispatcher ")[2]))
    assert "3 waiting callbacks go to the new URL; 1 stays: being sent, " in moved.stdout
    assert {"delivered": 3} == stack.wait_ended(changes)
    arrived = [received for received in stack.received if received.event_id in changes]
    assert changes == [received.event_id for received in arrived]
    assert {new.rpartition(":")[2].partition("/")[0]} == {str(received.port) for received in arrived}
    assert "pending" == stack.state(apart)


def test_purge(stack: Stack) -> None:
    """What waits can be ended, and what has ended removed; without a yes nothing is."""
    url = stack.add_workspace()
    stack.start_worker().wait_ready()
    assert {"delivered": 1} == stack.wait_ended(stack.enqueue(1))
    assert 0 == stack.cli("endpoint", "stop", "acme", url).returncode
    event_ids = stack.enqueue(4, first=1)
    wait_until(lambda: stack.cli_json("endpoint", "show", "acme", url)["waiting"] == 4)
    assert 4 == len(
        stack.cli_json("event", "list", "--state", "waiting", "--workspace", "acme", "--endpoint", url)
    )
    assert "the operator stopped" in stack.event(event_ids[0])["nextStep"]
    assert 2 == stack.cli("purge", "waiting", "--workspace", "acme").returncode
    assert 0 == stack.cli("purge", "waiting", "--workspace", "acme", "--yes").returncode
    assert {"failed": 4} == stack.wait_ended(event_ids)
    assert True is stack.event(event_ids[0])["cancelled"]
    assert 0 == stack.cli("purge", "ended", "--workspace", "acme", "--state", "failed", "--yes").returncode
    assert 1 == stack.cli("event", "show", event_ids[0], "--workspace", "acme").returncode


def test_logs_tell_the_story_of_a_callback(stack: Stack) -> None:
    """By its eventId the log has each attempt, in order, and how it ended."""
    stack.answer = answering(503)
    stack.add_workspace()
    stack.start_worker(**TWO_ATTEMPTS).wait_ready()
    (event_id,) = stack.enqueue(1)
    stack.wait_ended([event_id])
    wait_until(lambda: stack.workers[0].lines("callback.ended"))
    lines = [json.loads(line) for line in stack.workers[0].log.splitlines() if event_id in line]
    story = [(line["event"], line.get("attempt"), line.get("outcome", line.get("state"))) for line in lines]
    expected = [
        ("callback.attempted", "1/2", "retry"),
        ("callback.attempted", "2/2", "failed"),
        ("callback.ended", None, "failed"),
    ]
    assert expected == story


def test_wrong_usage(stack: Stack) -> None:
    """What cannot be is one line and exit code 2; nothing is done."""
    stack.add_workspace()
    for args, says in (
        (("event", "list"), "--message or --state"),
        (("event", "list", "--state", "lost"), "a state is one of"),
        (("event", "list", "--state", "failed", "--since", "yesterday"), "is no time"),
        (("event", "list", "--state", "failed", "--endpoint", "https://a.example"), "needs --workspace"),
        (("event", "replay"), "say an eventId, or --state"),
        (("event", "replay", "e1"), "say --workspace"),
        (("rejected", "requeue"), "say an entry"),
        (("stats", "--by", "day"), "--by is"),
        (("event", "list", "--state", "failed", "--since", "6h", "--until", "7h"), "nothing can be between"),
        (("event", "list", "--state", "failed", "--error", "http_5xx"), "an error is http_404"),
        (("event", "replay", "--state", "failed", "--error", "htp_404"), "an error is http_404"),
        (("rejected", "list", "--reason", "unknwon_workspace"), "a reason is one of"),
        (("rejected", "requeue", "--reason", "unknwon_workspace"), "a reason is one of"),
        (("purge", "rejected", "--reason", "unknwon_workspace"), "a reason is one of"),
        (("workspace", "add", "b", "--dialect", "qlara", "--callback-url", ""), "it is empty"),
        (("purge", "waiting", "--workspace", "acme", "--endpoint", "", "--yes"), "'--endpoint': it is empty"),
        (("event", "replay", "--state", "failed", "--workspace", "", "--yes"), "'--workspace': it is empty"),
        (("endpoint", "retry", "acme", "", "--yes"), "it is empty"),
        (("erase", "message", "acme", "", "--yes"), "it is empty"),
        (("workspace", "rotate-secret", "acme", "--grace-seconds", "2592001"), "2592000"),
        (("subscription", "rotate-secret", "acme", "crm", "--grace-seconds", "2592001"), "2592000"),
        (("purge", "ended", "--workspace", "acme"), "--state or --message"),
        (("stats", "--limit", "3"), "--limit goes with --by"),
        (
            ("event", "show", os.fsdecode(b"\xff"), "--workspace", "acme"),
            "argument 3 is not UTF-8: '\\udcff'",
        ),
        (("event", "list", "--state", "failed", "--until", "1960-01-01"), "is before 1970"),
    ):
        done = stack.cli(*args)
        assert (2, 1) == (done.returncode, len(done.stderr.splitlines())), args
        assert says in done.stderr
    assert 1 == stack.cli("event", "list", "--state", "failed", "--workspace", "nobody").returncode
    shown = stack.cli("event", "show", "evt_1", "--workspace", "nobody")
    assert (1, True) == (shown.returncode, "there is no workspace 'nobody'" in shown.stderr)
    assert "has no event evt_none" in stack.cli("event", "show", "evt_none", "--workspace", "acme").stderr


def test_names_that_nothing_has(stack: Stack) -> None:
    """A filter that names no workspace or no endpoint says so; what a removed workspace left can still be listed."""
    url = stack.add_workspace()
    stack.start_worker().wait_ready()
    stack.wait_ended(stack.enqueue())
    other, mine = "http://127.0.0.1:9", url.removesuffix("/hooks")
    acme = ("--workspace", "acme", "--endpoint", other)
    for args in (
        ("event", "list", "--state", "failed", *acme),
        ("event", "list", "--state", "waiting", *acme),
        ("event", "replay", "--state", "failed", *acme),
        ("purge", "waiting", *acme),
        ("workspace", "update", "acme", "--callback-url", url, "--move-waiting", "--move-from", other),
    ):
        done = stack.cli(*args)
        expected = f"workspace acme has no endpoint {other}; it has {mine}"
        assert (1, True) == (done.returncode, expected in done.stderr), (args, done)
    for args in (
        ("event", "list", "--message", "m0", "--workspace", "acmee"),
        ("event", "replay", "evt_1", "--workspace", "acmee"),
    ):
        done = stack.cli(*args)
        assert (1, True) == (done.returncode, "did you mean acme?" in done.stderr), args
    assert "it was never accepted" in stack.cli("event", "replay", "evt_1", "--workspace", "acme").stderr
    stack.enqueue(workspace="gone", eventId="of-gone")
    wait_until(lambda: stack.redis.xlen("dispatcher:rejected"))
    for args, shown in (
        (("audit", "list", "--workspace", "acmee"), "nothing was changed of workspace acmee"),
        (("rejected", "list", "--workspace", "gone"), "of-gone"),
        (("rejected", "requeue", "--workspace", "gone"), "1 entry"),
    ):
        done = stack.cli(*args)
        assert (0, True) == (done.returncode, "note: there is no workspace" in done.stderr), (args, done)
        assert shown in done.stdout


def test_a_replay_to_a_stopped_endpoint(stack: Stack) -> None:
    """It says that nothing is sent until the endpoint is resumed; what is due is said to be due, not next."""
    stack.answer = answering(410)
    url = stack.add_workspace()
    stack.start_worker().wait_ready()
    first, second = stack.enqueue(2)
    stack.wait_ended([first, second])
    stack.cli("endpoint", "stop", "acme", url)
    one = stack.cli("event", "replay", first, "--workspace", "acme").stdout
    resume = f"`dispatcher endpoint resume acme {url.removesuffix('/hooks')}`"
    assert "it waits: its endpoint is stopped by the operator since" in one
    assert resume in one
    assert resume in stack.cli("event", "replay", "--state", "failed", "--yes").stdout
    wait_until(lambda: "due since" in stack.cli("event", "list", "--state", "waiting").stdout)
    shown = stack.cli("event", "show", first, "--workspace", "acme").stdout
    assert ("dueSince" in shown, "nextAttemptAt" in shown) == (True, False)
