"""When the previous Redis may be left out, and what a mistaken `grow` leaves behind."""

import time

import pytest
import redis

from dispatcher import Dispatcher
from dispatcher.store.format import FORMAT
from tasks.redis_server import RedisServer
from tests.acceptance.stack import Stack, change, wait_until
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
    forced = stack.cli("grow", "--end", "--force")
    assert (0, True) == (forced.returncode, "grow.end" in forced.stderr), (
        "its entry in the trail is a log line too"
    )
    ended = "growth has ended: leave DISPATCHER_PREVIOUS_REDIS_URL out"
    assert ended in refusal(stack, "stats")
    assert ended in refusal(stack, "grow", "--end")
    assert 0 == stack.cli("grow").returncode  # which takes the end back
    assert "delivered" == stack.event(event)["state"]


def test_a_previous_redis_that_is_lost(stack: Stack, new: RedisServer) -> None:
    """What is lost is said before; then the end lets workers take what waited, and callbacks are sent again without that Redis."""
    stack.add_workspace("acme")
    broker = stack.folder / "broker"
    broker.mkdir()
    with RedisServer(broker) as other:
        stack.environment |= grown(stack, new) | {"DISPATCHER_BROKER_URL": other.url}
        assert 0 == stack.cli("grow").returncode
        assert 2 == stack.cli("grow", "--lost").returncode
        assert "answers, so it is not lost" in refusal(stack, "grow", "--end", "--lost")
        stack.redis.config_set("requirepass", "another")
        assert "is not lost: Redis at" in refusal(stack, "grow", "--end", "--lost"), (
            "it refuses us: so it answers"
        )
        refused = stack.cli("grow", "--end")
        assert (3, True) == (refused.returncode, "the previous Redis: Redis at" in refused.stderr), refused
        assert "gone for good" not in refused.stderr
        stack.server.kill()
        for words in (["--end"], ["--end", "--force"]):
            refused = stack.cli("grow", *words)
            [said] = refused.stderr.splitlines()
            assert 3 == refused.returncode
            assert "`dispatcher grow --end --lost` ends it" in said
            assert "cause callbacks once more" in said
            assert "DISPATCHER_REDIS_URL" not in said
            assert stack.server.url in said
        assert "`dispatcher grow --end` says what is lost" in stack.cli("check").stdout
        with Dispatcher.from_url(new.url, partitions=COUNT) as dispatcher:
            dispatcher.enqueue(change(1, eventId="waited"))
        ended = stack.cli("grow", "--end", "--lost")
        assert (0, True) == (ended.returncode, "leave DISPATCHER_PREVIOUS_REDIS_URL out" in ended.stdout)
        assert "cause callbacks once more" in ended.stderr
        del stack.environment["DISPATCHER_PREVIOUS_REDIS_URL"]
        worker = stack.start_worker().wait_ready()
        wait_until(lambda: [one.event_id for one in stack.received] == ["waited"], what="it is delivered")
        assert "delivered" == stack.event("waited")["state"]
        assert 0 == worker.terminate()


def test_an_empty_redis_in_its_place(stack: Stack, new: RedisServer) -> None:
    """Where the previous Redis has lost all that it knew, but answers, nothing new is accepted until `--force` ends it."""
    stack.add_workspace("acme")
    stack.environment |= grown(stack, new)
    assert 0 == stack.cli("grow").returncode
    stack.redis.flushall()
    refused = stack.cli("stats")
    assert (3, True) == (refused.returncode, "holds nothing of this installation" in refused.stderr)
    worker = stack.start_worker().wait_ready()
    with Dispatcher.from_url(new.url, partitions=COUNT) as dispatcher:
        dispatcher.enqueue(change(1))
        wait_until(lambda: worker.lines("intake.waits"), what="the log says why")
        assert 1 == dispatcher.queued()
    assert "holds nothing of this installation" in worker.lines("intake.waits")[0]["problem"]
    assert 0 == worker.terminate()
    assert "holds nothing of this installation" in refusal(stack, "grow", "--end")
    assert not stack.redis.exists("dispatcher:format")
    ended = stack.cli("grow", "--end", "--force")
    assert (0, True) == (ended.returncode, "cause callbacks once more" in ended.stderr)
    del stack.environment["DISPATCHER_PREVIOUS_REDIS_URL"]
    assert "acme" in stack.cli("workspace", "list").stdout


def test_another_installation_in_its_place(stack: Stack, new: RedisServer) -> None:
    """Where the setting leads to another installation's Redis, workers and commands refuse, and that one goes on."""
    stack.add_workspace("acme")
    stack.environment |= grown(stack, new)
    assert 0 == stack.cli("grow").returncode
    stack.redis.set("dispatcher:format", FORMAT)  # as if it had never grown
    for words in (["stats"], ["check"], ["grow", "--end", "--force"]):
        assert "that has not grown into these partitions" in refusal(stack, *words)
    worker = stack.start_worker()
    assert 78 == worker.process.wait(30)
    assert "that has not grown into these partitions" in worker.lines("worker.refused")[0]["problem"]
    with Dispatcher.from_url(stack.server.url) as dispatcher:
        dispatcher.enqueue(change(1))
        assert 1 == dispatcher.queued()


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
