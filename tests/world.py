"""A ledger whose clock is in the test's hands, driven without `await`."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from dispatcher.model import Status
from dispatcher.rules.callback import Callback
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import Attempt, Delivered, EndpointHealth, Outcome, Released
from dispatcher.store.arguments import LedgerOptions, Room, ToAccept
from dispatcher.store.callbacks import Callbacks
from dispatcher.store.endpoints import Endpoints
from dispatcher.store.installation import Installation
from dispatcher.store.keys import Keys, endpoint_id
from dispatcher.store.ledger import Ledger
from dispatcher.store.rejected import Rejected
from dispatcher.store.replies import Claim, Settled, Settlement, ToClaim, ToSettle
from dispatcher.store.stats import Stats
from dispatcher.store.stored_callback import StoredCallback
from dispatcher.store.wire import Call, Wire

T = TypeVar("T")

START_MS = 1_800_000_000_000
TOKEN = "leader"


def callback(
    event_id: str,
    *,
    endpoint: str = "acme https://a.example:443",
    message: str = "m1",
    ttl_ms: int = 172_800_000,
    digest: str = "d",
    timestamp_ms: int = START_MS,
    size: int = 20,
) -> Callback:
    """A callback as intake renders it."""
    return Callback(
        workspace=EndpointName.parse(endpoint).workspace,
        event_id=event_id,
        event_type="MESSAGE_SENT",
        status=Status.SENT,
        message_uuid=message,
        url="https://a.example/hooks",
        endpoint=endpoint,
        body=b"x" * size,
        digest=digest,
        timestamp_ns=timestamp_ms * 1_000_000,
        ttl_ms=ttl_ms,
    )


class World:
    """One Redis, one ledger, one clock."""

    def __init__(
        self,
        client: Any,
        wire: Wire | None = None,
        *,
        keys: Keys | None = None,
        call: Call | None = None,
        runner: asyncio.Runner | None = None,
        **options: int,
    ) -> None:
        self.now = START_MS
        self.keys = keys or Keys()
        self.client = client
        call = call or (wire.call if wire else client.execute_command)
        self.wire = wire
        self.ledger = Ledger(call, self.keys, options=LedgerOptions(**options), clock=lambda: self.now)
        self.installation = Installation(client, self.keys)
        self.endpoints = Endpoints(client, self.keys)
        self.rejected = Rejected(client, self.keys)
        self.callbacks = Callbacks(client, self.keys)
        self.stats = Stats(client, self.keys)
        self.settled: Settled | None = None
        """What the last settle returned."""
        self.claims: list[tuple[str, Claim]] = []
        """What the last accept leased at once."""
        self._runner = runner or asyncio.Runner()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result."""
        return self._runner.run(coroutine)

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A command of Redis."""

        async def send() -> Any:
            return await getattr(self.client, name)(*args, **kwargs)

        return self.run(send())

    def lead(self, token: str = TOKEN, lease_ms: int = 10**9, *, full: bool = False) -> int | None:
        """Takes the lease of intake; returns how many entries were read and not accepted."""
        found = self.run(self.ledger.lead(token, lease_ms, full=full))
        return found and found.pending

    def enqueued(self, count: int) -> list[str]:
        """New entries of the queue, by id."""
        return [self.call("xadd", self.keys.events, {"event": "x"}).decode() for _ in range(count)]

    def accept(
        self,
        *callbacks: Callback,
        skipped: Sequence[str] = (),
        claim: int = 0,
        room: Room | None = None,
        entries: Sequence[str] | None = None,
        archived: Mapping[str, str] | None = None,
    ) -> tuple[list[str], list[str]]:
        """Endpoints to hint, and a word for each callback. `archived`: what the archive has said, by eventId."""
        batch = ToAccept(zip(entries or self.enqueued(len(callbacks)), callbacks, strict=True))
        without = [(entry, "acme") for entry in skipped]
        said = {("acme", id_): digest for id_, digest in (archived or {}).items()}
        accepted = self.run(self.ledger.accept(TOKEN, {}, without, batch, room or Room(claim), archived=said))
        self.claims = accepted.claims
        return [hint.endpoint for hint in accepted.hints], accepted.words

    def claim(self, endpoint: str = "acme https://a.example:443", count: int = 50) -> Claim:
        """What one claim gives, by the endpoint's name."""
        [claimed] = self.run(self.ledger.claim([ToClaim(endpoint_id(endpoint), count)]))
        assert isinstance(claimed, Claim), claimed
        return claimed

    def settle(
        self,
        event_id: str,
        claim: int,
        outcome: Outcome | None = None,
        *,
        endpoint: str = "acme https://a.example:443",
        error: str | None = None,
        health: EndpointHealth = EndpointHealth.NONE,
        retry_after_ms: int = 0,
        losses: int = 0,
        claim_next: int = 0,
    ) -> tuple[bool, bool]:
        """Records one outcome: whether the endpoint has more, and whether it counted."""
        attempt = (
            None if isinstance(outcome, Released) else Attempt(self.now, 5, None if error else 200, error)
        )
        one = Settlement(event_id, claim, outcome or Delivered(), attempt, health, retry_after_ms, losses)
        [self.settled] = self.run(self.ledger.settle([ToSettle(endpoint_id(endpoint), [one], claim_next)]))
        return self.settled.more, self.settled.counted[0]

    def event(self, event_id: str, workspace: str = "acme") -> StoredCallback:
        """The ledger's entry; it must be there."""
        found = self.run(self.callbacks.get(workspace, event_id))
        assert found
        return found

    def deliver_all(self, *endpoints: str) -> list[str]:
        """Claims and delivers until nothing is due; the eventIds in order."""
        delivered: list[str] = []
        for endpoint in endpoints or ("acme https://a.example:443",):
            while claim := self.claim(endpoint).callbacks:
                for one in claim:
                    self.settle(one.event_id, one.claim, endpoint=endpoint, health=EndpointHealth.UP)
                    delivered.append(one.event_id)
        return delivered

    def close(self) -> None:
        """Closes the client and the loop."""
        if self.wire:
            self.run(self.wire.close())
        self.run(self.client.aclose())
        self._runner.close()
