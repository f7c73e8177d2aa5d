"""Read by type checkers, never run. Each `type: ignore` here must be needed: what it stands at is a mistake."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypedDict, assert_type

import redis.asyncio

from dispatcher import (
    AsyncDispatcher,
    Dispatcher,
    EnqueueInterrupted,
    InvalidInput,
    Message,
    MessageError,
    Status,
    StatusChange,
    verify,
)

least = Message(uuid="m-1", src="ACME", dest="+233202007745")
costs = [
    Message(uuid="m-1", src="ACME", dest="+233202007745", cost=cost)
    for cost in (Decimal("0.05"), "0.05", 1, 0.05, None)
]
full = Message(
    uuid="m-1",
    src="ACME",
    dest="+233202007745",
    channel="RCS",
    segments=1,
    units=1,
    attempts=1,
    cost="0.05",
    currency="GHS",
    campaign_id="spring",
    customer_message_id="order-17",
    network="MTN",
    part=1,
    total_parts=2,
    accepted_at=datetime.now(UTC),
    webhook_configuration_id="c1",
    reference={"key": ["anything", 1, None]},
    provider={"code": "0"},
)
change = StatusChange(workspace="acme", status="DELIVERED", timestamp=datetime.now(UTC), message=least)
other = StatusChange(
    event_id="e-1",
    workspace="acme",
    status=Status.FAILED,
    timestamp="2026-06-09T13:04:57Z",
    callback_url="https://customer.example/hooks",
    ttl_seconds=60,
    message=full,
    error=MessageError(code="E004"),
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    tracestate="congo=t61rcWkgMzE",
)

assert_type(change.event_id, str)
assert_type(change.status, Status)
assert_type(change.timestamp, str)
assert_type(change.message, Message)
assert_type(change.message.cost, Decimal | None)
assert_type(change.message.accepted_at, str | None)
assert_type(change.error, MessageError | None)
assert_type(change.ttl_seconds, int | None)
assert_type(change.traceparent, str | None)
assert_type(change.replace(status="SENT"), StatusChange)
assert_type(least.replace(dest="+1"), Message)
assert_type(change.to_json(), bytes)
assert_type(StatusChange.from_json(b"{}"), StatusChange)
assert_type(StatusChange.from_json("{}"), StatusChange)
assert_type(StatusChange.from_dict({}), StatusChange)

StatusChange()  # type: ignore
Message("m-1", "ACME", "+1")  # type: ignore
Message(uuid=1, src="ACME", dest="+1")  # type: ignore
Message(uuid="m-1", src="ACME", destination="+1")  # type: ignore
StatusChange(workspace="acme", status=1, timestamp="", message=least)  # type: ignore
change.status = Status.SENT  # type: ignore


class Row(TypedDict):
    """What somebody has in a table of theirs."""

    workspace: str
    status: str


def enqueue(dispatcher: Dispatcher, as_json: dict[str, Any], mapping: Mapping[str, object], row: Row) -> int:
    """Whatever may be enqueued."""
    try:
        assert_type(dispatcher.enqueue(change, as_json, mapping, row, check=True), list[str])
        dispatcher.enqueue_many([change, other], skip_invalid=True)
        dispatcher.enqueue_many(one for one in (as_json, as_json))
        assert_type(dispatcher.enqueue(change, durable=True), list[str])
        dispatcher.enqueue_many([change], durable=2)
        dispatcher.enqueue(change, durable="yes")  # type: ignore
        dispatcher.enqueue([change])  # type: ignore
        dispatcher.enqueue("{}")  # type: ignore
        dispatcher.enqueue_many(change)  # type: ignore
    except InvalidInput as error:
        assert_type(error.problems, list[tuple[int, str]])
    except EnqueueInterrupted as error:
        assert_type(error.confirmed, list[str])
    return dispatcher.queued()


def partitions() -> list[Dispatcher]:
    """Dispatchers of an installation with partitions."""
    Dispatcher.from_url("redis://a", partitions="16")  # type: ignore
    return [
        Dispatcher.from_url("redis://a redis://b", partitions=16),
        Dispatcher.from_url("redis+cluster://a:1", partitions=256, widths={"acme": 4}),
    ]


async def enqueue_async(client: "redis.asyncio.Redis") -> list[str]:
    """The same for asyncio."""
    async with AsyncDispatcher(client) as dispatcher:
        assert_type(await dispatcher.queued(), int)
        return await dispatcher.enqueue(change, check=True) + await dispatcher.enqueue_many([other])


def handle(headers: Mapping[str, str], body: bytes, secret: str) -> object:
    """What a customer does."""
    return verify(headers, body, secret, tolerance_seconds=60)
