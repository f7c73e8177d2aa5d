"""Attempts for `dispatcher tail`: published while somebody watches, and never in the way of anything."""

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace
from redis.exceptions import ConnectionError, ResponseError
from structlog.testing import capture_logs

from dispatcher.model import Status
from dispatcher.rules.callback import Claimed
from dispatcher.rules.outcomes import Attempt
from dispatcher.store.attempt_channel import AttemptChannel
from dispatcher.store.keys import Keys
from dispatcher.store.replies import Claim
from dispatcher.worker.tail import MAX_KEPT, Tail
from tasks.commands.tail import _lines

CALLBACK = Claimed("e1", 1, 1, 2**53, "MESSAGE_SENT", Status.SENT, "m1", "https://a.example/", b"{}")
CLAIM = Claim(False, 0, "acme", "https://a.example:443", "r", [CALLBACK], 0.0)
ATTEMPT = Attempt(1_800_000_000_000, 5, 200)


class Redis:
    """Remembers what is published, or refuses it."""

    def __init__(self) -> None:
        self.published: list[list[dict[str, Any]]] = []
        self.refuses: Exception | None = None

    async def call(self, *command: Any) -> int:
        """One command."""
        if self.refuses:
            raise self.refuses
        name, channel, text = command
        assert ("PUBLISH", "dispatcher:tail") == (name, channel)
        self.published.append(json.loads(text))
        return 1


def tail_on(redis: Redis) -> Tail:
    return Tail(AttemptChannel(redis.call, Keys()))


def test_published_while_somebody_watches() -> None:
    """An attempt is published once, with its outcome, and only if somebody watches before and after it is made."""
    redis = Redis()
    tail = tail_on(redis)
    for watched in (True, False, True, True):  # from now on
        tail.add(CALLBACK, CLAIM, ATTEMPT, "delivered")
        asyncio.run(tail.publish(watched=watched))
    [[attempt]] = redis.published
    assert ("acme", "e1", 200, "delivered") == tuple(
        attempt[name] for name in ("workspace", "eventId", "httpStatus", "outcome")
    )


@pytest.mark.parametrize(("subscription", "owner"), [("", "acme"), ("crm", "acme.crm")])
@pytest.mark.parametrize("width", [None, 60])
def test_whose_it_is(subscription: str, owner: str, width: int | None) -> None:
    """`--json` has the subscription as a field, and a line names it with the workspace, as `endpoint list` does."""
    redis = Redis()
    tail = tail_on(redis)
    tail.watched = True
    tail.add(CALLBACK, replace(CLAIM, subscription=subscription), ATTEMPT, "delivered")
    asyncio.run(tail.publish(watched=True))
    [[attempt]] = redis.published
    assert attempt["subscription"] == (subscription or "default")
    assert owner in " ".join(_lines(attempt, width)).split()
    del attempt["subscription"]  # by a worker of an earlier version
    assert "acme" in " ".join(_lines(attempt, width)).split()


def test_bounded() -> None:
    """A worker keeps no more attempts than MAX_KEPT until they are published."""
    redis = Redis()
    tail = tail_on(redis)
    tail.watched = True
    for _ in range(MAX_KEPT + 5):
        tail.add(CALLBACK, CLAIM, ATTEMPT, "delivered")
    asyncio.run(tail.publish(watched=True))
    assert [MAX_KEPT] == [len(attempts) for attempts in redis.published]


@pytest.mark.parametrize("error", [ConnectionError("away"), ResponseError("unknown command 'PUBLISH'")])
def test_failure_is_logged_once(error: Exception) -> None:
    """Whatever Redis says against publishing is logged once until it works again, and never raised."""
    redis = Redis()
    tail = tail_on(redis)
    tail.watched = True
    with capture_logs() as logs:
        for refuses in (error, error, None, error):
            redis.refuses = refuses
            tail.add(CALLBACK, CLAIM, ATTEMPT, "delivered")
            asyncio.run(tail.publish(watched=True))
    assert ["tail.unpublished"] * 2 == [one["event"] for one in logs]
    assert 1 == len(redis.published)
