"""Builds what the HTTP API reads and changes, from the settings. Needs the extra `api`."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import Any

from config.settings import Settings
from dispatcher.api.responses import ApiParts
from dispatcher.producer import AsyncDispatcher
from dispatcher.store.api_keys import ApiKeys
from dispatcher.store.callbacks import Callbacks
from dispatcher.store.connection import connect_async
from dispatcher.store.messages import Messages
from dispatcher.store.producer_keys import ProducerKeys
from dispatcher.store.queue_writer import QueueWriter
from dispatcher.store.refused_calls import Refusals
from dispatcher.store.searches import Searches
from dispatcher.store.sessions import Sessions
from dispatcher.store.stats import Stats
from dispatcher.store.wire import Wire
from tasks import wiring

ARCHIVE_SECONDS = 5.0
"""How long a call waits for the archive."""


@asynccontextmanager
async def api(settings: Settings) -> AsyncIterator[ApiParts]:
    """What the HTTP API reads and changes; closes its connections at the end."""
    async with AsyncExitStack() as closing:
        if settings.partitions > 1:  # who has one partition loads nothing of it
            stored = import_module("tasks.across_api_wiring").stored(settings, closing)
        else:
            stored = _stored(settings, closing)
        if archive := wiring.archive(settings, ARCHIVE_SECONDS):
            closing.push_async_callback(archive.aclose)
            stored |= import_module("tasks.archive_api_wiring").with_archive(settings, stored, archive)
        yield ApiParts(
            **stored,
            addresses=wiring.addresses(settings),
            console_url=settings.console_url or "",
            allow_http=settings.allow_http,
            max_queued=settings.api_max_queued,
            webhook_changes_per_minute=settings.webhook_changes_per_minute,
        )


def _stored(settings: Settings, closing: AsyncExitStack) -> dict[str, Any]:
    """What there is in Redis, by the names of ApiParts."""
    url = wiring.redis_url(settings)
    client = connect_async(url)
    closing.push_async_callback(client.aclose)
    wire = Wire(client)
    closing.push_async_callback(wire.close)
    refusals = Refusals(wire.call, wiring.keys(settings), url)
    closing.push_async_callback(refusals.close)
    reading = client, wiring.keys(settings), url
    retention_ms = settings.status_retention_seconds * 1000
    api_keys = ApiKeys(wire.call, wiring.keys(settings), url)
    return {
        "messages": Messages(wire.call, wiring.keys(settings), url, retention_ms),
        "callbacks": Callbacks(*reading),
        "stats": Stats(*reading),
        "workspaces": wiring.workspaces(settings, client),
        "api_keys": api_keys,
        "searches": Searches(wire.call, wiring.keys(settings), api_keys, url),
        "sessions": Sessions(wire.call, wiring.keys(settings), url),
        "refusals": refusals,
        "audit": wiring.audit(settings, wire.call),
        "producer": AsyncDispatcher(client, url, settings.key_prefix),
        "producer_keys": ProducerKeys(api_keys),
        "queue": QueueWriter(wire, wiring.keys(settings), url),
    }
