"""Attempts as spans: a real worker, a collector that speaks OTLP over HTTP, and a receiver."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.acceptance.stack import Stack, Worker
from tests.acceptance.test_passing_on import PARENT, STATE, Requests
from tests.acceptance.test_subscriptions import port_of

UNSAMPLED = f"{PARENT[:-2]}00"


class Collector(ThreadingHTTPServer):
    """Takes spans, and keeps them with the attributes of who sent them."""

    daemon_threads = True

    def __init__(self, answer: Callable[[], int]) -> None:
        self.answer = answer
        self.spans: list[Any] = []
        self.services: list[dict[str, str]] = []
        self.asked = threading.Semaphore(0)
        super().__init__(("127.0.0.1", 0), _Handler)

    def attributes(self) -> list[dict[str, Any]]:
        """Those of each span, without ids."""
        return [named(span.attributes) for span in self.spans]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        collector: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        collector.asked.release()
        status = collector.answer()
        if status == 200:
            assert self.path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                collector.services.append(named(resource.resource.attributes))
                collector.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def named(attributes: Any) -> dict[str, Any]:
    """Attributes of OTLP as a dictionary."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextmanager
def collecting(stack: Stack, answer: Callable[[], int] = lambda: 200) -> Iterator[Collector]:
    """A collector that the stack's workers export to."""
    with Collector(answer) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        stack.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collector.server_port}"
        try:
            yield collector
        finally:
            collector.shutdown()


def start(stack: Stack, share: str) -> Worker:
    """A worker that exports so seldom that its end has to."""
    stack.environment |= {"DISPATCHER_TRACES_SAMPLE": share, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
    return stack.start_worker().wait_ready()


def test_each_attempt_is_a_span(stack: Stack) -> None:
    """Its parent is the status change's, and its id is what the receiver gets; a retry is a span of its own.

    A status change whose trace is not sampled, or that has none, is no span while the share is 0. What has ended is
    exported before the worker ends.
    """
    requests = Requests(stack)
    url = stack.add_workspace("acme", "zeckta", f"{stack.listen()}/again?token=hush")
    with collecting(stack) as collector:
        worker = start(stack, "0")
        [event] = stack.enqueue(1, traceparent=PARENT, tracestate=STATE)
        [quiet] = stack.enqueue(1, first=1, traceparent=UNSAMPLED)
        [plain] = stack.enqueue(1, first=2)
        assert stack.wait_ended([event, quiet, plain]) == {"delivered": 3}
        assert worker.terminate() == 0
    assert [named["service.name"] for named in collector.services] == ["callback-dispatcher"]
    spans = sorted(collector.spans, key=lambda span: span.start_time_unix_nano)
    assert [(PARENT[3:35], PARENT[36:52])] * 2 == [
        (span.trace_id.hex(), span.parent_span_id.hex()) for span in spans
    ]
    sent = [one.headers for one in requests.all]
    assert [(f"00-{PARENT[3:35]}-{span.span_id.hex()}-01", STATE) for span in spans] == [
        (one["traceparent"], one["tracestate"]) for one in sent if one["webhook-id"] == event
    ]
    assert {(quiet, UNSAMPLED), (plain, None)} == {
        (one["webhook-id"], one.get("traceparent")) for one in sent if one["webhook-id"] != event
    }
    of_both = {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": port_of(url),
        "url.full": url.partition("/again")[0],
        "dispatcher.workspace": "acme",
        "dispatcher.event_id": event,
    }
    assert [
        of_both | {"dispatcher.attempt": 1, "http.response.status_code": 503, "error.type": "http_503"},
        of_both | {"dispatcher.attempt": 2, "http.response.status_code": 200, "http.request.resend_count": 1},
    ] == [named(span.attributes) for span in spans]
    assert [2, 0] == [span.status.code for span in spans]  # ERROR, UNSET
    assert "hush" not in str(collector.spans)


def test_the_share_begins_traces(stack: Stack) -> None:
    """With a share of 1 what has no trace begins one, which the receiver can continue."""
    requests = Requests(stack)
    stack.add_workspace()
    with collecting(stack) as collector:
        worker = start(stack, "1")
        assert stack.wait_ended(stack.enqueue(3)) == {"delivered": 3}
        assert worker.terminate() == 0
    assert {b""} == {span.parent_span_id for span in collector.spans}
    got = {one.headers["traceparent"][:53] for one in requests.all}
    assert 3 == len(got)
    assert got == {f"00-{span.trace_id.hex()}-{span.span_id.hex()}-" for span in collector.spans}


@pytest.mark.parametrize("what", ["hangs", "refuses", "is busy", "does not listen"])
def test_a_collector_in_trouble(stack: Stack, what: str) -> None:
    """Callbacks are delivered, the worker ends within its time, and its log stays short and JSON."""
    stack.add_workspace()
    let_go = threading.Event()

    def answer() -> int:
        if what == "hangs":
            let_go.wait()
        return 401 if what == "refuses" else 503

    with collecting(stack, answer) as collector:
        if what == "does not listen":
            stack.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = stack.refusing_url()
        sizes = {"OTEL_BSP_MAX_QUEUE_SIZE": "8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}
        stack.environment |= sizes | {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=hush"}
        worker = start(stack, "1")
        assert stack.wait_ended(stack.enqueue(4)) == {"delivered": 4}
        if what != "does not listen":
            assert collector.asked.acquire(timeout=30), "nothing was exported"
        assert stack.wait_ended(stack.enqueue(100, first=4)) == {"delivered": 100}
        assert worker.terminate() == 0
        let_go.set()
    assert [] == worker.lines("worker.cut_short")
    assert [] == collector.spans
    lines = [json.loads(line) for line in worker.log.splitlines()]
    said = [line["event"] for line in lines if "span" in line["event"].lower()]
    assert 1 <= len(said) <= 5, said
    assert len(worker.lines("spans.lost")) == (what != "refuses")
    assert not [one for one in ("hush", "Traceback") if one in worker.log]


def test_without_the_extra(stack: Stack, tmp_path: Path) -> None:
    """A worker that is to make spans and cannot does not start, and says in one line why."""
    (tmp_path / "hidden" / "opentelemetry").mkdir(parents=True)
    missing = "raise ModuleNotFoundError('hidden', name=__name__)\n"
    (tmp_path / "hidden" / "opentelemetry" / "__init__.py").write_text(missing)
    paths = [str(tmp_path / "hidden"), os.environ.get("PYTHONPATH", "")]
    stack.environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    stack.start_worker().wait_ready()  # off
    worker = stack.start_worker(DISPATCHER_TRACES_SAMPLE="0.5")
    assert worker.process.wait(30) == 78
    [line] = worker.lines("worker.refused")
    assert line["problem"].startswith("DISPATCHER_TRACES_SAMPLE needs the extra `otel` of this package: pip")
    wrong = stack.start_worker(DISPATCHER_TRACES_SAMPLE="1.5")
    assert wrong.process.wait(30) not in (0, 70, 78)
    assert "DISPATCHER_TRACES_SAMPLE: Input should be less than or equal to 1" in wrong.log
