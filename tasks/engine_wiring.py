"""Builds the HTTP transport and a worker's engine with all its parts, from the settings."""

import functools
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module

from config.settings import Settings
from dispatcher import __version__
from dispatcher.errors import InvalidInput, extra_needed
from dispatcher.health import Health
from dispatcher.rules.addresses import AddressPolicy, parse_callback_url
from dispatcher.rules.dialects import dialects
from dispatcher.rules.render import RenderOptions
from dispatcher.rules.source_addresses import source_addresses
from dispatcher.sending.pool import MAX_OPEN
from dispatcher.sending.sender import Sender
from dispatcher.sending.source import Source
from dispatcher.sending.spans import SpanSender, Tracer
from dispatcher.sending.tls import tls_context
from dispatcher.sending.tokens import Tokens
from dispatcher.sending.transport import CallbackTransport, http_client
from dispatcher.store import format
from dispatcher.store.attempt_channel import AttemptChannel
from dispatcher.store.audit import Who
from dispatcher.store.client_certificates import ClientCertificates
from dispatcher.store.connection import connect_async
from dispatcher.store.endpoints import Endpoints
from dispatcher.store.installation import Installation
from dispatcher.store.queue import Queue
from dispatcher.store.replies import Ended
from dispatcher.store.scripts import read_all
from dispatcher.store.stats import Stats
from dispatcher.store.subscriptions import Subscriptions
from dispatcher.store.wire import Wire
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.worker.alert_loop import AlertLoop
from dispatcher.worker.alerts import AlertOptions, Alerts
from dispatcher.worker.disabling import Disabler, DisablingRules
from dispatcher.worker.engine import Engine
from dispatcher.worker.hints import Hints, Publish
from dispatcher.worker.intake import Intake
from dispatcher.worker.load import Load
from dispatcher.worker.lost_leases import LostLeases
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.recorder import Recorder
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.settler import Settler
from dispatcher.worker.slots import Slots
from dispatcher.worker.sweeper import Sweeper
from dispatcher.worker.tail import Tail
from dispatcher.worker.turn import TurnParts
from dispatcher.worker.turns import Turns
from dispatcher.worker.waker import Waker
from tasks import wiring

USER_AGENT = f"callback-dispatcher/{__version__}"


def transport(
    settings: Settings, max_connections: int = MAX_OPEN, *, only_looks_up: bool = False
) -> CallbackTransport:
    """The HTTP transport for callbacks. Call it within a running event loop.

    Raises InvalidInput for a source address that this machine does not have, unless it `only_looks_up` names.
    """
    proxy = settings.proxy_url
    source = {} if only_looks_up else source_addresses(settings.source_address)
    return CallbackTransport(
        wiring.addresses(settings),
        settings.request_timeout_seconds,
        dns_servers=settings.dns_servers,
        new_tls=functools.partial(tls_context, settings.ca_file),
        proxy_url=proxy.get_secret_value() if proxy else None,
        source=Source(source) if source else None,
        max_open=max_connections,
    )


def operator_transport(settings: Settings) -> CallbackTransport:
    """The HTTP transport to the operator's own URL, which may have any address. Call it within a running event loop."""
    everywhere = AddressPolicy.of(("0.0.0.0/0", "::/0"), ())
    tls = tls_context(settings.ca_file)
    return CallbackTransport(everywhere, settings.request_timeout_seconds, tls=tls)


def alert_options(settings: Settings) -> AlertOptions:
    """When to alert, and at which URL."""
    given, secret = settings.alert_url, settings.alert_secret
    url = parse_callback_url(given.get_secret_value(), allow_http=True).url if given else ""
    return AlertOptions(
        url,  # normalized, so that httpx and our check read the same host
        secret.get_secret_value() if secret else "",
        settings.alert_down_seconds,
        settings.alert_success_rate,
    )


def disabling_rules(settings: Settings) -> DisablingRules:
    """After how long a receiver is gone for good."""
    seconds = settings.disable_after_gone_seconds, settings.disable_after_failing_seconds
    return DisablingRules(*(1000 * one for one in seconds))


