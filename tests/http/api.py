"""The HTTP API on a real Redis, with two workspaces of each platform; the clock is in the test's hands."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI

from dispatcher.api.app import create_app
from dispatcher.api.responses import ApiParts
from dispatcher.model import StatusChange
from dispatcher.producer import AsyncDispatcher
from dispatcher.rules.addresses import AddressPolicy
from dispatcher.rules.callback import Callback
from dispatcher.rules.dialects import dialects, platform_of
from dispatcher.rules.outcomes import Attempt, Retry
from dispatcher.rules.render import RenderOptions, render
from dispatcher.store.api_keys import PRODUCERS, ApiKeys
from dispatcher.store.archive.archive import Archive
from dispatcher.store.archive.history import CallbacksAndArchive
from dispatcher.store.archive.stored_messages import MessagesAndArchive
from dispatcher.store.arguments import WITH_MESSAGES, LedgerOptions, ToAccept
from dispatcher.store.audit import Audit, Who
from dispatcher.store.callbacks import Callbacks
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import Keys, endpoint_id
from dispatcher.store.ledger import Ledger
from dispatcher.store.messages import Messages
from dispatcher.store.messages_to_archive import MessagesToArchive
from dispatcher.store.producer_keys import ProducerKeys
from dispatcher.store.queue_writer import QueueWriter
from dispatcher.store.refused_calls import Refusals
from dispatcher.store.replies import Claim, Settlement, ToClaim, ToSettle
from dispatcher.store.sealing import SecretBox
from dispatcher.store.searches import Searches
from dispatcher.store.sessions import Sessions
from dispatcher.store.stats import Stats
from dispatcher.store.wire import Wire
from dispatcher.store.workspaces import Workspaces
from dispatcher.worker.message_archiver import MessageArchiver
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.recorder import Recorder
from tests.messages import TOKEN, change, tell

T = TypeVar("T")

WEEK_MS = 604_800_000
AT = 1_800_000_000_000
"""2027-01-15T08:00:00Z"""
PLATFORMS = sorted({platform_of(dialect) for dialect in dialects()})


def messages_of(workspace: str) -> list[StatusChange]:
    """What a workspace's messages went through; ids are `m-…` for `acme-…`, and the same behind `r` for `rival-…`."""
    prefix, dialect = workspace.split("-")
    p = "" if prefix == "acme" else "r"
    told = {
        "segments": 1,
        "units": 1,
        "attempts": 1,
        "network": "MTN",
        "accepted_at": "2027-01-15T07:59:58Z",
        "campaign_id": f"{p}spring",
        "customer_message_id": f"{p}order-1",
        "reference": {"service": "SHOP", "action": "PAID", "key": f"{p}invoice 7"},
        "provider": {"name": "mtn_ghana", "id": "p-1", "status": "delivered", "code": "0"},
    }
    one = {"workspace": workspace, "dest": "+233202007745" if not p else "+390000000001"}
    cost = {"cost": "0.0350", "currency": "GHS"}
    return [
        change("SUBMITTED", f"{p}m-1", at_ms=AT, **one, **told),
        change("SENT", f"{p}m-1", at_ms=AT + 1000, **one),
        change("DELIVERED", f"{p}m-1", at_ms=AT + 7000, event_id=f"{p}evt-{dialect}", **one, **cost),
        change("QUEUED", f"{p}m-2", at_ms=AT + 60_000, campaign_id=f"{p}spring", **one),
        change("SENT", f"{p}m-3", at_ms=AT + 120_000, campaign_id=f"{p}spring", **one),
        change("EXPIRED", f"{p}m-4", at_ms=AT + 180_000, campaign_id=f"{p}spring", **one),
        change(
            "FAILED", f"{p}m-5", at_ms=AT + 240_000, error={"code": "E003", "message": "No credits"}, **one
        ),
        change(
            "BUFFERED", f"{p}m-6", at_ms=AT + 300_000, channel="RCS", customer_message_id=f"{p}order-6", **one
        ),
        change("READ", f"{p}m-6", at_ms=AT + 400_000, channel="RCS", **one),
    ]


async def _allowed() -> None:
    """Every worker knows what is retired."""


