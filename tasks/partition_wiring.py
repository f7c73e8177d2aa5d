"""Builds what a worker has for each partition, and what leads them: one partition, or a share of several."""

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from importlib import import_module

import redis.asyncio

from config.settings import Settings
from dispatcher.errors import OtherSettings, PreviousUnavailable, RedisUnavailable
from dispatcher.health import Health
from dispatcher.rules.render import RenderOptions
from dispatcher.sending.sender import Sender
from dispatcher.store import format
from dispatcher.store.arrivals import Arrivals, ToldQueue
from dispatcher.store.attempt_channel import AttemptChannel
from dispatcher.store.audit import Who
from dispatcher.store.client_certificates import ClientCertificates
from dispatcher.store.connection import safe_url, translated
from dispatcher.store.endpoints import Endpoints
from dispatcher.store.grown import require_grown, require_previous
from dispatcher.store.installation import Installation
from dispatcher.store.keys import Keys
from dispatcher.store.known_messages import KnownMessages
from dispatcher.store.latest_alerts import LatestAlerts
from dispatcher.store.ledger import Ledger
from dispatcher.store.members import Registry, registries
from dispatcher.store.partition_count import ANSWER_SECONDS, require_partitions, require_places
from dispatcher.store.previous import Previous
from dispatcher.store.queue import Queue
from dispatcher.store.replies import Ended
from dispatcher.store.servers import Servers
from dispatcher.store.stats import Stats
from dispatcher.store.subscriptions import Subscriptions
from dispatcher.store.wire import Wire
from dispatcher.store.workspace_cache import MAX_KNOWN, WorkspaceCache
from dispatcher.worker.alert_loop import AlertLoop, AlertSource
from dispatcher.worker.alerts import Alerts
from dispatcher.worker.archiver import Archiver
from dispatcher.worker.claimer import Claimer
from dispatcher.worker.disabling import Disabler, DisablingRules, Parts
from dispatcher.worker.engine import Owner
from dispatcher.worker.forwarder import Routing
from dispatcher.worker.heartbeat import Heartbeat
from dispatcher.worker.intake import Intake
from dispatcher.worker.lost_leases import LostLeases
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.outages import Outages
from dispatcher.worker.partition_owner import PartitionOwner
from dispatcher.worker.recorder import Recorder
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.retired import RetiredCallbacks
from dispatcher.worker.router import Router
from dispatcher.worker.settler import Settler
from dispatcher.worker.slots import Slots
from dispatcher.worker.sweeper import Sweeper, Sweepers
from dispatcher.worker.tail import Tail
from dispatcher.worker.tenure import Tenure
from dispatcher.worker.turn import TurnParts
from dispatcher.worker.turns import Turns
from dispatcher.worker.waker import Waker
from tasks import wiring


@dataclass(frozen=True)
class Shared:
    """What all partitions of a worker share."""

    name: str
    """The worker's."""
    sender: Sender
    slots: Slots
    alerts: Alerts
    rules: DisablingRules
    metrics: Metrics
    health: Health


