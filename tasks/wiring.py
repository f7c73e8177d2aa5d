"""Builds the store from the settings: what commands, workers and the API read and change in Redis.

Imports nothing that sends: `engine_wiring.py` builds that, and `api_wiring.py` the API.
"""

import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module

import redis.asyncio

from config.setting_types import fernet_keys
from config.settings import Settings
from dispatcher.errors import InvalidInput, RedisUnavailable
from dispatcher.rules.addresses import AddressPolicy
from dispatcher.rules.backoff import Backoff
from dispatcher.rules.decide import Policy
from dispatcher.store import format
from dispatcher.store.across.absent import Absent
from dispatcher.store.api_keys import ApiKeys
from dispatcher.store.archive.archive import Archive
from dispatcher.store.archive.history import Away, History
from dispatcher.store.arguments import LedgerOptions
from dispatcher.store.audit import Audit, operator
from dispatcher.store.callbacks import Callbacks, Place
from dispatcher.store.client_certificates import ClientCertificates
from dispatcher.store.cluster import ClusterServers
from dispatcher.store.connection import connect_async
from dispatcher.store.endpoints import Endpoints
from dispatcher.store.installation import Installation
from dispatcher.store.keys import Keys, keys_of
from dispatcher.store.ledger import Ledger
from dispatcher.store.redis_url import with_authorities
from dispatcher.store.refused_calls import Refusals
from dispatcher.store.rejected import Rejected
from dispatcher.store.replies import Ended
from dispatcher.store.sealing import SecretBox
from dispatcher.store.servers import PlainServers, Servers
from dispatcher.store.stats import Stats
from dispatcher.store.subscriptions import Subscriptions
from dispatcher.store.topology import Kind, Topology
from dispatcher.store.wire import Call, Wire
from dispatcher.store.wire_client import WireClient
from dispatcher.store.workspaces import Workspaces
from tasks import incomplete


def redis_url(settings: Settings) -> str:
    """The URL of the ledger's Redis, with the certificate authorities to trust."""
    return with_authorities(settings.redis_url.get_secret_value(), settings.redis_ca_file)


def keys(settings: Settings) -> Keys:
    """The Redis keys under this installation's prefix."""
    return Keys(settings.key_prefix)


def servers(settings: Settings) -> Servers:
    """The servers that hold the partitions. Call it within a running event loop."""
    found = _servers(settings)
    if settings.previous_redis_url is None:
        return found
    grown = import_module(
        "dispatcher.store.grown_servers"
    ).GrownServers  # who has not grown loads nothing of it
    return grown(found, previous_url(settings), settings.key_prefix)  # type: ignore[no-any-return]


def previous_url(settings: Settings) -> str:
    """The URL of the Redis that an installation which has grown had before, with the certificate authorities to trust."""
    assert settings.previous_redis_url
    return with_authorities(settings.previous_redis_url.get_secret_value(), settings.redis_ca_file)


def longest_retention_seconds(settings: Settings) -> int:
    """How long Redis remembers a callback after its end, or a message after its last status change, if that is longer."""
    return max(settings.ledger_retention_seconds, settings.status_retention_seconds)


def has_several_servers(settings: Settings) -> bool:
    """Whether the partitions are on several plain servers, by the order of their list."""
    return Topology.parse(redis_url(settings)).kind is Kind.SEVERAL


def _servers(settings: Settings) -> Servers:
    topology = Topology.parse(redis_url(settings))
    of = keys_of(settings.key_prefix, settings.partitions)
    match topology.kind:
        case Kind.ONE | Kind.SENTINEL:
            return PlainServers([redis_url(settings)], of)
        case Kind.SEVERAL:
            return PlainServers(topology.urls, of)
        case Kind.CLUSTER:
            return ClusterServers(topology.urls, of)


def ledger(
    settings: Settings,
    call: Call,
    on_end: Callable[[Ended], None] | None = None,
    of: Keys | None = None,
    url: str = "",
) -> Ledger:
    """The ledger; `call` sends its commands, `on_end` is called for each callback that ends other than delivered.

    `of` and `url` are a partition's keys and server, if it is one of several.
    """
    options = LedgerOptions(
        max_concurrency=settings.max_concurrency,
        max_waiting=settings.max_waiting_per_endpoint,
        retention_ms=settings.ledger_retention_seconds * 1000,
        lease_ms=round(settings.lease_seconds * 1000),
        delivered_body_ms=settings.delivered_body_seconds * 1000,
        breaker_failures=settings.breaker_failures,
        breaker_pause_ms=round(settings.breaker_pause_seconds * 1000),
        breaker_max_pause_ms=round(settings.breaker_max_pause_seconds * 1000),
        archives=settings.archive_url is not None,
    )
    return Ledger(call, of or keys(settings), url or redis_url(settings), options, on_end=on_end)


def workspaces(
    settings: Settings, client: "redis.asyncio.Redis", of: Keys | None = None, url: str = ""
) -> Workspaces:
    """The workspaces, read and written by a client; `of` and `url` as for the ledger."""
    box = SecretBox(fernet_keys(settings.secret_keys))
    return Workspaces(
        client,
        of or keys(settings),
        box,
        url=url or redis_url(settings),
        allow_http=settings.allow_http,
        expiry_seconds=settings.expiry_seconds,
    )


def policy(settings: Settings) -> Policy:
    """The retry policy."""
    backoff = Backoff(settings.backoff_base_seconds, settings.backoff_factor, settings.backoff_jitter)
    return Policy(settings.max_attempts, backoff, round(settings.retry_after_max_seconds * 1000))


def addresses(settings: Settings) -> AddressPolicy:
    """The policy on addresses and ports that callbacks may go to."""
    return AddressPolicy.of(
        settings.allowed_networks, settings.allowed_ports, settings.denied_networks, settings.nat64_prefixes
    )


