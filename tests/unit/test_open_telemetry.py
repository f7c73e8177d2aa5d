"""OpenTelemetry's own variables, the extra that it needs, and its log lines."""

import asyncio
import logging
import os
import subprocess
import sys

import pytest

from config import logs
from config.settings import Settings
from dispatcher.errors import InvalidInput
from dispatcher.sending.open_telemetry import from_environment
from tasks import engine_wiring


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of this machine do not count."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "grpc",
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'; spans go out by http",
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "http/json",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is 'http/json'",
        ),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "u:hush@collector:4318", "OTEL_EXPORTER_OTLP_ENDPOINT is no URL"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is no URL"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key: hush", "OTEL_EXPORTER_OTLP_HEADERS is not name=value"),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "a=b,api-key=hush%0d%0a",
            "OTEL_EXPORTER_OTLP_HEADERS is not name=value",
        ),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "k=h\u00fcsh", "OTEL_EXPORTER_OTLP_TRACES_HEADERS is not"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[", "OTEL_EXPORTER_OTLP_ENDPOINT is no URL"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nope", "OTEL_EXPORTER_OTLP_CERTIFICATE names no file: /nope"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "OTEL_EXPORTER_OTLP_COMPRESSION is 'zip'"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "abc", "OTEL_BSP_MAX_QUEUE_SIZE is a whole number, not 'abc'"),
        ("OTEL_BSP_SCHEDULE_DELAY", "x", "OTEL_BSP_SCHEDULE_DELAY is a whole number"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "OTEL_…: max_queue_size must be a positive integer"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "9999", "OTEL_…: max_export_batch_size must be less than"),
    ],
)
def test_wrong_variables(monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    """OpenTelemetry's own variables that cannot be used are one line, not a traceback."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput, match=says) as raised:
        from_environment("1", "w1")
    assert "hush" not in str(raised.value)


def test_headers_of_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are well formed, percent-encoded or not, are the exporter's."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20aGk=, x-a=b c")
    made = from_environment("1", "w1")
    assert made
    asyncio.run(made.aclose())
    kept = made._provider._active_span_processor._span_processors[0].span_exporter._client._headers  # type: ignore[attr-defined]
    assert ("Bearer aGk=", "b c") == (kept["authorization"], kept["x-a"])


@pytest.mark.parametrize(
    ("variables", "service"),
    [
        ({}, "callback-dispatcher"),
        ({"OTEL_SERVICE_NAME": "sms"}, "sms"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=mms,deployment.environment.name=test"}, "mms"),
    ],
)
def test_who_we_are(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], service: str) -> None:
    """The service has our name unless OpenTelemetry's variables give another."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    made = from_environment("1.2", "w1")
    assert made
    found = made._provider.resource.attributes
    assert (service, "1.2", "w1") == tuple(
        found[f"service.{part}"] for part in ("name", "version", "instance.id")
    )
    asyncio.run(made.aclose())


def test_disabled_by_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SDK_DISABLED ends spans whatever our setting says."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setitem(sys.modules, "dispatcher.sending.open_telemetry", None)  # so the extra is not needed
    assert engine_wiring.tracer(Settings(traces_sample=0.5), "w1") is None


def test_the_setting_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names the extra and how to get it; without the setting it is not asked for."""
    for name in [
        one for one in sys.modules if one.startswith(("opentelemetry.sdk", "dispatcher.sending.open_"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert engine_wiring.tracer(Settings(), "w1") is None
    with pytest.raises(
        InvalidInput, match=r"^DISPATCHER_TRACES_SAMPLE needs the extra `otel` of this package"
    ):
        engine_wiring.tracer(Settings(traces_sample=0.0), "w1")


def test_off_loads_nothing() -> None:
    """What a worker loads has no part of OpenTelemetry that makes or exports spans; redis-py loads that for metrics."""
    code = "import sys, tasks.worker, tasks.engine_wiring; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    parts = "opentelemetry.sdk.trace", "opentelemetry.exporter", "dispatcher.sending.open_telemetry"
    assert [] == [name for name in done.stdout.split() if name.startswith(parts)]


def test_a_line_a_minute() -> None:
    """What OpenTelemetry says again and again is said once a minute, without a URL's query; other libraries' lines all stay."""
    written: list[str] = []
    for at in (0.0, 1.0, 59.0, 61.0, 62.0):
        for name in ("opentelemetry.exporter.otlp", "requests"):
            said = (f"/v1?key=hush, {at}",)
            record = logging.LogRecord(name, logging.WARNING, "f", 7, "try (url: %s)", said, None)
            record.created = 1000.0 + at
            if logs._once_a_minute(record):
                written.append(f"{name[:4]} {record.getMessage()}")
    logs._last_from_opentelemetry.clear()
    ours = [line for line in written if line.startswith("open")]
    assert ["open try (url: /v1?… 0.0)", "open try (url: /v1?… 61.0)"] == ours
    assert 5 == len(written) - len(ours)
