"""Prometheus metrics: a worker's own at METRICS_PORT, those of the whole installation from `dispatcher exporter`."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from config import logs
from config.settings import Settings
from dispatcher.errors import DispatcherError
from dispatcher.health import PATHS, Health
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
        yield _counter("dispatcher_log_lines_lost", "Log lines that could not be written", logs.lost())
        yield _gauge("dispatcher_turns", "Endpoints that this worker serves now", m.turns)
        yield _gauge("dispatcher_in_flight", "POSTs under way in this worker", m.in_flight)
        yield _gauge("dispatcher_loop_lag_seconds", "Lag of this worker's event loop", m.loop_lag_seconds)
        yield _gauge("dispatcher_leads_intake", "1 if this worker leads intake", int(m.leads_intake))


class InstallationCollector:
    """Reads metrics of the whole installation from Redis at each scrape."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def collect(self) -> Iterable[Metric]:
        """All metrics of the installation; `dispatcher_redis_up` alone if Redis cannot be read."""
        try:
            found = asyncio.run(self._read())
        except DispatcherError as error:
            log.warning("exporter.failed", problem=str(error))
            yield _gauge("dispatcher_redis_up", "1 if Redis answers", 0)
            return
        yield _gauge("dispatcher_redis_up", "1 if Redis answers", 1)
        yield _gauge("dispatcher_queue_entries", "Status changes on the queue", found["queued"])
        yield _gauge(
            "dispatcher_queue_age_seconds", "Age of the oldest status change on the queue", found["queue_age"]
        )
        yield _gauge("dispatcher_waiting_callbacks", "Callbacks that have not ended", found["waiting"])
        yield _gauge(
            "dispatcher_oldest_due_seconds",
            "How long the longest-due callback to an endpoint that is not down or stopped has been due",
            found["due"],
        )
        yield _gauge(
            "dispatcher_longest_down_seconds",
            "Duration of the longest current endpoint outage",
            found["down"],
        )
        yield _gauge(
            "dispatcher_expiring_callbacks", "Callbacks that expire within an hour", found["expiring"]
        )
        yield _gauge("dispatcher_workers", "Workers alive", found["workers"])
        yield _gauge("dispatcher_redis_memory_bytes", "Memory Redis uses", found["memory"])
        yield _gauge(
            "dispatcher_redis_maxmemory_bytes", "Memory Redis may use; 0: no limit", found["maxmemory"]
        )
        endpoints = GaugeMetricFamily("dispatcher_endpoints", "Endpoints, by state", labels=("state",))
        for state, count in found["endpoints"].items():
            endpoints.add_metric((state,), count)
        yield endpoints
        yield _counts(
            "dispatcher_all_rejected",
            "Queue entries ever rejected, by reason",
            ("reason",),
            found["rejected"],
        )
        yield _counts(
            "dispatcher_api_refused", "API calls ever refused, by reason", ("reason",), found["refused"]
        )

    async def _read(self) -> dict[str, Any]:
        async with wiring.store(self._settings) as store:
            endpoints, rejected = await store.endpoints.all(), await store.rejected.counts()
            figures = await store.installation.figures(endpoints, rejected)
            return figures | {"refused": await store.refusals.totals()}


class _Server(ThreadingMixIn, WSGIServer):
    """Serves each request in its own thread, so that one waiting for Redis delays no other."""

    daemon_threads = True


class _ServerOfIPv6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10.0  # seconds; frees the thread of a client that sends nothing

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing: scrapes are routine."""


def serve(
    port: int,
    collector: Any,
    health: Health,
    host: str = "0.0.0.0",  # noqa: S104  scraped from elsewhere
) -> tuple[Callable[[], None], int]:
    """Serves a collector's metrics and health at a port; returns a function that stops serving, and the port.

    Raises OSError if the port is in use.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path not in PATHS:
            found: Iterable[bytes] = metrics(environ, start_response)
            return found
        status, text = health.answer(path)
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        return [text.encode()]

    kind = _ServerOfIPv6 if ":" in host else _Server
    server = make_server(host, port, app, kind, _Handler)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end, server.server_port


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
