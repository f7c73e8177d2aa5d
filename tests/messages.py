"""A message store on a real server, driven without `await`."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

import redis

from dispatcher.model import StatusChange, iso
from dispatcher.store.arguments import ToAccept
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import Keys
from dispatcher.store.ledger import Ledger
from dispatcher.store.message_reader import Bounds
from dispatcher.store.messages import Messages
from dispatcher.store.stored_message import StoredMessage
from dispatcher.store.wire import Wire
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.recorder import Recorder

T = TypeVar("T")

RETENTION_MS = 604_800_000
TOKEN = "leader"


def change(
    status: str = "SENT",
    uuid: str = "m1",
    *,
    at_ms: int = 1_800_000_000_000,
    workspace: str = "acme",
    **message: Any,
) -> StatusChange:
    """A status change of a message; `error` and `event_id` are its own, what else is named is the message's."""
    own = {name: message.pop(name) for name in ("error", "event_id") if name in message}
    told = {"uuid": uuid, "src": "ACME", "dest": "+233200000001"} | message
    return StatusChange(workspace=workspace, status=status, timestamp=iso(at_ms), message=told, **own)


async def tell(
    ledger: Ledger, recorder: Recorder, changes: Iterable[StatusChange], dialect: str = "zeckta"
) -> None:
    """What intake does with status changes that cause no callback."""
    batch = ToAccept()
    for one in changes:
        recorder.add(batch, one, dialect, 0)
    accepted = await ledger.accept(TOKEN, {}, [], batch)
    recorder.count(accepted.recorded, accepted.problem)


class Store:
    """Records and reads."""

    def __init__(self, url: str, retention_ms: int = RETENTION_MS) -> None:
        self.keys = Keys()
        self.plain = redis.Redis.from_url(url)
        self.metrics = Metrics()
        self._client = connect_async(url)
        self._wire = Wire(self._client)
        self._ledger = Ledger(self._wire.call, self.keys, url)
        self._recorder = Recorder(retention_ms, self.metrics)
        self.messages = Messages(self._wire.call, self.keys, url, retention_ms)
        self._runner = asyncio.Runner()

    def bounded(self, bounds: Bounds) -> Messages:
        """The same messages, read within other bounds."""
        return Messages(self._wire.call, self.keys, bounds=bounds)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result."""
        return self._runner.run(coroutine)

    def record(self, *changes: StatusChange, dialect: str = "zeckta") -> dict[str, int]:
        """Records status changes; how many were recorded, late and failed, ever."""
        self.run(self._ledger.lead(TOKEN, 10**9))
        self.run(tell(self._ledger, self._recorder, changes, dialect))
        return {name: count for name, count in self.metrics.recorded.items() if count}

    def get(self, uuid: str = "m1", workspace: str = "acme") -> StoredMessage:
        """A message that must be there."""
        found = self.run(self.messages.get(workspace, uuid))
        assert found
        return found

    def statuses(self, uuid: str = "m1") -> list[str]:
        """The statuses a message went through."""
        return [status.value for status, _ in self.get(uuid).history]

    def close(self) -> None:
        """Closes the connections."""
        self.plain.close()
        self.run(self._wire.close())
        self.run(self._client.aclose())
        self._runner.close()
