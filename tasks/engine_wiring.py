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
from dispatcher.rules.source_addresses import source_addresses
from dispatcher.sending.pool import MAX_OPEN
from dispatcher.sending.sender import Sender
from dispatcher.sending.source import Source
from dispatcher.sending.spans import SpanSender, Tracer
from dispatcher.sending.tls import tls_context
from dispatcher.sending.tokens import Tokens
from dispatcher.sending.transport import CallbackTransport, http_client
from dispatcher.store.scripts import read_all
from dispatcher.worker.alerts import AlertOptions, Alerts
from dispatcher.worker.disabling import DisablingRules
from dispatcher.worker.engine import Engine
from dispatcher.worker.heartbeat import Heartbeat
from dispatcher.worker.hints import Hints, Publish
from dispatcher.worker.load import Load
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.slots import Slots
from dispatcher.worker.turns import Turns
from tasks import wiring
from tasks.partition_wiring import Partitions, Shared

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
    spans = tracer(settings, name)
    read_all(archives=settings.archive_url is not None)
    dialects()  # loaded now, like the scripts: the files may be gone later, while a new version is installed
    servers = wiring.servers(settings)
    http = transport(settings, max_connections)
    tokens = Tokens(http_client(http), settings.request_timeout_seconds, allow_http=settings.allow_http)
    operator = http_client(operator_transport(settings))
    shared = Shared(
        name=name,
        sender=SpanSender(http, USER_AGENT, spans, settings.traces_sample or 0, tokens=tokens)
        if spans
        else Sender(http, USER_AGENT, tokens),
        slots=Slots(max_in_flight),
        alerts=Alerts(name, alert_options(settings), operator, metrics),
        rules=disabling_rules(settings),
        metrics=metrics,
        health=health,
    )
    async with AsyncExitStack() as closing:
        for close in (
            servers.aclose,
            operator.aclose,
            http.aclose,
            tokens.aclose,
            *((spans.aclose,) if spans else ()),
        ):  # closed in reverse order
            closing.push_async_callback(close)
        partitions = Partitions(settings, servers, shared, closing)
        hints, load = Hints(publish, metrics), Load()
        turns = Turns(partitions.parts, hints, load)
        heartbeat = Heartbeat(name, turns, shared.slots, load, metrics)
        owner = partitions.owner(turns, heartbeat)
        sweeper, alert_loop = partitions.sweeper, partitions.alert_loop()
        yield Engine(
            partitions.parts, hints, turns, owner, heartbeat, sweeper, alert_loop, partitions.agree_at_start
        )