class Partitions:
    """A worker's partitions: what turns need of each, and what leads them."""

    def __init__(self, settings: Settings, servers: Servers, shared: Shared, closing: AsyncExitStack) -> None:
        self._settings = settings
        self._servers = servers
        self._shared = shared
        self._closing = closing
        self._watch = RedisWatch(shared.metrics, shared.health, self._names())
        self._outages = Outages(lambda number: servers.node(number).name, shared.metrics)
        self._archive = wiring.archive(settings)
        if self._archive:
            closing.push_async_callback(self._archive.aclose)
        self._waits = Outages(
            self._previous_name,
            begins="intake.waits",
            ends="intake.resumed",
            action="nothing new is accepted until it answers; nothing is lost",
            level=logging.ERROR,
        )
        self._subscriptions: Subscriptions | None = None
        """What disables a subscription in all partitions of its workspace; None if there is one partition."""
        self._of_workspace: Parts | None = None
        if len(servers.keys) > 1:
            receivers = import_module("tasks.across_wiring").receivers
            self._subscriptions, self._of_workspace = receivers(settings, servers, self._ledger_at)
        first = servers.keys[0]
        self._tail = Tail(AttemptChannel(servers.wire(0).call, first, self._url(first)))
        self.parts = [self._parts(keys) for keys in servers.keys]
        self.sweeper = Sweepers([self._sweeper(one) for one in self.parts])

    def alert_loop(self) -> AlertLoop:
        """Looks at the figures of the partitions that this worker leads."""
        sources = [
            AlertSource(
                Stats(self._client(keys), keys, self._url(keys)),
                ClientCertificates(self._client(keys), keys, self._url(keys)),
                parts.ledger.now_ms,
            )
            for keys, parts in zip(self._servers.keys, self.parts, strict=True)
        ]
        first = self._servers.keys[0]
        retention_ms = self._settings.ledger_retention_seconds * 1000
        latest = LatestAlerts(self._servers.wire(0).call, first, self._url(first), retention_ms)
        return AlertLoop(self._shared.alerts, sources, latest)

    def owner(self, turns: Turns, heartbeat: Heartbeat) -> Owner:
        """What leads this worker's partitions."""
        if len(self.parts) == 1:
            reading = Wire(
                self._client(self._servers.keys[0])
            )  # a blocking read would delay commands pipelined behind it
            self._closing.push_async_callback(reading.close)
            queue = Queue(reading.call, self._servers.keys[0], self._url(self._servers.keys[0]))
            return self._tenure(0, queue, turns, heartbeat)
        arrivals = Arrivals(self._servers)
        self._closing.push_async_callback(arrivals.aclose)

        def new_tenure(number: int) -> Tenure:
            keys, call = self._servers.keys[number], self._servers.wire(number).call
            return self._tenure(number, ToldQueue(call, keys, arrivals, self._url(keys)), turns)

        registry = Registry(
            [self.parts[one].ledger for one in registries(self._servers.partitioning.partitions)],
            heartbeat.name,
        )
        return PartitionOwner(
            len(self.parts),
            registry,
            heartbeat,
            new_tenure,
            self._answers,
            turns,
            self._tail,
            self._watch,
            self._outages,
        )

    async def agree_at_start(self) -> None:
        """As `agree` for the only partition. Of several each is looked at when it is first led: a server may be away."""
        if len(self.parts) == 1:
            await self.agree(0)
        else:
            servers, prefix = self._servers, self._settings.key_prefix
            await require_partitions(servers, prefix)
            with suppress(RedisUnavailable):  # as above: the one server that says so may be away
                await require_grown(servers, prefix)
            with suppress(RedisUnavailable, TimeoutError):  # while it is away, nothing new is accepted
                async with asyncio.timeout(ANSWER_SECONDS):
                    await require_previous(servers)
            if wiring.has_several_servers(self._settings):
                await require_places(servers)
            await require_partitions(servers, prefix, keep=True)  # not before: a mistake fixes no number

    async def agree(self, number: int) -> None:
        """Brings the data of a partition to this version's format. Raises OtherFormat, RedisUnavailable."""
        if number == self._servers.partitioning.previous:
            try:
                await require_previous(self._servers)
            except OtherSettings as error:  # since this worker began: it goes on with all other partitions
                raise PreviousUnavailable(str(error)) from error
        installation = self._installation(self._servers.keys[number])
        found = await installation.format()
        await format.agree(self.parts[number].ledger, found, installation.workers, format.OLDER_SECONDS)

    def _installation(self, keys: Keys) -> Installation:
        return Installation(self._client(keys), keys, self._url(keys))

    def _parts(self, keys: Keys) -> TurnParts:
        settings, shared, url = self._settings, self._shared, self._url(keys)
        call = self._servers.wire(keys.partition).call
        ledger = wiring.ledger(settings, call, self._ended, keys, url)
        workspaces = wiring.workspaces(settings, self._client(keys), keys, url)
        cache = WorkspaceCache(workspaces, max(100, MAX_KNOWN // len(self._servers.keys)))
        audit = wiring.audit(settings, call, of=keys, url=url).by(Who("worker", shared.name))
        return TurnParts(
            ledger=ledger,
            claimer=Claimer(ledger),
            settler=Settler(ledger),
            sender=shared.sender,
            workspaces=cache,
            watch=self._watch_of(keys),
            policy=wiring.policy(settings),
            slots=shared.slots,
            alerts=shared.alerts,
            disabler=Disabler(
                self._subscriptions or Subscriptions(workspaces),
                cache,
                ledger,
                shared.alerts,
                audit,
                shared.rules,
                self._of_workspace,
            ),
            tail=self._tail,
            metrics=shared.metrics,
            turn_seconds=settings.turn_seconds,
            request_timeout_seconds=settings.request_timeout_seconds,
            allow_http=settings.allow_http,
            partition=keys.partition,
            is_divided=len(self._servers.keys) > 1,
        )

    def _tenure(self, number: int, queue: Queue, turns: Turns, heartbeat: Heartbeat | None = None) -> Tenure:
        settings, parts = self._settings, self.parts[number]
        retention_ms = settings.status_retention_seconds * 1000
        intake = Intake(
            queue,
            parts.ledger,
            parts.workspaces,
            parts.watch,
            turns,
            recorder=Recorder(retention_ms, self._shared.metrics) if retention_ms else None,
            metrics=self._shared.metrics,
            options=RenderOptions(settings.allow_http, settings.expiry_seconds * 1000),
            routing=self._routing(number),
            retired=RetiredCallbacks(self._archive) if self._archive else None,
        )

        async def agree() -> None:
            await self.agree(number)

        waker = Waker(
            parts,
            turns,
            intake,
            LostLeases(parts, turns),
            agree,
            heartbeat,
            wake_seconds=settings.wake_seconds,
        )
        return Tenure(
            number, intake, waker, None if heartbeat else agree, self._archiver(number, intake, queue)
        )

    def _archiver(self, number: int, intake: Intake, queue: Queue) -> Archiver | None:
        """What takes the partition's ended callbacks to the archive; None if there is no archive."""
        if self._archive is None:
            return None
        archivers = import_module("tasks.archiver_wiring")  # who has no archive loads nothing of it
        made: Archiver = archivers.of_leader(
            archivers.Made(self._settings, self._servers, self._archive, self._shared.metrics),
            number,
            self.parts[number].ledger,
            lambda: intake.token if intake.has_lease else None,
            queue.about,
        )
        return made

    def _routing(self, number: int) -> Routing | None:
        """How intake of a partition forwards; None if there is no other."""
        if len(self.parts) == 1:
            return None
        division = self._servers.partitioning
        previous: Previous | None = None
        if division.previous is not None:
            keys = self._servers.keys[division.previous]
            previous = Previous(self._servers.wire(keys.partition), keys, self._url(keys))
        waits = self._waits.watch(number) if previous else None
        remembered_ms = wiring.longest_retention_seconds(self._settings) * 1000
        router = Router(division, number, remembered_ms=remembered_ms)
        return Routing(router, self._ledger_at, self._known_at, previous, waits)

    def _known_at(self, number: int) -> KnownMessages:
        keys = self._servers.keys[number]
        return KnownMessages(self._servers.wire(number), keys, self._url(keys))

    def _previous_name(self, _waiting: int) -> str:
        """The name of the previous Redis, which all partitions wait for."""
        return self._servers.node(self._servers.partitioning.all[-1]).name

    def _ledger_at(self, number: int) -> Ledger:
        return self.parts[number].ledger

    def _sweeper(self, parts: TurnParts) -> Sweeper:
        keys = parts.ledger.keys
        return Sweeper(Endpoints(self._client(keys), keys, self._url(keys)), parts.ledger)

    def _ended(self, one: Ended) -> None:
        self._shared.metrics.ended[one.state.value] += 1
        self._shared.alerts.ended(one)

    async def _answers(self, number: int) -> bool:
        """Whether the server of a partition answers."""
        try:
            with translated(self._url(self._servers.keys[number])):
                await self._servers.wire(number).call("PING")
        except RedisUnavailable:
            return False
        return True

    def _names(self) -> str:
        """The names of the servers whose silence makes a worker unready: the only one, or those of the registries."""
        count = self._servers.partitioning.partitions
        urls = [self._servers.url(one) for one in (registries(count) if count > 1 else (0,))]
        return ", ".join(dict.fromkeys(map(safe_url, urls)))

    def _client(self, keys: Keys) -> "redis.asyncio.Redis":
        return self._servers.client(keys.partition)

    def _url(self, keys: Keys) -> str:
        return self._servers.url(keys.partition)

    def _watch_of(self, keys: Keys) -> RedisWatch:
        if len(self._servers.keys) == 1:
            return self._watch
        return self._outages.watch(keys.partition)
