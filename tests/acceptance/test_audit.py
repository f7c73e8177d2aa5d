"""The trail of an operator's commands, and what is told of refused calls; all by the command line, on real parts."""

import getpass
import json
import socket

import redis
from cryptography.fernet import Fernet

from dispatcher.store.connection import connect
from dispatcher.store.keys import Keys
from tests.acceptance.stack import Stack, wait_until


def done(stack: Stack, *args: str) -> dict[str, object] | None:
    """Runs a command that must succeed; the line of its change in the log, where it made one."""
    ran = stack.cli(*args)
    assert 0 == ran.returncode, ran.stderr
    lines = [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("{")]
    audited = [line for line in lines if line["event"] == "audit"]
    return audited[0] if audited else None


def trail(stack: Stack, *args: str) -> list[dict[str, object]]:
    """The changes, the oldest first."""
    found: list[dict[str, object]] = stack.cli_json("audit", "list", *args)
    return found[::-1]


def test_workspaces_and_keys(stack: Stack) -> None:
    """Each change of a workspace or a key is logged and in the trail, with its user and host, and without a secret."""
    stack.environment["DISPATCHER_SECRET_KEYS"] = Fernet.generate_key().decode()
    url = stack.add_workspace(
        "acme", "qlara", f"{stack.listen()}/x?token=hush-1", "--header", "X-Key: hush-2"
    )
    assert done(stack, "workspace", "update", "acme", "--max-concurrency", "7", "--header", "X-Key: hush-3")
    same = stack.cli("workspace", "update", "acme", "--max-concurrency", "7", "--callback-url", url)
    assert "workspace acme was like that already" in same.stdout
    assert "audit" not in same.stderr
    line = done(stack, "workspace", "rotate-secret", "acme")
    assert line
    assert ("workspace.rotate_secret", "acme") == (line["what"], line["workspace"])
    done(stack, "workspace", "rotate-encryption")
    made = stack.cli_json("workspace", "api-key", "add", "acme", "--read-only", "--name", "wall")
    done(stack, "workspace", "api-key", "revoke", "acme", made["key"])
    backend = stack.cli_json("producer-key", "add", "billing")
    done(stack, "producer-key", "revoke", backend["key"])
    done(stack, "workspace", "remove", "acme")
    changes = trail(stack)
    assert [
        "workspace.add", "workspace.update", "workspace.rotate_secret", "workspace.rotate_encryption",
        "api_key.add", "api_key.revoke", "producer_key.add", "producer_key.revoke", "workspace.remove",
    ] == [one["what"] for one in changes]  # fmt: skip
    assert {("command", f"@{socket.gethostname()}")} == {
        (one["via"], "@" + str(one["who"]).rpartition("@")[2]) for one in changes
    }
    assert str(changes[0]["who"]).startswith((getpass.getuser(), f"{getpass.getuser()} as "))
    assert {"maxConcurrency": 7, "headersChanged": ["X-Key"]} == changes[1]["to"]
    assert {"maxConcurrency": None} == changes[1]["from"]
    assert {"readOnly": True, "name": "wall"}.items() <= changes[4]["to"].items()  # type: ignore[attr-defined]
    assert changes[4]["to"] == changes[5]["from"]
    assert ["producer_key.add"] == [one["what"] for one in trail(stack) if one["workspace"] is None][1:2]
    assert 6 == len(trail(stack, "--workspace", "acme"))
    text = json.dumps(changes) + stack.cli("audit", "list").stdout
    secrets = (
        "hush",
        stack.secrets["acme"],
        made["apiKey"].partition(".")[2],
        backend["apiKey"].partition(".")[2],
    )
    assert [] == [secret for secret in secrets if secret in text]