def tracer(settings: Settings, name: str) -> Tracer | None:
    """What makes attempts spans; None if none are to be, also by OTEL_SDK_DISABLED. OpenTelemetry is loaded only here.

    `name` is this worker's. Raises InvalidInput without the extra `otel`, and for variables of OpenTelemetry that are wrong.
    """
    is_disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if settings.traces_sample is None or is_disabled:
        return None
    try:
        open_telemetry = import_module("dispatcher.sending.open_telemetry")
    except ModuleNotFoundError:
        raise InvalidInput(extra_needed("DISPATCHER_TRACES_SAMPLE", "otel")) from None
    except ValueError as error:  # a limit that is no number: the SDK reads them when it is loaded
        raise InvalidInput(f"OpenTelemetry cannot use its variables OTEL_…: {error}") from None
    made: Tracer | None = open_telemetry.from_environment(__version__, name)
    return made


@asynccontextmanager
async def engine(
    settings: Settings,
    name: str,
    max_in_flight: int,
    max_connections: int,
    metrics: Metrics,
    health: Health,
    publish: Publish,
) -> AsyncIterator[Engine]:
    """An engine with all its parts; closes them at the end.

    `max_in_flight` and `max_connections` are how many POSTs and connections this process has descriptors for. The
    engine updates `metrics` and `health`; `publish` sends hints to some worker and runs in a thread.
    """
    url = wiring.redis_url(settings)
    spans = tracer(settings, name)
    read_all()
    dialects()  # loaded now, like the scripts: the files may be gone later, while a new version is installed
    client = connect_async(url)
    http = transport(settings, max_connections)
    tokens = Tokens(http_client(http), settings.request_timeout_seconds, allow_http=settings.allow_http)
    wire, reading = Wire(client), Wire(client)  # a blocking read would delay commands pipelined behind it
    watch = RedisWatch(metrics, health)
    workspaces = wiring.workspaces(settings, client)
    cache = WorkspaceCache(workspaces)
    installation = Installation(client, wiring.keys(settings), url)
    operator = http_client(operator_transport(settings))
    alerts = Alerts(name, alert_options(settings), operator)

    def ended(one: Ended) -> None:
        metrics.ended[one.state.value] += 1
        alerts.ended(one)

    of_turns = wiring.ledger(settings, wire.call, ended)
    audit = wiring.audit(settings, wire.call).by(Who("worker", name))
    rules = disabling_rules(settings)
    disabler = Disabler(Subscriptions(workspaces), cache, of_turns, alerts, audit, rules)
    parts = TurnParts(
        ledger=of_turns,
        settler=Settler(of_turns),
        sender=SpanSender(http, USER_AGENT, spans, settings.traces_sample or 0, tokens=tokens)
        if spans
        else Sender(http, USER_AGENT, tokens),
        workspaces=cache,
        watch=watch,
        policy=wiring.policy(settings),
        slots=Slots(max_in_flight),
        alerts=alerts,
        disabler=disabler,
        tail=Tail(AttemptChannel(wire.call, wiring.keys(settings), url)),
        metrics=metrics,
        turn_seconds=settings.turn_seconds,
        request_timeout_seconds=settings.request_timeout_seconds,
        allow_http=settings.allow_http,
    )

    retention_ms = settings.status_retention_seconds * 1000
    recorder = Recorder(retention_ms, metrics) if retention_ms else None

    async def agree() -> None:
        found = await installation.format()
        await format.agree(of_turns, found, installation.workers, format.OLDER_SECONDS)

    hints, load = Hints(publish), Load()
    turns = Turns(parts, hints, load)
    intake = Intake(
        Queue(reading.call, wiring.keys(settings), url),
        of_turns,
        cache,
        watch,
        turns,
        recorder=recorder,
        metrics=metrics,
        options=RenderOptions(settings.allow_http, settings.expiry_seconds * 1000),
    )
    lost_leases = LostLeases(parts, turns)
    waker = Waker(name, parts, turns, intake, lost_leases, load, agree, wake_seconds=settings.wake_seconds)
    certificates = ClientCertificates(client, wiring.keys(settings), url)
    alert_loop = AlertLoop(alerts, Stats(client, wiring.keys(settings), url), certificates, of_turns.now_ms)
    sweeper = Sweeper(Endpoints(client, wiring.keys(settings), url), of_turns)
    async with AsyncExitStack() as closing:
        for close in (
            client.aclose,
            reading.close,
            wire.close,
            operator.aclose,
            http.aclose,
            tokens.aclose,
            *((spans.aclose,) if spans else ()),
        ):  # closed in reverse order
            closing.push_async_callback(close)
        yield Engine(name, parts, hints, turns, intake, waker, sweeper, alert_loop, agree)
