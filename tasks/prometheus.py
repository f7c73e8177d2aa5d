"""Prometheus metrics: a worker's own, and those of the whole installation. `metrics_server.py` serves them."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from redis.exceptions import RedisError, ResponseError

from config import logs
from config.settings import Settings
from dispatcher.errors import DispatcherError
from dispatcher.rules.client_certificate import WARN_DAYS
from dispatcher.store.across.absent import Absent
from dispatcher.store.client_certificates import EndingCertificate
from dispatcher.store.damaged import is_of_type
from dispatcher.store.members import Owners
from dispatcher.worker.metrics import Histogram, Metrics
from tasks import wiring

log = structlog.get_logger()


class WorkerCollector:
    """Exposes a worker's metrics. Runs in the HTTP server's thread, and only reads."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """All metrics of this worker."""
        m = self._metrics
        yield _counts(
            "dispatcher_status_changes", "Status changes taken off the queue, by result", ("result",), m.taken
        )
        yield _counts(
            "dispatcher_recorded",
            "Status changes by result in the message store",
            ("result",),
            m.recorded,
        )
        yield _counts(
            "dispatcher_rejected", "Queue entries that could not be used, by reason", ("reason",), m.rejected
        )
        yield _counter(
            "dispatcher_forwarded", "Queue entries handed on to the partition they belong to", m.forwarded
        )
        yield _counts(
            "dispatcher_attempts", "Attempts, by outcome and error word", ("outcome", "error"), m.attempts
        )
        yield _counts(
            "dispatcher_ended", "Callbacks that ended but were not delivered, by state", ("state",), m.ended
        )
        yield _histogram("dispatcher_attempt_seconds", "Duration of an attempt", m.attempt_seconds)
        yield _histogram(
            "dispatcher_delivery_seconds", "Time from acceptance to delivery", m.delivery_seconds
        )
        yield _counts(
            "dispatcher_breaker_changes", "Endpoints that paused or recovered", ("change",), m.breakers
        )
        yield _counter("dispatcher_redis_errors", "Failed Redis calls", m.redis_errors)
        yield _counter(
            "dispatcher_late_results", "Results refused because their lease had expired", m.lease_losses
        )
        yield _counter("dispatcher_archived", "Ended callbacks that were put into the archive", m.archived)
        yield _counter(
            "dispatcher_archived_messages", "Messages that were put into the archive", m.archived_messages
        )
        yield _counter("dispatcher_archive_errors", "Batches that the archive did not take", m.archive_errors)
        yield _histogram(
            "dispatcher_archive_seconds",
            "Duration of a batch that was put into the archive",
            m.archive_seconds,
        )
        yield _counter("dispatcher_log_lines_lost", "Log lines that could not be written", logs.lost())
        yield _counter(
            "dispatcher_hints_unpublished", "How often the broker did not take hints", m.hints_unpublished
        )
        yield _counter(
            "dispatcher_alerts_not_sent",
            "POSTs of alerts that the operator's URL did not take",
            m.alerts_not_sent,
        )
        yield _gauge(
            "dispatcher_broker_connected",
            "1 if Celery is connected to the broker, by which hints come",
            int(m.broker_connected),
        )
        yield _gauge("dispatcher_turns", "Endpoints that this worker serves now", m.turns)
        yield _gauge("dispatcher_in_flight", "POSTs under way in this worker", m.in_flight)
        yield _gauge("dispatcher_loop_lag_seconds", "Lag of this worker's event loop", m.loop_lag_seconds)
        yield _gauge("dispatcher_leads_intake", "1 if this worker leads intake", int(m.leads_intake))
        yield _gauge("dispatcher_partitions_owned", "Partitions that this worker leads", m.partitions_owned)


_GAUGES = (
    ("dispatcher_queue_entries", "Status changes on the queue", "queued"),
    ("dispatcher_queue_age_seconds", "Age of the oldest status change on the queue", "queue_age"),
    ("dispatcher_waiting_callbacks", "Callbacks that have not ended", "waiting"),
    (
        "dispatcher_oldest_due_seconds",
        "How long the longest-due callback that nothing holds (no outage, pause or stop) has been due",
        "due",
    ),
    ("dispatcher_longest_down_seconds", "Duration of the longest current endpoint outage", "down"),
    ("dispatcher_expiring_callbacks", "Callbacks that expire within an hour", "expiring"),
    (
        "dispatcher_expiring_down_callbacks",
        "Those of them at endpoints that have been down for more than an hour",
        "expiring_down",
    ),
    (
        "dispatcher_expiring_held_callbacks",
        "Those of them that a stopped endpoint or a paused subscription holds",
        "expiring_held",
    ),
    ("dispatcher_workers", "Workers alive", "workers"),
    ("dispatcher_partitions_without_owner", "Partitions that no worker leads", "without_owner"),
    (
        "dispatcher_redis_memory_bytes",
        "Memory Redis uses; of several servers, the one with the highest share",
        "memory",
    ),
    ("dispatcher_redis_maxmemory_bytes", "Memory that server may use; 0: no limit", "maxmemory"),
)
"""Names and texts of the installation's gauges, and which figure each shows."""


