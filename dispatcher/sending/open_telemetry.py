"""Attempts as spans of OpenTelemetry, exported by OTLP over HTTP from a thread of their own. Needs the extra `otel`.

Names and attributes follow the semantic conventions for HTTP client spans (1.23 and later, stable). A span never holds a
body, a header, or more of a URL than its origin: a path, too, may be a credential.
"""

import asyncio
import logging
import os
import re
from collections.abc import Callable
from functools import lru_cache
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace import Span as OpenTelemetrySpan
from opentelemetry.trace.span import TraceFlags, TraceState

from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.callback import Claimed
from dispatcher.rules.endpoint_name import event_id_of, subscription_of
from dispatcher.rules.outcomes import Attempt
from dispatcher.rules.workspace import Workspace
from dispatcher.sending.transport import MAX_KNOWN_URLS

FLUSH_SECONDS = 1.0
"""How long a worker that ends waits for its last spans; tasks/shutdown.py gives it 2.5 s in all after its last POST."""
PROTOCOL = "http/protobuf"
"""The one protocol of OTLP that this speaks."""

_URL = re.compile(r"https?://[^/?#\s]+\S*")
_HEADER = re.compile(r"[\w!#$%&'*+.^`|~-]+=[!-~](?:[ \t!-~]*[!-~])?", re.ASCII)

logging.getLogger("opentelemetry.util.re").disabled = True  # logs a malformed header with its value
log = structlog.get_logger()


class AttemptSpan:
    """The span of an attempt that is under way."""

    def __init__(self, span: OpenTelemetrySpan, tracestate: tuple[str, ...]) -> None:
        self._span = span
        of = span.get_span_context()
        self.trace = (f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}", *tracestate)

    def end(self, attempt: Attempt) -> None:
        """Ends the span with the result."""
        if attempt.http_status is not None:
            self._span.set_attribute("http.response.status_code", attempt.http_status)
        error = attempt.error if attempt.internal_error is None else "internal_error"
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class OpenTelemetry:
    """Makes spans with the SDK. What they are exported to, and how, is the processor's business."""

    def __init__(self, processor: SpanProcessor, resource: Resource) -> None:
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("callback-dispatcher")

    def start(self, callback: Claimed, workspace: Workspace | None) -> AttemptSpan:
        """Starts the span of an attempt: a child of the callback's trace, or a trace of its own."""
        trace, context = callback.trace, Context()
        if trace:
            context = set_span_in_context(NonRecordingSpan(_parent(*trace)), context)
        attributes: dict[str, Any] = {
            "http.request.method": "POST",
            **_server(callback.url),
            "dispatcher.event_id": event_id_of(callback.event_id),
            "dispatcher.attempt": callback.attempt,
        }
        if callback.attempt > 1:
            attributes["http.request.resend_count"] = callback.attempt - 1
        if workspace:
            attributes["dispatcher.workspace"] = workspace.id
        if subscription := subscription_of(callback.event_id):
            attributes["dispatcher.subscription"] = subscription
        span = self._tracer.start_span("POST", context, SpanKind.CLIENT, attributes)
        return AttemptSpan(span, trace[1:])

    async def aclose(self) -> None:
        """Exports what has ended, for at most FLUSH_SECONDS; what is left then is lost, with a line in the log."""
        ending = Thread(target=self._provider.shutdown, name="spans", daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, FLUSH_SECONDS)
        if ending.is_alive():
            log.warning("spans.lost", consequence=f"the last spans did not go out within {FLUSH_SECONDS:g} s")


def from_environment(version: str, instance: str) -> OpenTelemetry:
    """What OpenTelemetry's own variables (OTEL_…) say.

    `version` and `instance` are this process's. Raises InvalidInput for variables that cannot be used.
    """
    _check_variables()
    own: dict[str, Any] = {
        "service.name": "callback-dispatcher",
        "service.version": version,
        "service.instance.id": instance,
    }
    own |= OTELResourceDetector().detect().attributes  # OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
    try:
        return OpenTelemetry(BatchSpanProcessor(OTLPSpanExporter()), Resource.create(own))
    except ValueError as error:  # a queue of -1
        raise InvalidInput(f"OpenTelemetry cannot use its variables OTEL_…: {error}") from None


def _check_variables() -> None:
    """Raises InvalidInput for variables that the SDK would take, and then log with their secrets at each export."""
    _check_numbers()
    for exporter in ("OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"):
        for name, (is_right, says) in _VARIABLES.items():
            value = os.environ.get(exporter + name, "").strip()
            if value and not is_right(value):
                raise InvalidInput(exporter + name + says.format(value))


def _check_numbers() -> None:
    """Raises InvalidInput for sizes and times that are no numbers: the SDK would log a traceback and take its own."""
    for name in ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE"):
        text = os.environ.get(f"OTEL_BSP_{name}", "").strip()
        if text and not re.fullmatch(r"-?\d{1,9}", text, re.ASCII):
            raise InvalidInput(f"OTEL_BSP_{name} is a whole number, not {text!r}")


def _is_url(text: str) -> bool:
    try:
        return bool(_URL.fullmatch(text) and urlsplit(text).hostname) and urlsplit(text).port != 0
    except ValueError:
        return False


def _are_headers(text: str) -> bool:
    return all(_HEADER.fullmatch(unquote(one.strip())) for one in text.split(",") if one.strip())


_FILE = os.path.isfile, " names no file: {}"
_VARIABLES: dict[str, tuple[Callable[[str], bool], str]] = {
    "ENDPOINT": (_is_url, " is no URL; it begins with http:// or https:// and a host"),
    "HEADERS": (_are_headers, " is not name=value, with commas between several and values percent-encoded"),
    "PROTOCOL": (PROTOCOL.__eq__, f" is {{!r}}; spans go out by {PROTOCOL} only"),
    "COMPRESSION": (("none", "gzip", "deflate").__contains__, " is {!r}; there are none, gzip and deflate"),
    "CERTIFICATE": _FILE,
    "CLIENT_CERTIFICATE": _FILE,
    "CLIENT_KEY": _FILE,
}
"""What an exporter's variables hold, by the end of their names, and what is said of others; never a secret."""


def _parent(traceparent: str, tracestate: str = "") -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=TraceState.from_header([tracestate]) if tracestate else None,
    )


@lru_cache(maxsize=MAX_KNOWN_URLS)
def _server(url: str) -> dict[str, str | int]:
    try:
        found = parse_callback_url(url, allow_http=True)
    except InvalidInput:  # stored before such URLs were refused
        return {}
    return {"server.address": found.host, "server.port": found.port, "url.full": found.origin}
