"""The metrics server on real connections: what its clients can cost, and what a scrape says when Redis is damaged."""

import http.client
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import redis
from prometheus_client.core import GaugeMetricFamily, Metric
from structlog.testing import capture_logs

from config.settings import Settings
from dispatcher.health import Health
from tasks.metrics_server import MAX_CONNECTIONS, serve
from tasks.prometheus import InstallationCollector


class Collector:
    """Has one metric, or a bug."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def collect(self) -> Iterable[Metric]:
        """All metrics."""
        if self.error:
            raise self.error
        return [GaugeMetricFamily("found", "One", value=1)]


@contextmanager
def served(collector: Any = None, **options: Any) -> Iterator[int]:
    """The port of a server."""
    end, port = serve(0, collector or Collector(), Health(), "127.0.0.1", **options)
    try:
        yield port
    finally:
        end()


def scraped(port: int) -> tuple[int, str]:
    """Status and body of a scrape."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def connected(port: int) -> socket.socket:
    """A client."""
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def is_closed(client: socket.socket) -> bool:
    """Waits until the server has closed the connection."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_clients_that_send_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """However many there are, they take a bounded number of threads, and a scrape is answered."""
    with served() as port, ExitStack() as open_:
        before = threading.active_count()
        clients = [open_.enter_context(connected(port)) for _ in range(3 * MAX_CONNECTIONS)]
        assert "found 1.0" in scraped(port)[1]
        assert threading.active_count() <= before + MAX_CONNECTIONS
        assert all(is_closed(client) for client in clients[: 2 * MAX_CONNECTIONS])
    assert ("", "") == capfd.readouterr()


@pytest.mark.parametrize("line", [b"", b"X: y\r\n"], ids=["nothing", "drips"])
def test_a_request_that_never_ends(line: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """A client has so long for its whole request, however it sends it; then the connection ends, without a word."""
    with served(read_seconds=0.2) as port, connected(port) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n")
        client.settimeout(0.02)
        until = time.monotonic() + 10
        ended = False
        while not ended and time.monotonic() < until:
            try:
                client.sendall(line)
                ended = client.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
        assert ended
    assert ("", "") == capfd.readouterr()


def test_a_client_that_goes_away(capfd: pytest.CaptureFixture[str]) -> None:
    """A client that ends in the middle of its request is nothing to print."""
    with served() as port:
        with connected(port) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nX")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert 200 == scraped(port)[0]
    assert ("", "") == capfd.readouterr()


def test_a_bug_in_a_scrape(capfd: pytest.CaptureFixture[str]) -> None:
    """An internal error is one event of the log, and a 500."""
    with capture_logs() as logged, served(Collector(KeyError("bug"))) as port:
        assert (500, "internal error\n") == scraped(port)
    assert ["metrics.internal_error"] == [line["event"] for line in logged]
    assert ("", "") == capfd.readouterr()


@pytest.mark.parametrize("key", ["events", "expiries", "endpoints", "workers", "expiries-of-certificates"])
def test_a_damaged_key(redis_url: str, key: str) -> None:
    """While Redis cannot be read, whatever the reason, a scrape has `dispatcher_redis_up` alone; that is logged once."""
    settings = Settings(redis_url=redis_url)
    with (
        redis.Redis.from_url(redis_url) as client,
        capture_logs() as logged,
        served(InstallationCollector(settings)) as port,
    ):
        client.set(f"dispatcher:{key}", "by hand")
        bodies = [scraped(port) for _ in range(2)]
        client.delete(f"dispatcher:{key}")
        status, whole = scraped(port)
    for one, body in bodies:
        metrics = [line for line in body.splitlines() if not line.startswith("#")]
        assert (200, ["dispatcher_redis_up 0.0"]) == (one, metrics)
    assert (200, True) == (status, "dispatcher_redis_up 1.0" in whole)
    [failed] = [line for line in logged if line["log_level"] == "warning"]
    assert "exporter.failed" == failed["event"]
    assert f"the key dispatcher:{key} holds" in failed["problem"]


@pytest.mark.parametrize(
    ("key", "metric"),
    [("rejected-counts", "dispatcher_all_rejected_total"), ("api-refused", "dispatcher_api_refused_total")],
)
def test_a_damaged_counter(redis_url: str, key: str, metric: str) -> None:
    """A counter that cannot be read is left out, as 0 would be a reset; all else is there, and the log names the key once."""
    with (
        redis.Redis.from_url(redis_url) as client,
        capture_logs() as logged,
        served(InstallationCollector(Settings(redis_url=redis_url))) as port,
    ):
        client.set(f"dispatcher:{key}", "by hand")
        bodies = [scraped(port)[1] for _ in range(2)]
        client.delete(f"dispatcher:{key}")
        whole = scraped(port)[1]
    for body in bodies:
        assert (True, False) == ("dispatcher_redis_up 1.0" in body, f"\n{metric}{{" in body)
    assert f"\n{metric}{{" in whole
    [failed] = [line for line in logged if line["log_level"] in ("warning", "error")]
    assert ("exporter.failed", True) == (failed["event"], f"dispatcher:{key}" in failed["problem"])