def audit(
    settings: Settings, call: Call, *, quiet: bool = False, of: Keys | None = None, url: str = ""
) -> Audit:
    """The audit trail, with this process's user as the author; `of` and `url` as for the ledger."""
    retention_ms = settings.ledger_retention_seconds * 1000
    return Audit(call, of or keys(settings), url or redis_url(settings), operator(), retention_ms, quiet)


def archive(settings: Settings, answer_seconds: float | None = None) -> "Archive | None":
    """The archive, not connected yet; None if there is none, and then nothing of it is loaded. Raises InvalidInput.

    answer_seconds: as open_archive takes it
    """
    if settings.archive_url is None:
        return None
    opened = import_module("dispatcher.store.archive.opened")
    found: Archive = opened.open_archive(settings.archive_url.get_secret_value(), answer_seconds)
    return found


@asynccontextmanager
async def opened_archive(settings: Settings) -> AsyncIterator[Archive]:
    """The archive alone, closed at the end. Raises InvalidInput if there is none."""
    found = archive(settings)
    if found is None:
        raise InvalidInput("there is no archive: DISPATCHER_ARCHIVE_URL names it (docs/archive.md)")
    try:
        yield found
    finally:
        await found.aclose()


@dataclass(frozen=True)
class Store:
    """Everything that commands read and change."""

    client: "redis.asyncio.Redis"
    ledger: Ledger
    workspaces: Workspaces
    installation: Installation
    endpoints: Endpoints
    rejected: Rejected
    callbacks: Callbacks
    stats: Stats
    api_keys: ApiKeys
    refusals: Refusals
    audit: Audit
    certificates: ClientCertificates
    absent_so_far: Callable[[], Absent] = lambda: Absent(1)
    """Gives `absent`."""
    nodes: Sequence[tuple["redis.asyncio.Redis", str]] = field(default=(), repr=False)
    """A client for each server, and its URL."""
    partitions: int = 1
    """How many partitions the installation has."""
    away: Callable[[], Mapping[str, RedisUnavailable]] = dict
    """Why each server that is known to be away does not answer, by its URL."""

    archive: "Archive | None" = None
    """What has ended, for long, if there is an archive."""

    @property
    def absent(self) -> Absent:
        """The partitions that did not answer while the caller read (`absent.apart`), or since the store was opened."""
        return self.absent_so_far()

    @property
    def history(self) -> "History":
        """The callbacks of Redis, and those of the archive."""
        return self.history_so_far(None)

    def history_so_far(self, away: "Away | None") -> "History":
        """The same; if the archive does not answer, `away` is called, and it counts as empty."""
        if self.archive is None:
            return self.callbacks
        history = import_module("dispatcher.store.archive.history")
        found: History = history.CallbacksAndArchive(self.callbacks, self.archive, away)
        return found

    @property
    def subscriptions(self) -> Subscriptions:
        """The workspaces' subscriptions."""
        return Subscriptions(self.workspaces)


def first_place(settings: Settings, store: Store) -> Place:
    """The first partition, which also has what belongs to none: sessions, alerts, attempts as they are made."""
    url = store.nodes[0][1] if store.nodes else redis_url(settings)
    return Place(store.client, keys_of(settings.key_prefix, settings.partitions)[0], url)


@asynccontextmanager
async def store(settings: Settings, *, keep: bool = False, goes_on: bool = False) -> AsyncIterator[Store]:
    """The store on its own connections, which are closed at the end. Raises RedisUnavailable, OtherFormat.

    With `keep`, for what is the first to write, an empty Redis is given the data format and the number of partitions.
    With several partitions it is read as far as they answer; at the end `incomplete` says which did not. A previous Redis that is
    empty is refused, or, with `goes_on`, counts as one that does not answer.
    """
    async with AsyncExitStack() as closing:
        found = archive(settings)
        if found:
            closing.push_async_callback(found.aclose)
        opened = _across(settings, keep, goes_on) if settings.partitions > 1 else _alone(settings, keep)
        whole = await closing.enter_async_context(opened)
        yield replace(whole, archive=found)
        if settings.partitions > 1:
            incomplete.note(whole.absent.named(), whole.absent.partitions)


@asynccontextmanager
async def _alone(settings: Settings, keep: bool) -> AsyncIterator[Store]:
    """The store of one partition."""
    async with AsyncExitStack() as closing:
        client = connect_async(redis_url(settings))
        closing.push_async_callback(client.aclose)
        wire = Wire(client)
        closing.push_async_callback(wire.close)
        reading = WireClient(client.connection_pool, wire), keys(settings), redis_url(settings)
        found = ledger(settings, client.execute_command)
        installation = Installation(*reading)
        number = await installation.format()
        if number or keep or not await installation.is_empty():
            await format.agree(found, number, installation.workers)
        yield Store(
            client,
            found,
            workspaces(settings, client),
            installation,
            Endpoints(*reading),
            Rejected(*reading),
            Callbacks(*reading),
            Stats(*reading),
            ApiKeys(wire.call, *reading[1:]),
            Refusals(wire.call, *reading[1:]),
            audit(settings, wire.call, quiet=sys.stderr.isatty()),  # there the command says what it did
            ClientCertificates(*reading),
            nodes=[(client, redis_url(settings))],
        )


@asynccontextmanager
async def _across(settings: Settings, keep: bool, goes_on: bool) -> AsyncIterator[Store]:
    """The store of several partitions."""
    store_across = import_module("tasks.across_wiring").store  # who has one partition loads nothing of it
    async with AsyncExitStack() as closing:
        found = servers(settings)
        closing.push_async_callback(found.aclose)
        yield await store_across(settings, found, keep=keep, goes_on=goes_on)
