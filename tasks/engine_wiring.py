"""Settings become objects: what sends, a worker's engine with all its parts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from config.settings import Settings
from dispatcher import __version__
from dispatcher.health import Health
from dispatcher.rules.addresses import AddressPolicy
from dispatcher.rules.dialects import dialects
from dispatcher.rules.render import RenderOptions
from dispatcher.sending.sender import Sender
from dispatcher.sending.transport import CallbackTransport, tls_context
from dispatcher.store import format
from dispatcher.store.attempt_channel import AttemptChannel
from dispatcher.store.connection import connect_async
from dispatcher.store.lookup import Lookup
from dispatcher.store.queue import Queue
from dispatcher.store.replies import Ended
from dispatcher.store.scripts import read_all
from dispatcher.store.stats import Stats
from dispatcher.store.wire import Wire
from dispatcher.store.workspaces import WorkspaceCache
from dispatcher.worker.alerts import AlertOptions, Alerts
from dispatcher.worker.engine import Engine, Publish
from dispatcher.worker.intake import Intake
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.recorder import Recorder
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.settler import Settler
from dispatcher.worker.slots import Slots
from dispatcher.worker.sweeper import Sweeper
from dispatcher.worker.tail import Tail
from dispatcher.worker.turn import TurnParts
from tasks import retrying, wiring

USER_AGENT = f"callback-dispatcher/{__version__}"


def transport(settings: Settings) -> CallbackTransport:
    """The HTTP transport; made within a running loop."""
    proxy = settings.proxy_url
    return CallbackTransport(
        wiring.addresses(settings),
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


@asynccontextmanager
async def engine(
    settings: Settings, name: str, max_in_flight: int, metrics: Metrics, health: Health, publish: Publish
) -> AsyncIterator[Engine]:
    """An engine with all its parts; closes them after it. `max_in_flight`: what this process has descriptors for.

    `metrics` and `health` are told what it does; `publish` sends a hint to some worker, in a thread.
    """
    url = wiring.redis_url(settings)
    read_all()
    dialects()  # with the scripts: files may be away later, while a new version is installed
    client = connect_async(url)
    http = transport(settings)
    wire, reading = Wire(client), Wire(client)  # a read that waits would hold up what is sent behind it
    watch = RedisWatch(metrics, health)
    cache = WorkspaceCache(wiring.workspaces(settings, client))
    lookup = Lookup(client, wiring.keys(settings), url)
    operator = operator_transport(settings)
    alerts = Alerts(name, alert_options(settings), operator)

    def ended(one: Ended) -> None:
        metrics.ended[one.state.value] += 1
        alerts.ended(one)

    of_turns = wiring.ledger(settings, wire.call, ended)
    parts = TurnParts(
        ledger=of_turns,
        settler=Settler(of_turns),
        sender=Sender(http, USER_AGENT),
        workspaces=cache,
        watch=watch,
        policy=retrying.policy(settings),
        slots=Slots(max_in_flight),
        alerts=alerts,
        tail=Tail(AttemptChannel(wire.call, wiring.keys(settings), url)),
        metrics=metrics,
        turn_seconds=settings.turn_seconds,
        request_timeout_seconds=settings.request_timeout_seconds,
    )

    retention_ms = settings.status_retention_seconds * 1000
    recorder = Recorder(retention_ms, metrics) if retention_ms else None

    def make_intake(engine: Engine) -> Intake:
        options = RenderOptions(settings.allow_http, settings.expiry_seconds * 1000)
        return Intake(
            Queue(reading.call, wiring.keys(settings), url),
            parts.ledger,
            cache,
            watch,
            engine,
            recorder=recorder,
            metrics=metrics,
            options=options,
        )

    async def agree() -> None:
        found = await lookup.format()
        await format.agree(of_turns, found, lookup.workers, format.OLDER_SECONDS)

    try:
        stats = Stats(client, wiring.keys(settings), url)
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