_ARCHIVE_GAUGES = (
    ("dispatcher_archive_backlog", "Ended callbacks that are not in the archive yet", "to_archive"),
    ("dispatcher_archive_backlog_age_seconds", "How long ago the first of them ended", "to_archive_age"),
    ("dispatcher_archive_messages_backlog", "Messages that are over and not in the archive yet", "messages"),
    ("dispatcher_archive_messages_backlog_age_seconds", "Since when the first of them is", "messages_age"),
)
"""The same of an installation with an archive."""


class InstallationCollector:
    """Reads metrics of the whole installation from Redis at each scrape."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._problem = ""
        self._absent = Absent(len(settings.partitioning.all))
        """The partitions that did not answer the last time."""

    def collect(self) -> Iterable[Metric]:
        """All metrics of the installation; `dispatcher_redis_up` alone if Redis cannot be read."""
        try:
            found = asyncio.run(self._read())
        except (DispatcherError, RedisError, ValueError) as error:  # ValueError: of a damaged key
            self._note(f"{error}" or type(error).__name__)
            yield _gauge("dispatcher_redis_up", "1 if Redis answers", 0)
            return
        self._note("; ".join([*filter(None, [self._absent.named()]), *found["unreadable"]]))
        yield _gauge("dispatcher_redis_up", "1 if Redis answers", 1)
        absent = len(self._absent.partitions)
        yield _gauge("dispatcher_partitions_absent", "Partitions that did not answer", absent)
        for name, text, figure in (*_GAUGES, *(_ARCHIVE_GAUGES if "to_archive" in found else ())):
            yield _gauge(name, text, found[figure])
        endpoints = GaugeMetricFamily("dispatcher_endpoints", "Endpoints, by state", labels=("state",))
        for state, count in found["endpoints"].items():
            endpoints.add_metric((state,), count)
        yield endpoints
        yield _ends_of(found["certificates"])
        by_reason = ("reason",)
        if (
            found["rejected"] and not absent
        ):  # a sum without a partition's part would look like a counter that fell
            yield _counts(
                "dispatcher_all_rejected",
                "Queue entries ever rejected, by reason",
                by_reason,
                found["rejected"],
            )
        if found["refused"]:
            yield _counts(
                "dispatcher_api_refused", "API calls ever refused, by reason", by_reason, found["refused"]
            )

    def _note(self, problem: str) -> None:
        """Logs a problem when it is new: anybody may scrape, however often."""
        if problem and problem != self._problem:
            log.warning("exporter.failed", problem=problem)
        self._problem = problem

    async def _read(self) -> dict[str, Any]:
        async with wiring.store(self._settings, goes_on=True) as store:
            self._absent = store.absent
            unreadable: list[str] = []
            endpoints = await store.endpoints.all(strict=True)
            rejected = await _counter_of(store.rejected.counts(strict=True), unreadable)
            figures = await store.installation.figures(endpoints, rejected or {})
            now_ms = await store.installation.now_ms()
            ending = await store.certificates.ending(now_ms)
            owners = Owners.read(
                await store.installation.workers(), len(self._settings.partitioning.all), now_ms
            )
            if store.archive:
                for name, backlog in (
                    ("to_archive", await store.installation.to_archive()),
                    ("messages", await store.installation.messages_to_archive()),
                ):
                    figures |= {name: backlog.count, f"{name}_age": backlog.age_ms / 1000}
            return figures | {
                "rejected": {} if rejected is None else figures["rejected"],
                "refused": await _counter_of(store.refusals.totals(), unreadable),
                "unreadable": unreadable,
                "certificates": ending,
                "without_owner": len(owners.without),
            }


async def _counter_of(asked: Awaitable[dict[str, int]], unreadable: list[str]) -> dict[str, int] | None:
    """What counts; None, with the problem in `unreadable`, if its key is of another type: 0 would look like a counter that fell."""
    try:
        return await asked
    except ResponseError as error:
        if not is_of_type(error):
            raise
        unreadable.append(str(error))
        return None


def _ends_of(certificates: Iterable[EndingCertificate]) -> Metric:
    ends = GaugeMetricFamily(
        "dispatcher_client_certificate_expiry_timestamp_seconds",
        f"When a client certificate ends, for those that do within {WARN_DAYS} days",
        labels=("workspace", "subscription"),
    )
    for one in certificates:
        ends.add_metric((one.workspace, one.subscription), one.ends_ms / 1000)
    return ends


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counts(name: str, text: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, count in dict(counts).items():
        family.add_metric((key,) if isinstance(key, str) else key, count)
    return family


def _histogram(name: str, text: str, values: Histogram) -> Metric:
    family = HistogramMetricFamily(name, text)
    buckets, below = [], 0
    for bound, count in zip((*map(str, values.bounds), "+Inf"), list(values.counts), strict=True):
        below += count
        buckets.append((bound, below))
    family.add_metric((), buckets, values.total)
    return family
