"""Settings become objects: the one place where the parts are put together."""

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis.asyncio
from kombu.exceptions import OperationalError

from config import broker
from config.settings import Settings
from dispatcher import __version__, format
from dispatcher.addresses import AddressPolicy
from dispatcher.alerts import AlertOptions, Alerts
from dispatcher.audit import Audit, operator
from dispatcher.backoff import Backoff
from dispatcher.connection import connect_async
from dispatcher.decide import Policy
from dispatcher.dialects import dialects
from dispatcher.engine import Engine
from dispatcher.errors import RedisUnavailable
from dispatcher.events import Events
from dispatcher.intake import Intake
from dispatcher.keys import Keys
from dispatcher.ledger import Ledger, LedgerOptions
from dispatcher.lookup import Lookup
from dispatcher.metrics import Metrics
from dispatcher.producer import AsyncDispatcher
from dispatcher.redis_url import with_authorities
from dispatcher.render import RenderOptions
from dispatcher.replies import Ended, Hint
from dispatcher.scripts import read_all
from dispatcher.secrets import SecretBox
from dispatcher.sender import Sender
from dispatcher.settler import Settler
from dispatcher.slots import Slots
from dispatcher.stats import Stats
from dispatcher.status_api.api_keys import ApiKeys
from dispatcher.status_api.messages import Messages
from dispatcher.status_api.record import Recorder
from dispatcher.status_api.refusals import Refusals
from dispatcher.status_api.searches import Searches
from dispatcher.sweeper import Sweeper
from dispatcher.tail import Tail
from dispatcher.transport import CallbackTransport, tls_context
from dispatcher.turn import TurnParts
from dispatcher.watch import RedisWatch
from dispatcher.wire import Call, Wire
from dispatcher.workspaces import WorkspaceCache, Workspaces

if TYPE_CHECKING:
    from dispatcher.status_api.answers import ApiParts

API_CONNECTIONS = 20
"""Of a process of the API to Redis; one more carries what is most of the calls."""
USER_AGENT = f"callback-dispatcher/{__version__}"


def redis_url(settings: Settings) -> str:
    """The ledger's Redis, with the authorities to trust."""
    return with_authorities(settings.redis_url.get_secret_value(), settings.redis_ca_file)


def keys(settings: Settings) -> Keys:
    """Its keys."""
    return Keys(settings.key_prefix)


def ledger(settings: Settings, call: Call, on_end: Callable[[Ended], None] | None = None) -> Ledger:
    """The ledger, by whatever sends commands."""
    options = LedgerOptions(
        max_concurrency=settings.max_concurrency,
        max_waiting=settings.max_waiting_per_endpoint,
        retention_ms=settings.ledger_retention_seconds * 1000,
        lease_ms=round(settings.lease_seconds * 1000),
        delivered_body_ms=settings.delivered_body_seconds * 1000,
        breaker_failures=settings.breaker_failures,
        breaker_pause_ms=round(settings.breaker_pause_seconds * 1000),
        breaker_max_pause_ms=round(settings.breaker_max_pause_seconds * 1000),
    )
    return Ledger(call, keys(settings), redis_url(settings), options, on_end=on_end)


def workspaces(settings: Settings, client: "redis.asyncio.Redis") -> Workspaces:
    """The workspaces on a client."""
    secret_keys = settings.secret_keys.get_secret_value().split(",") if settings.secret_keys else []
    box = SecretBox([key.strip() for key in secret_keys if key.strip()])
    return Workspaces(client, keys(settings), box, url=redis_url(settings), allow_http=settings.allow_http)


def policy(settings: Settings) -> Policy:
    """The rules of retrying."""
    backoff = Backoff(settings.backoff_base_seconds, settings.backoff_factor, settings.backoff_jitter)
    return Policy(settings.max_attempts, backoff, round(settings.retry_after_max_seconds * 1000))


def addresses(settings: Settings) -> AddressPolicy:
    """Where callbacks may go."""
    return AddressPolicy.of(
        settings.allowed_networks, settings.allowed_ports, settings.denied_networks, settings.nat64_prefixes
    )


def transport(settings: Settings) -> CallbackTransport:
    """The HTTP transport; made within a running loop."""
    proxy = settings.proxy_url
    return CallbackTransport(
        addresses(settings),
        settings.request_timeout_seconds,
        dns_servers=settings.dns_servers,
        tls=tls_context(settings.ca_file),
        proxy_url=proxy.get_secret_value() if proxy else None,
    )


def operator_transport(settings: Settings) -> CallbackTransport:
    """The HTTP transport to the operator's own URL, which may be anywhere; made within a running loop."""
    everywhere = AddressPolicy.of(("0.0.0.0/0", "::/0"), ())
    tls = tls_context(settings.ca_file)
    return CallbackTransport(everywhere, settings.request_timeout_seconds, tls=tls)


def alert_options(settings: Settings) -> AlertOptions:
    """When to alert, and whom."""
    url, secret = settings.alert_url, settings.alert_secret
    return AlertOptions(
        url.get_secret_value() if url else "",
        secret.get_secret_value() if secret else "",
        settings.alert_down_seconds,
        settings.alert_success_rate,
    )


def audit(settings: Settings, call: Call, *, quiet: bool = False) -> Audit:
    """The trail, of what this process's user does."""
    retention_ms = settings.ledger_retention_seconds * 1000
    return Audit(call, keys(settings), redis_url(settings), operator(), retention_ms, quiet)


