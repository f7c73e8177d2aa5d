"""What anybody who can write to the broker may send to the workers."""

import base64
import copy
import json
import subprocess
import sys
from typing import Any

import pytest

from tasks.hint_message import NotAHint, make_message, read_hint
from tests.acceptance.stack import Stack, wait_until

QUEUE = "dispatcher:celery:dispatcher"
UNKNOWN = "A" * 12
GOOD = make_message([UNKNOWN], "")
CONTROL = (sys.executable, "-m", "celery", "-A", "tasks", "control", "--timeout", "2")


def changed(part: str = "", **fields: Any) -> bytes:
    """A hint with fields of one of its parts changed."""
    message = copy.deepcopy(GOOD)
    (message[part] if part else message).update(fields)
    return json.dumps(message).encode()


def calling(*body: Any) -> bytes:
    """A hint with another body: arguments, keywords, embedded."""
    return changed(body=base64.b64encode(json.dumps(body).encode()).decode())


def without(name: str) -> bytes:
    """A hint that lacks a part."""
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()


EMBED: dict[str, Any] = {}
STRANGE = {
    "no JSON": b"{",
    "no UTF-8": b"\xff\xfe\x00",
    "pickle": b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94.",
    "a list": b"[]",
    "a number": b"1e999",
    "null": b"null",
    "nothing in it": b"{}",
    "deep": b"[" * 200_000,
    "deep arguments": changed(body=base64.b64encode(b"[" * 3000).decode()),
    "huge": changed(body="A" * 10_000_000),
    "body is a number": changed(body=5),
    "body is null": changed(body=None),
    "body is no base64": changed(body="!!"),
    "no argument": calling([], {}, EMBED),
    "two arguments": calling([[UNKNOWN], [UNKNOWN]], {}, EMBED),
    "argument is a number": calling([1], {}, EMBED),
    "argument is a string": calling([UNKNOWN], {}, EMBED),
    "argument is a mapping": calling([{UNKNOWN: 1}], {}, EMBED),
    "endpoints are numbers": calling([[1, 2]], {}, EMBED),
    "endpoints are null": calling([[None]], {}, EMBED),
    "an odd endpoint": calling([["A" * 11 + "\n"]], {}, EMBED),
    "a key as an endpoint": calling([["../workspace:acme"]], {}, EMBED),
    "a surrogate": calling([["\ud800" * 12]], {}, EMBED),
    "many endpoints": calling([[UNKNOWN] * 17], {}, EMBED),
    "another keyword": calling([[UNKNOWN]], {"sudo": True}, EMBED),
    "keywords are null": calling([[UNKNOWN]], None, EMBED),
    "probe is a number": calling([[UNKNOWN]], {"probe": 7}, EMBED),
    "probe is long": calling([[UNKNOWN]], {"probe": "a" * 65}, EMBED),
    "no headers": without("headers"),
    "headers are a list": changed(headers=[]),
    "headers of protocol 1": changed(headers={}),
    "another task": changed("headers", task="celery.backend_cleanup"),
    "task is a list": changed("headers", task=["dispatcher.deliver"]),
    "another content type": changed(**{"content-type": "application/x-python-serialize"}),
    "no content type": without("content-type"),
}
DRESSED_UP = {
    "eta": changed("headers", eta="never"),
    "eta a number": changed("headers", eta=5),
    "eta in 9999": changed("headers", eta="9999-12-31T23:59:59+14:00"),
    "expires": changed("headers", expires="x"),
    "retries": changed("headers", retries=[1]),
    "time limits": changed("headers", timelimit=5),
    "group and chord": changed("headers", group=[1], chord={"a": 1}),
    "compression": changed("headers", compression="bzip2"),
    "id": changed("headers", id={"a": []}),
    "callbacks": calling([[UNKNOWN]], {}, {"callbacks": [7], "chord": 7, "chain": [7]}),
    "content encoding": changed(**{"content-encoding": "rot13"}),
    "no properties": without("properties"),
    "delivery tag": changed("properties", delivery_tag=None),
    "delivery info": changed("properties", delivery_info=7),
    "reply to": changed("properties", reply_to=5),
    "priority": changed("properties", priority="high"),
}


