"""What a Redis that refuses writes is said to be."""

import asyncio
from collections.abc import Iterator

import pytest
import redis

from dispatcher.errors import RedisFull, RedisUnavailable
from dispatcher.store.connection import connect_async, translate
from dispatcher.store.installation import Installation
from dispatcher.store.keys import Keys
from dispatcher.store.ledger import Ledger

HASH = "c8ed0a4fc8ed0a4fc8ed0a4fc8ed0a4fc8ed0a4f"
REPLICA = "You can't write against a read only replica."


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of a server that is a primary again, with room, at the end."""
    with redis.Redis.from_url(redis_url) as found:
        yield found
        found.execute_command("REPLICAOF", "NO", "ONE")
        found.config_set("maxmemory", "0")


def refusals(url: str) -> list[RedisUnavailable]:
    """What looking for writability raises, and what a script that writes does."""

    async def ask() -> list[RedisUnavailable]:
        found = []
        async with connect_async(url) as client:
            installation, ledger = (
                Installation(client, Keys(), url),
                Ledger(client.execute_command, Keys(), url),
            )
            for call in (installation.require_writable(), ledger.lead("me", 1000)):
                try:
                    await call
                except RedisUnavailable as error:
                    found.append(error)
            assert not await client.exists(Keys().format), "looking writes nothing"
        return found

    return asyncio.run(ask())


def test_a_replica(client: redis.Redis, redis_url: str) -> None:
    """It is called that, with what to do, and without the script's hash."""
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    first, second = refusals(redis_url)
    assert str(first) == str(second)
    assert first.why == "Redis is a read-only replica and refuses writes"
    assert "REPLICAOF NO ONE" in first.advice


def test_a_full_one(client: redis.Redis, redis_url: str) -> None:
    """Looking finds that it is full; nothing is written."""
    client.config_set("maxmemory", "1")
    assert isinstance(refusals(redis_url)[0], RedisFull)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"Error running script (call to f_{HASH}): @user_script:12: @user_script: 12: -READONLY {REPLICA}", "replica"),
        (f"READONLY {REPLICA} script: {HASH}, on @user_script:12.", "replica"),
        (f"READONLY {REPLICA} script: dispatcher_1_claim, on @user_function:12.", "replica"),
        (f"BUSY Redis is busy. script: {HASH}, on @user_script:12.", "BUSY Redis is busy. Look at its log"),
        (f"Error running script (call to f_{HASH}): @user_script:1: @user_script: 1: NOREPLICAS Too few.", "NOREPLICAS Too few. Look"),
    ],
)  # fmt: skip
def test_no_hashes(said: str, shown: str) -> None:
    """An error in a script is shown without its hash and line, as Redis 6.2 and as later ones add them."""
    text = str(translate(redis.ResponseError(said), "redis://localhost"))
    assert shown in text
    assert [] == [one for one in (HASH, "script", "..") if one in text]