@asynccontextmanager
async def api(settings: Settings) -> AsyncIterator["ApiParts"]:
    """What the HTTP API reads and changes; closes it after it."""
    from dispatcher.status_api.answers import ApiParts  # needs the extra `api`

    url = redis_url(settings)
    client = connect_async(url)
    client.connection_pool.max_connections = API_CONNECTIONS
    wire = Wire(client)
    reading = client, keys(settings), url
    retention_ms = settings.status_retention_seconds * 1000
    api_keys = ApiKeys(wire.call, keys(settings), url)
    refusals = Refusals(wire.call, keys(settings), url)
    try:
        yield ApiParts(
            messages=Messages(wire.call, keys(settings), url, retention_ms),
            events=Events(*reading),
            stats=Stats(*reading),
            workspaces=workspaces(settings, client),
            api_keys=api_keys,
            refusals=refusals,
            audit=audit(settings, wire.call),
            searches=Searches(wire.call, keys(settings), api_keys, url),
            producer=AsyncDispatcher(client, url, settings.key_prefix),
            addresses=addresses(settings),
            allow_http=settings.allow_http,
            max_queued=settings.api_max_queued,
            webhook_changes_per_minute=settings.webhook_changes_per_minute,
        )
    finally:
        await refusals.close()
        await wire.close()
        await client.aclose()


@dataclass(frozen=True)
class Store:
    """What commands read and change."""

    client: "redis.asyncio.Redis"
    ledger: Ledger
    workspaces: Workspaces
    lookup: Lookup
    events: Events
    stats: Stats
    api_keys: ApiKeys
    refusals: Refusals
    audit: Audit


@asynccontextmanager
async def store(settings: Settings) -> AsyncIterator[Store]:
    """Ledger, workspaces and lookup on a connection that is closed after it."""
    client = connect_async(redis_url(settings))
    wire = Wire(client)
    reading = client, keys(settings), redis_url(settings)
    found = ledger(settings, client.execute_command)
    lookup = Lookup(*reading)
    try:
        await format.agree(found, await lookup.format(), lookup.workers)
        yield Store(
            client,
            found,
            workspaces(settings, client),
            lookup,
            Events(*reading),
            Stats(*reading),
            ApiKeys(wire.call, *reading[1:]),
            Refusals(wire.call, *reading[1:]),
            audit(settings, wire.call, quiet=sys.stderr.isatty()),  # where the command says what it did
        )
    finally:
        await wire.close()
        await client.aclose()


def celery_broker() -> tuple[str, Any]:
    """The URL of Celery's broker, with its password, and a connection to it, for `with`."""
    from tasks.app import app

    return app.conf.broker_url, app.connection_for_write()


def publish(hints: Sequence[Hint]) -> None:
    """Sends a hint: `endpoint workspace` of each."""
    from tasks.deliver import deliver  # the task needs the worker, which needs this module

    deliver.apply_async(([" ".join(hint).rstrip() for hint in hints],), retry=False)


def publish_probe(probe: str) -> None:
    """Sends a hint that only asks who takes it. Raises RedisUnavailable."""
    from tasks.deliver import deliver

    try:
        deliver.apply_async(([],), {"probe": probe}, retry=False)
    except OperationalError as error:
        why = broker.problem(error, deliver.app.conf.broker_url)
        raise RedisUnavailable(f"Celery's broker is not reachable: {why}") from error


@asynccontextmanager
async def engine(
    settings: Settings, name: str, max_in_flight: int, metrics: Metrics
) -> AsyncIterator[Engine]:
    """An engine with all its parts; closes them after it. `max_in_flight`: what this process has descriptors for."""
    url = redis_url(settings)
    read_all()
    dialects()  # with the scripts: files may be away later, while a new version is installed
    client = connect_async(url)
    http = transport(settings)
    wire, reading = Wire(client), Wire(client)  # a read that waits would hold up what is sent behind it
    watch = RedisWatch(metrics)
    cache = WorkspaceCache(workspaces(settings, client))
    lookup = Lookup(client, keys(settings), url)
    operator = operator_transport(settings)
    alerts = Alerts(name, alert_options(settings), operator)

    def ended(one: Ended) -> None:
        metrics.ended[one.state.value] += 1
        alerts.ended(one)

    of_turns = ledger(settings, wire.call, ended)
    parts = TurnParts(
        ledger=of_turns,
        settler=Settler(of_turns),
        sender=Sender(http, USER_AGENT),
        workspaces=cache,
        watch=watch,
        policy=policy(settings),
        slots=Slots(max_in_flight),
        alerts=alerts,
        tail=Tail(wire.call, keys(settings)),
        metrics=metrics,
        turn_seconds=settings.turn_seconds,
        request_timeout_seconds=settings.request_timeout_seconds,
    )

    retention_ms = settings.status_retention_seconds * 1000
    recorder = Recorder(retention_ms, metrics) if retention_ms else None

    def make_intake(engine: Engine) -> Intake:
        options = RenderOptions(settings.allow_http, settings.expiry_seconds * 1000)
        return Intake(
            reading.call,
            parts.ledger,
            cache,
            watch,
            engine,
            recorder=recorder,
            metrics=metrics,
            url=url,
            options=options,
        )

    async def agree() -> None:
        found = await lookup.format()
        await format.agree(of_turns, found, lookup.workers, format.OLDER_SECONDS)

    try:
        stats = Stats(client, keys(settings), url)
        yield Engine(
            name,
            parts,
            make_intake,
            Sweeper(wire.call, of_turns),
            agree,
            watch,
            publish,
            stats,
            wake_seconds=settings.wake_seconds,
        )
    finally:
        await http.aclose()
        await operator.aclose()
        await wire.close()
        await reading.close()
        await client.aclose()