class Api:
    """The application, asked without sockets; what is behind it is real."""

    def __init__(
        self, url: str, *, redis_away: bool = False, docs: bool = False, archive: Archive | None = None
    ) -> None:
        self.url = url
        self.keys = Keys()
        self.now = AT + 3_600_000
        self.api_keys: dict[str, str] = {}
        self.client = connect_async("redis://127.0.0.1:1" if redis_away else url)
        self.wire = Wire(self.client)
        self._runner = asyncio.Runner()
        self.app: FastAPI = create_app(self._parts, docs=docs)
        api_keys = ApiKeys(self.wire.call, self.keys, url)
        self.parts = ApiParts(
            messages=Messages(self.wire.call, self.keys, url),
            callbacks=Callbacks(self.client, self.keys, url),
            stats=Stats(self.client, self.keys, url),
            workspaces=Workspaces(self.client, self.keys, SecretBox()),
            api_keys=api_keys,
            searches=Searches(self.wire.call, self.keys, api_keys, url),
            sessions=Sessions(self.wire.call, self.keys, url),
            console_url="https://callbacks.example.com",
            refusals=Refusals(self.wire.call, self.keys, url),
            audit=Audit(self.wire.call, self.keys, url, Who("api", "nobody")),
            producer=AsyncDispatcher(self.client, url),
            producer_keys=ProducerKeys(api_keys),
            queue=QueueWriter(self.wire, self.keys, url),
            addresses=AddressPolicy(),
            max_queued=5,
            webhook_changes_per_minute=1000,
            now_ms=lambda: self.now,
        )
        self.archive = archive
        if archive:
            self.parts = replace(
                self.parts,
                messages=MessagesAndArchive(self.parts.messages, archive.messages, WEEK_MS),
                callbacks=CallbacksAndArchive(Callbacks(self.client, self.keys, url), archive),
            )
        self.app.state.parts = self.parts
        if not redis_away:
            self.run(self._fill())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result."""
        return self._runner.run(coroutine)

    def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, content: Any = None
    ) -> httpx.Response:
        """One request; no answer may be kept by anybody."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
                answer = await client.request(method, path, headers=headers, content=content)
                assert "no-store" == answer.headers["Cache-Control"], "whatever is answered"
                return answer

        return self.run(ask())

    def to_archive(self, *, open_too: bool) -> None:
        """Takes messages to the archive and out of Redis: those that are over, or all."""
        assert self.archive
        ledger = Ledger(
            self.wire.call, self.keys, options=LedgerOptions(archives=True), clock=lambda: self.now
        )
        source = MessagesToArchive(self.wire, self.keys, self.url)
        # of a week that a record is kept nothing has passed
        kept_ms = 2 * WEEK_MS + 1000 if open_too else WEEK_MS
        archiver = MessageArchiver(source, ledger, self.archive.messages, Metrics(), 0, kept_ms)

        async def take() -> None:
            assert self.archive
            await self.archive.migrate()
            await self.client.set(self.keys.format, WITH_MESSAGES)
            await archiver.take(TOKEN, self.now + (WEEK_MS if open_too else 0), _allowed)

        self.run(take())

    def records(self) -> int:
        """How many messages Redis has."""
        return len(self.run(self.client.keys(self.keys.status("*", "*"))))

    def close(self) -> None:
        """Closes the connection."""
        self.run(self.parts.refusals.close())
        if self.archive:
            self.run(self.archive.aclose())
        self.run(self.wire.close())
        self.run(self.client.aclose())
        self._runner.close()

    @asynccontextmanager
    async def _parts(self) -> AsyncIterator[ApiParts]:
        yield self.parts

    async def _fill(self) -> None:
        parts = self.parts
        for dialect in PLATFORMS:
            for workspace in (f"acme-{dialect}", f"rival-{dialect}"):
                url = "" if workspace == "acme-qlara" else f"https://{workspace}.example/hooks"
                await parts.workspaces.add(workspace, dialect, url, now_ms=AT)
                _, text = await parts.api_keys.add(
                    workspace, dialect, "test", now_ms=AT, rate_per_second=5000
                )
                self.api_keys[workspace] = text
                await self._record(workspace, dialect)
        _, text = await parts.api_keys.add(PRODUCERS, PRODUCERS, "billing", now_ms=AT, rate_per_second=5000)
        self.api_keys["producer"] = text
        _, text = await parts.api_keys.add("acme-zeckta", "zeckta", "slow", now_ms=AT, rate_per_second=1)
        self.api_keys["slow"] = text

    async def _record(self, workspace: str, dialect: str) -> None:
        options = LedgerOptions(archives=self.archive is not None)
        ledger = Ledger(self.client.execute_command, self.keys, options=options, clock=lambda: self.now)
        await ledger.lead(TOKEN, 10_000_000)
        changes = messages_of(workspace)
        await tell(ledger, Recorder(WEEK_MS), changes, dialect)
        found = await self.parts.workspaces.require(workspace)
        callback = render(changes[2], found, AT, RenderOptions())
        if isinstance(callback, Callback):
            await self._attempt(callback)

    async def _attempt(self, callback: Callback) -> None:
        """Accepts a callback and lets its first attempt fail."""
        ledger = Ledger(self.client.execute_command, self.keys, clock=lambda: AT + 7000)
        await ledger.accept(TOKEN, {}, [], ToAccept([("1-1", callback)]))
        endpoint = endpoint_id(callback.endpoint)
        [claim] = await ledger.claim([ToClaim(endpoint, 1)])
        assert isinstance(claim, Claim)
        [claimed] = claim.callbacks
        attempt = Attempt(AT + 7012, 30, 503, "http_503")
        settlement = Settlement(claimed.event_id, claimed.claim, Retry(15_000), attempt)
        await ledger.settle([ToSettle(endpoint, [settlement])])
