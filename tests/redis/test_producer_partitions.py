"""Enqueuing to partitions, on one server and on several that know nothing of each other."""

import contextlib
import json
import re
from pathlib import Path

import pytest
import redis

from dispatcher import Dispatcher, DispatcherError, InvalidInput, RedisUnavailable
from dispatcher.rules.partitions import Partitioning
from dispatcher.store.keys import keys_of
from tasks.redis_server import RedisServer
from tests.command import command
from tests.redis.partitioned import BOTH, NAMES, Enqueue, many, queues, urls
from tests.redis.test_producer import change

PARTITIONS = Path(__file__).parents[2] / "docs" / "partitions.md"


@BOTH
@pytest.mark.parametrize("partitions", [2, 16, 256])
def test_each_on_the_queue_of_its_partition(redis_url: str, enqueue: Enqueue, partitions: int) -> None:
    """A status change is on its partition's queue; a workspace that is spread is on several, by its messages."""
    widths = {NAMES[7]: 4}
    given = many()
    ids = enqueue(redis_url, given, {"partitions": partitions, "widths": widths})
    assert [one["eventId"] for one in given] == ids
    division = Partitioning(partitions)
    for partition, found in enumerate(queues([redis_url], partitions)):
        wanted = [
            one["eventId"]
            for one in given
            if partition
            == division.of(one["workspace"], one["message"]["uuid"], widths.get(one["workspace"], 1))  # type: ignore[index,arg-type,call-overload]
        ]
        assert wanted == [one.event_id for one in found]


@BOTH
def test_two_servers(two: list[RedisServer], enqueue: Enqueue) -> None:
    """Partition i is on server i mod 2, and the changes of a message are there in their order."""
    given = many()
    ids = enqueue(urls(two), given, {"partitions": 16})
    found = queues([server.url for server in two], 16)
    assert sorted(ids) == sorted(one.event_id for queue in found for one in queue)
    assert all(any(found[start::2]) for start in (0, 1))
    for changes in found:
        numbers = [int(one.event_id[1:]) for one in changes]
        assert sorted(numbers) == numbers


def test_one_partition_has_no_tag_and_asks_nothing(redis_url: str) -> None:
    """With one partition the queue is as ever, and nothing is read before the first status change."""
    with redis.Redis.from_url(redis_url) as client, Dispatcher.from_url(redis_url) as dispatcher:
        client.set("dispatcher:partitions", "16")
        client.config_resetstat()
        dispatcher.enqueue(change(0))
        assert {"cmdstat_xadd"} <= set(client.info("commandstats"))
        assert not {"cmdstat_get", "cmdstat_role"} & set(client.info("commandstats"))
        assert 1 == client.xlen("dispatcher:events")


@BOTH
def test_another_number_of_partitions(two: list[RedisServer], enqueue: Enqueue) -> None:
    """A producer with another number of partitions than the installation says what to pass, and enqueues nothing."""
    with redis.Redis.from_url(two[0].url) as client:
        client.set("dispatcher:partitions", "256")
    with pytest.raises(InvalidInput) as caught:
        enqueue(urls(two), many(3), {"partitions": 16})
    assert (
        "this installation has 256 partitions, and 16 are configured here: pass partitions=256, or set "
        "DISPATCHER_PARTITIONS=256"
    ) == str(caught.value)
    assert not any(queues([server.url for server in two], 16))
    assert 3 == len(enqueue(urls(two), many(3), {"partitions": 256}))


@BOTH
@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ("3", "this installation has 1 partition, and 16 are configured here: pass partitions=1, or set DISPATCHER_PARTITIONS=1"),
        ("3 grown into 8", "this Redis held an installation that has grown into 8 partitions: give the URL of the servers"),
    ],
)  # fmt: skip
def test_an_installation_with_one_partition(redis_url: str, enqueue: Enqueue, stored: str, said: str) -> None:
    """A producer with partitions does not put its status changes where nobody of an installation without them reads."""
    with redis.Redis.from_url(redis_url) as client:
        client.set("dispatcher:format", stored)
        with pytest.raises(InvalidInput, match=f"^{re.escape(said)}"):
            enqueue(redis_url, many(3), {"partitions": 16})
        assert {b"dispatcher:format"} == set(client.scan_iter())


def test_when_the_number_is_read(redis_url: str) -> None:
    """It is read until it is there, and not again: a new installation has none before its first worker."""
    with redis.Redis.from_url(redis_url) as client:
        with Dispatcher.from_url(redis_url, partitions=4) as dispatcher:
            dispatcher.enqueue(change(0))
            client.set("dispatcher:partitions", "2")
            for ask in (dispatcher.queued, lambda: dispatcher.enqueue(change(1), check=True)):
                with pytest.raises(InvalidInput, match="pass partitions=2"):
                    ask()
            client.set("dispatcher:partitions", "4")
            client.config_resetstat()
            dispatcher.enqueue(change(2))
            dispatcher.enqueue(change(3))
            assert 3 == dispatcher.queued()
        assert 1 == client.info("commandstats")["cmdstat_get"]["calls"]


