"""Builds what the HTTP API of an installation with several partitions reads and changes."""

from contextlib import AsyncExitStack
from typing import Any

from config.settings import Settings
from dispatcher.store.across.api_keys import ApiKeysAcross
from dispatcher.store.across.api_producer import ProducerAcross
from dispatcher.store.across.audit import AuditAcross
from dispatcher.store.across.callbacks import CallbacksAcross
from dispatcher.store.across.messages import MessagesAcross
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.across.queue_writer import QueueWriterAcross
from dispatcher.store.across.refused_calls import RefusalsAcross
from dispatcher.store.across.searches import SearchesAcross
from dispatcher.store.across.stats import StatsAcross
from dispatcher.store.across.workspaces import WorkspacesAcross
from dispatcher.store.audit import operator
from dispatcher.store.producer_keys import ProducerKeys
from dispatcher.store.sessions import Sessions
from tasks import wiring


def stored(settings: Settings, closing: AsyncExitStack) -> dict[str, Any]:
    """What there is in Redis, by the names of ApiParts; `closing` closes its connections."""
    servers = wiring.servers(settings)
    closing.push_async_callback(servers.aclose)
    of = Partitions(servers, needs_all=True)
    refusals, api_keys = RefusalsAcross(of), ApiKeysAcross(of)
    closing.push_async_callback(refusals.close)
    queue = QueueWriterAcross(of)
    return {
        "messages": MessagesAcross(of, settings.status_retention_seconds * 1000),
        "callbacks": CallbacksAcross(of),
        "stats": StatsAcross(of),
        "workspaces": WorkspacesAcross(of, lambda *of_one: wiring.workspaces(settings, *of_one)),
        "api_keys": api_keys,
        "searches": SearchesAcross(of, api_keys),
        "sessions": of.on_wire(Sessions)(0),
        "refusals": refusals,
        "audit": AuditAcross.of(of, operator(), settings.ledger_retention_seconds * 1000),
        "producer": ProducerAcross(queue, settings.api_max_queued),
        "producer_keys": ProducerKeys(api_keys),
        "queue": queue,
        "is_divided": True,
    }
