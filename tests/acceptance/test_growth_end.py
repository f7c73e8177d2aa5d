"""When the previous Redis may be left out, and what a mistaken `grow` leaves behind."""

import time

import pytest
import redis

from tasks.redis_server import RedisServer
from tests.acceptance.stack import Stack
from tests.acceptance.test_growth import COUNT, grown

DAY_MS = 86_400_000


def refusal(stack: Stack, *command: str) -> str:
    """The one line with which a command refuses."""
    found = stack.cli(*command)
    assert 1 == found.returncode, found
    [line] = found.stderr.splitlines()
    return str(line)


def test_what_ended_is_known_for_a_while(stack: Stack, new: RedisServer) -> None:
    """The end is refused while eventIds are known there, unless forced; afterwards processes are told to leave the setting out."""
    stack.add_workspace("acme")
    worker = stack.start_worker().wait_ready()
    [event] = stack.enqueue()
    stack.wait_ended([event])
    assert 0 == worker.terminate()
    stack.environment |= grown(stack, new)
    assert "nothing was copied from there yet" in refusal(stack, "grow", "--end")
    assert 2 == stack.cli("grow", "--force").returncode
    assert 0 == stack.cli("grow").returncode
    checked = stack.cli("check").stdout.partition("it knows eventIds and messages until ")[2]
    until = checked.partition(",")[0]
    assert until
    assert f"knows eventIds and messages until {until}" in refusal(stack, "grow", "--end")
    assert "delivered" == stack.event(event)["state"]
    assert 0 == stack.cli("grow", "--end", "--force").returncode
    ended = "growth has ended: leave DISPATCHER_PREVIOUS_REDIS_URL out"
    assert ended in refusal(stack, "stats")
    assert ended in refusal(stack, "grow", "--end")
    assert 0 == stack.cli("grow").returncode  # which takes the end back
    assert "delivered" == stack.event(event)["state"]


@pytest.mark.parametrize(("days", "is_over"), [(0, False), (13, False), (15, True)])
def test_messages_without_callbacks_are_known(
    stack: Stack, new: RedisServer, days: int, is_over: bool
) -> None:
    """Without an endpoint too nothing is over before a ttlSeconds and a retention, of seven days each, since the growth."""
    stack.add_workspace("acme")
    stack.environment |= grown(stack, new)
    assert 0 == stack.cli("grow").returncode
    with redis.Redis.from_url(new.url) as client:
        assert client.set("dispatcher:grown", round(time.time() * 1000) - days * DAY_MS, xx=True)
    assert is_over == ("all that the previous Redis knew is over" in stack.cli("check").stdout)
    if is_over:
        assert 0 == stack.cli("grow", "--end").returncode
    else:
        assert "knows eventIds and messages until" in refusal(stack, "grow", "--end")


def test_a_mistake_leaves_nothing(stack: Stack, new: RedisServer) -> None:
    """Until something is copied no command and no worker fixes the number of partitions."""
    stack.environment |= grown(stack, new)
    assert "holds no installation" in stack.cli("grow").stderr
    assert 1 == stack.cli("grow", "--end").returncode
    assert "run `dispatcher grow` first" in stack.cli("stats").stderr
    assert 78 == stack.start_worker().process.wait(30)
    with redis.Redis.from_url(new.url) as client:
        assert [] == client.keys()
    stack.environment = {n: v for n, v in stack.environment.items() if n not in grown(stack, new)}
    stack.environment["DISPATCHER_REDIS_URL"] = stack.server.url
    stack.add_workspace("acme")
    stack.environment |= grown(stack, new) | {"DISPATCHER_PARTITIONS": str(COUNT // 2)}
    assert "copied: 1 workspace" in stack.cli("grow").stdout
    with redis.Redis.from_url(new.url) as client:
        assert COUNT // 2 == int(client.get("dispatcher:partitions") or 0)