def test_callbacks_and_endpoints(stack: Stack) -> None:
    """So is what is stopped, sent again, moved, ended, removed and put back, with how many it was."""
    old, new = (f"{stack.listen()}/{name}" for name in ("old", "new"))
    stack.add_workspace("acme", "zeckta", old)
    stack.start_worker().wait_ready()
    (delivered,) = stack.enqueue(1)
    assert {"delivered": 1} == stack.wait_ended([delivered])
    done(stack, "event", "replay", delivered, "--workspace", "acme")
    assert {"delivered": 1} == stack.wait_ended([delivered])
    done(stack, "endpoint", "stop", "acme", old)
    waiting = stack.enqueue(3, first=1)
    wait_until(lambda: stack.cli_json("workspace", "show", "acme")["waiting"] == 3)
    done(stack, "purge", "waiting", "--workspace", "acme", "--yes")
    assert {"failed": 3} == stack.wait_ended(waiting)
    replay = ("event", "replay", "--state", "failed", "--workspace", "acme")
    assert None is done(stack, *replay)  # it only counts
    done(stack, *replay, "--rate", "1000", "--yes")
    done(stack, "workspace", "update", "acme", "--callback-url", new, "--move-waiting")
    assert {"delivered": 3} == stack.wait_ended(waiting)
    done(stack, "endpoint", "resume", "acme", old)
    done(stack, "purge", "ended", "--workspace", "acme", "--message", "m1", "--yes")
    stack.redis.xadd("dispatcher:events", {"event": b"{"})
    wait_until(lambda: len(stack.cli_json("rejected", "list")) == 1)
    done(stack, "rejected", "requeue", "--reason", "invalid", "--yes")
    wait_until(lambda: len(stack.cli_json("rejected", "list")) == 1)
    done(stack, "purge", "rejected", "--yes")
    endpoint = {"endpoint": old.removesuffix("/old")}
    moved = {"from": old, "to": new, "moved": 3}
    assert [
        ("event.replay", {"eventId": delivered}),
        ("endpoint.stop", endpoint),
        ("callbacks.cancel", {"cancelled": 3}),
        ("event.replay", {"state": "failed", "replayed": 3}),
        ("workspace.update", {"callbackUrl": new}),
        ("callbacks.move", moved),
        ("endpoint.resume", endpoint),
        ("callbacks.forget", {"message": "m1", "forgotten": 1}),
        ("rejected.requeue", {"reason": "invalid", "requeued": 1}),
        ("rejected.purge", {"reason": None, "removed": 1}),
    ] == [(one["what"], one["to"]) for one in trail(stack)[1:]]


def test_trail_that_cannot_be_written(stack: Stack) -> None:
    """The change is made, and the log says what it was and that the trail lacks it."""
    stack.redis.set("dispatcher:audit", "no stream")
    ran = stack.cli("workspace", "add", "acme", "--dialect", "zeckta")
    lines = [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("{")]
    told = [line["event"] for line in lines if line["event"].startswith("audit")]
    assert (0, ["audit.unwritten", "audit"]) == (ran.returncode, told)
    assert ["acme"] == [one["workspace"] for one in stack.cli_json("workspace", "list")]


def test_refused_calls_are_shown(stack: Stack) -> None:
    """`stats` shows them by reason, a workspace's keys how often each was refused."""
    stack.add_workspace()
    key = stack.cli_json("workspace", "api-key", "add", "acme")["key"]
    with connect(stack.server.url) as client:
        count_refusals(client, f"rate {key}", 7)
        count_refusals(client, "wrong ", 2)
    found = stack.cli_json("stats")["apiRefused"]
    assert {"rate": 7, "wrong": 2} == found["24 h"] == found["7 d"]
    assert "API calls refused: rate" in stack.cli("stats").stdout
    (listed,) = stack.cli_json("workspace", "api-key", "list", "acme")
    assert (False, 7) == (listed["readOnly"], listed["refusedIn24Hours"])
    assert "refused in 24 h" in stack.cli("workspace", "api-key", "list", "acme").stdout


def count_refusals(client: "redis.Redis", field: str, count: int) -> None:
    """As an API process does."""
    hour = int(client.time()[0]) // 3600  # type: ignore[index]
    client.hincrby(Keys().api_refusals(hour), field, count)
