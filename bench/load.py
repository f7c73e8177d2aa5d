"""The backends' side: enqueues status changes whose eventId holds their group and the time of enqueuing."""

import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from dispatcher.rules.partitions import Partitioning
from dispatcher.store.keys import keys_of

TICK_SECONDS = 0.0005
PIPELINE = 500


@dataclass(frozen=True)
class Customer:
    """The workspace and callback URL of a status change."""

    workspace: str
    url: str


class Load:
    """Makes status changes as a backend does, and enqueues them."""

    pad = 0
    """Extra bytes in each status change and each body."""
    note = 0
    """Bytes of a `reference` in each status change, for dialects that pass it on."""
    named = False
    """Whether a message has every field by which some platform looks it up."""
    each = 1
    """Status changes per message."""
    statuses: Sequence[str] = ("DELIVERED",)
    """The status changes' statuses, in turn."""

    def __init__(self, client: Any, partitions: int = 1) -> None:
        self._client = client
        self._partitioning = Partitioning(partitions)
        self._queues = [keys.events for keys in keys_of("dispatcher", partitions)]
        self._numbers = itertools.count()
        self._stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def change(self, group: str, customer: Customer) -> bytes:
        """One status change as JSON, stamped as enqueued now."""
        number = next(self._numbers)
        message: dict[str, Any] = {
            "uuid": f"m{number // self.each:08d}-6a5ad0ba-b5a9-11ef-b8d9",
            "src": "ZECKTA" + "x" * self.pad,
            "dest": f"+2332{number // self.each % 100_000_000:08d}",
            "segments": 1,
            "units": 1,
            "attempts": 1,
            "cost": 0.05,
        }
        if self.named:
            message |= {"campaignId": "spring", "customerMessageId": f"order-{number // self.each}"}
            message["reference"] = {
                "service": "SHOP",
                "action": "PAID",
                "key": f"order-{number // self.each}",
            }
        if self.note:
            message["reference"] = {"note": "x" * self.note}
        return msgspec.json.encode(
            {
                "eventId": f"{group}-{time.time_ns() // 1000}-{number}",
                "workspace": customer.workspace,
                "status": self.statuses[number % len(self.statuses)],
                "timestamp": self._stamp,
                "message": message,
                **({"callbackUrl": customer.url} if customer.url else {}),
            }
        )

    def send(self, group: str, customers: Sequence[Customer]) -> None:
        """Enqueues one status change for each customer, in one round trip."""
        pipe = self._client.pipeline(transaction=False)
        for customer in customers:
            pipe.xadd(self._queue_of(customer), {"event": self.change(group, customer)})
        pipe.execute()

    def _queue_of(self, customer: Customer) -> str:
        return self._queues[self._partitioning.home(customer.workspace)]

    def burst(self, group: str, customers: Sequence[Customer], count: int) -> float:
        """Enqueues `count` status changes, round robin, as fast as possible; returns the seconds it took."""
        began = time.monotonic()
        chosen = itertools.islice(itertools.cycle(c for c in customers for _ in range(self.each)), count)
        while batch := list(itertools.islice(chosen, PIPELINE)):
            self.send(group, batch)
        return time.monotonic() - began

    def steady(
        self,
        per_second: float,
        seconds: float,
        groups: dict[str, Sequence[Customer]],
        *,
        seed: int = 1,
        in_turn: bool = False,
        tell: Callable[[float], None] = lambda _: None,
    ) -> dict[str, int]:
        """Enqueues at a steady rate, groups in turn; returns how many of each group.

        Customers are chosen at random, or with `in_turn` one after another.

        Status changes due in the same half millisecond are sent together. Each is stamped when it is sent, so a
        late producer does not add to a latency.
        """
        turns = itertools.cycle(groups)
        chance = random.Random(seed)
        choose: dict[str, Callable[[], Customer]] = {
            group: itertools.cycle(customers).__next__ if in_turn else partial(chance.choice, customers)
            for group, customers in groups.items()
        }
        sent = dict.fromkeys(groups, 0)
        began = time.monotonic()
        total, done = round(per_second * seconds), 0
        while done < total:
            due = min(total, int((time.monotonic() - began) * per_second) + 1)
            pipe = self._client.pipeline(transaction=False)
            for group in itertools.islice(turns, due - done):
                customer = choose[group]()
                pipe.xadd(self._queue_of(customer), {"event": self.change(group, customer)})
                sent[group] += 1
            if due > done:
                pipe.execute()
                done = due
                tell(done / total)
            time.sleep(TICK_SECONDS)
        return sent
