"""What Redis, or what stands before it, answers a producer with an error of which we know nothing."""

import pytest
import redis

from dispatcher import EnqueueInterrupted, RedisUnavailable
from dispatcher.producer import BATCH
from tests.redis.partitioned import BOTH, Enqueue, many
from tests.redis.test_interrupted import answering
from tests.redis.test_producer import change

WRONG = "refuses: WRONGTYPE Operation against a key holding the wrong kind of value"


@BOTH
@pytest.mark.parametrize("reply", [b"-ERR upstream failure\r\n", b"-no upstream host\r\n"])
def test_a_proxy_refuses(enqueue: Enqueue, reply: bytes) -> None:
    """The error is one of ours, and has what the proxy said."""
    said = reply.decode().strip("-\r\n").removeprefix("ERR ")
    with answering(reply) as url, pytest.raises(EnqueueInterrupted, match=f"refuses: {said}") as caught:
        enqueue(url, [change(0)], {})
    assert [] == caught.value.confirmed


@BOTH
def test_keys_of_another_type(redis_url: str, enqueue: Enqueue) -> None:
    """So it is for a queue and a list of workspaces that are something else, with and without `check`."""
    with redis.Redis.from_url(redis_url) as client:
        client.set("dispatcher:events", "text")
        client.set("dispatcher:workspaces", "text")
    with pytest.raises(EnqueueInterrupted, match=WRONG):
        enqueue(redis_url, [change(0)], {})
    with pytest.raises(RedisUnavailable, match=WRONG):
        enqueue(redis_url, [change(0)], {}, check=True)


@BOTH
def test_what_was_confirmed_is_in_it(two_urls: list[str], enqueue: Enqueue) -> None:
    """If one server refuses so, what the other took is in the error."""
    with redis.Redis.from_url(two_urls[1]) as client:
        for number in range(1, 16, 2):
            client.set(f"dispatcher:{{{number}}}:events", "text")
    given = [one | {"workspace": f"w{number}"} for number, one in enumerate(many(BATCH))]
    with pytest.raises(EnqueueInterrupted, match=WRONG) as caught:
        enqueue(" ".join(two_urls), given, {"partitions": 16})
    assert 0 < len(caught.value.confirmed) < BATCH