@pytest.mark.parametrize("text", ["", "0", "many", "1025", "16 ", "²", "9" * 5000])
def test_a_damaged_number(redis_url: str, text: str) -> None:
    """What is no number of partitions is called so."""
    with redis.Redis.from_url(redis_url) as client:
        client.set("dispatcher:partitions", text)
    with (
        Dispatcher.from_url(redis_url, partitions=4) as dispatcher,
        pytest.raises(DispatcherError, match=r"the key dispatcher:partitions in Redis holds no number"),
    ):
        dispatcher.enqueue(change(0))


@BOTH
def test_check_and_queued(two: list[RedisServer], enqueue: Enqueue) -> None:
    """Whether a workspace exists is asked of its home, and all queues are counted."""
    keys = keys_of("dispatcher", 16)
    division = Partitioning(16)
    for name in NAMES[1:]:
        home = division.home(name)
        with redis.Redis.from_url(two[home % 2].url) as client:
            client.sadd(keys[home].workspaces, name)
    with pytest.raises(InvalidInput) as caught:
        enqueue(urls(two), many(60), {"partitions": 16}, check=True)
    assert [(0, "workspace: there is no workspace 'customer-0'")] == caught.value.problems
    enqueue(urls(two), many(60), {"partitions": 16}, check=True, skip_invalid=True)
    with Dispatcher.from_url(urls(two), partitions=16) as dispatcher:
        assert ["customer-0", "nobody"] == dispatcher.unknown_workspaces([*NAMES, "nobody", "nobody"])
        assert 59 == dispatcher.queued()


def test_a_user_that_may_only_enqueue(redis_url: str) -> None:
    """A Redis user for a producer with partitions needs the three rules of the document, and is told of each that it lacks."""
    (line,) = re.findall(r"^ACL SETUSER dispatcher-producer (.*)$", PARTITIONS.read_text(), re.M)
    with redis.Redis.from_url(redis_url) as client, contextlib.ExitStack() as after:
        after.callback(client.acl_deluser, "p")
        client.execute_command("ACL SETUSER", "p", *line.replace("PASSWORD", "x").split())
        url = redis_url.replace("unix://", "unix://p:x@")
        dispatcher = after.enter_context(Dispatcher.from_url(url, partitions=4))
        dispatcher.enqueue(change(0))
        client.set("dispatcher:format", "3")
        with pytest.raises(InvalidInput, match="this installation has 1 partition"):
            dispatcher.enqueue(change(0))
        client.execute_command(
            "ACL SETUSER", "p", "resetkeys", "~dispatcher:{*}:events", "~dispatcher:partitions"
        )
        dispatcher.enqueue(change(0))
        with pytest.raises(
            RedisUnavailable, match=r"check=True needs `~dispatcher:\{\*\}:workspaces \+smismember`"
        ):
            dispatcher.enqueue(change(0), check=True)
        client.execute_command("ACL SETUSER", "p", "-get")
        other = after.enter_context(Dispatcher.from_url(url, partitions=4))
        with pytest.raises(RedisUnavailable, match=r"it needs `~dispatcher:partitions \+get`"):
            other.enqueue(change(0))


def test_a_client_of_ones_own(redis_url: str) -> None:
    """The constructor takes a client and partitions, for one server."""
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    client.set("dispatcher:partitions", "16")
    with Dispatcher(client, redis_url, partitions=16) as dispatcher:
        assert 60 == len(dispatcher.enqueue_many(many(60)))
    assert 60 == sum(map(len, queues([redis_url], 16)))


def test_the_command(redis_url: str, tmp_path: Path) -> None:
    """`dispatcher enqueue` takes the number of partitions from the settings; a wrong one is wrong usage."""
    (tmp_path / "file.jsonl").write_text("\n".join(map(json.dumps, many(60))))
    done = command(redis_url, "enqueue", str(tmp_path / "file.jsonl"), PARTITIONS="16")
    assert (0, "60 status changes enqueued\n") == (done.returncode, done.stdout)
    assert 60 == sum(map(len, queues([redis_url], 16)))
    with redis.Redis.from_url(redis_url) as client:
        client.set("dispatcher:partitions", "16")
    done = command(redis_url, "enqueue", str(tmp_path / "file.jsonl"), PARTITIONS="4")
    assert (2, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert "pass partitions=16, or set DISPATCHER_PARTITIONS=16" in done.stderr