def test_strange_messages(stack: Stack) -> None:
    """Each is dropped with a line; what is odd beside a right hint is not looked at. The worker goes on, nothing is restored."""
    stack.add_workspace()
    worker = stack.start_worker().wait_ready()
    for raw in (*STRANGE.values(), *DRESSED_UP.values()):
        stack.redis.lpush(QUEUE, raw)
    wait_until(lambda: len(worker.lines("hint.dropped")) == len(STRANGE) or worker.process.poll() is not None)
    event_ids = stack.enqueue(3)
    assert {"delivered": 3} == stack.wait_ended(event_ids)
    live = stack.cli_json("check", "--live")
    assert {"ok"} == {one["verdict"] for one in live}
    assert (len(STRANGE), 0) == (len(worker.lines("hint.dropped")), worker.terminate())
    assert (0, 0) == (stack.redis.llen(QUEUE), stack.redis.hlen("dispatcher:celery:unacked"))
    assert [] == [line for line in worker.log.splitlines() if "Traceback" in line]
    assert [] == stack.redis.keys(f"*{UNKNOWN}*")


@pytest.mark.parametrize("forged", [b"{", b"[1,2,3]", b"[]", changed()])
def test_forged_leftovers_of_dead_workers(stack: Stack, forged: bytes) -> None:
    """What stands among the messages that dead workers had taken is forgotten unread; a worker that starts goes on."""
    stack.add_workspace()
    stack.redis.hset("dispatcher:celery:unacked", "x", forged)
    stack.redis.zadd("dispatcher:celery:unacked_index", {"x": 0})
    worker = stack.start_worker().wait_ready()
    assert {"delivered": 3} == stack.wait_ended(stack.enqueue(3))
    wait_until(lambda: not stack.redis.exists("dispatcher:celery:unacked"), what="it to be forgotten")
    assert (0, 0) == (worker.terminate(), stack.redis.llen(QUEUE))


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_hint(name: str) -> None:
    """None of them is read as a hint."""
    try:
        raw = json.loads(STRANGE[name])
    except (ValueError, RecursionError):
        return  # the channel drops it before
    with pytest.raises(NotAHint):
        read_hint(raw)


@pytest.mark.parametrize("name", DRESSED_UP)
def test_nothing_but_the_endpoints_is_used(name: str) -> None:
    """Of a hint with anything odd beside its endpoints, the endpoints are what is left."""
    assert ([UNKNOWN], "") == read_hint(json.loads(DRESSED_UP[name]))


def control(stack: Stack, *command: str) -> None:
    """Sends a command of Celery's remote control to all workers."""
    environment, folder = stack.environment, stack.folder
    subprocess.run(
        [*CONTROL, *command], cwd=folder, env=environment, capture_output=True, check=False, timeout=60
    )


def test_remote_control_is_off(stack: Stack) -> None:
    """Nothing that Celery's remote control can say reaches a worker."""
    stack.add_workspace()
    worker = stack.start_worker().wait_ready()
    for command in (("shutdown",), ("cancel_consumer", "dispatcher"), ("pool_shrink", "4")):
        control(stack, *command)
    assert {"delivered": 3} == stack.wait_ended(stack.enqueue(3))
    assert {"ok"} == {one["verdict"] for one in stack.cli_json("check", "--live")}
    assert None is worker.process.poll()


def test_remote_control_can_be_had(stack: Stack) -> None:
    """With REMOTE_CONTROL set, `celery control shutdown` ends a worker."""
    worker = stack.start_worker(DISPATCHER_REMOTE_CONTROL="true").wait_ready()
    control(stack, "shutdown")
    assert 0 == worker.process.wait(30)
