"""What it costs that attempts are spans: the sender's CPU for an attempt, without spans and with more and more of them.

A whole worker's CPU for a callback differs more from one run to the next than a span costs, so what sends is measured
alone: signing, the span, the HTTP connection, and the thread that exports, in this process and in small turns.
"""

import asyncio
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import uvloop

from bench.contenders import Contenders, ratio
from bench.report import median, spread, table
from dispatcher.model import Status
from dispatcher.rules.addresses import AddressPolicy
from dispatcher.rules.callback import Claimed
from dispatcher.rules.subscription import Secret
from dispatcher.rules.workspace import Workspace
from dispatcher.sending.sender import Sender
from dispatcher.sending.spans import SpanSender
from dispatcher.sending.transport import CallbackTransport

ENDPOINTS, AT_ONCE, TURNS, BODY = 100, 20, 8, b'{"eventId":"' + b"x" * 326 + b'"}'
PARENTS = {"sampled": f"00-{'4b' * 16}-{'00f0' * 4}-01", "not sampled": f"00-{'4b' * 16}-{'00f0' * 4}-00"}
SHARES: dict[str, tuple[float | None, tuple[str, ...]]] = {
    "none: the setting is empty": (None, ()),
    "none: the trace is not sampled": (0, (PARENTS["not sampled"],)),
    "1 %": (0.01, ()),
    "all, each a trace of its own": (1, ()),
    "all, each in the status change's trace": (0, (PARENTS["sampled"],)),
}
"""By name, what DISPATCHER_TRACES_SAMPLE is, and the trace of each callback."""


def spans(contenders: Contenders) -> str:
    """CPU of an attempt; spans are exported to a process that only counts them."""
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    with _collector() as (url, exported):
        for _ in range(contenders.size.rounds):
            contenders.progress.start("spans")
            for name, costs in uvloop.run(_round(contenders, url, exported)).items():
                found[name, "us"].append(costs[0] * 1e6)
                found[name, "exported"].append(costs[1])
    base, *_ = SHARES
    rows = [
        [
            name,
            spread(found[name, "us"]),
            ratio(found[name, "us"], found[base, "us"]),
            f"{median(found[name, 'us']) - median(found[base, 'us']):+.1f}",
            spread(found[name, "exported"], 3),
        ]
        for name in SHARES
    ]
    return table(
        ["attempts that are spans", "sender's CPU us each", "÷ none", "us more", "exported each"], rows
    )


async def _round(
    contenders: Contenders, url: str, exported: "Synchronized[int]"
) -> dict[str, tuple[float, float]]:
    """For each way CPU seconds of an attempt, and how many spans of it were exported; the ways take short turns."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from dispatcher.sending.open_telemetry import OpenTelemetry

    batches = BatchSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces"), max_queue_size=100_000)
    tracer = OpenTelemetry(batches, Resource.create())
    transport = CallbackTransport(AddressPolicy.of(("127.0.0.0/8",), ()), 10.0)
    senders = {
        name: Sender(transport, "bench") if share is None else SpanSender(transport, "bench", tracer, share)
        for name, (share, _) in SHARES.items()
    }
    urls, count = contenders.urls(ENDPOINTS), contenders.size.ours // TURNS
    secret = Secret("whsec_" + "c2VjcmV0" * 6, 0)
    workspace = Workspace("acme", "zeckta", urls[0], (secret,), 0, "r")
    costs: defaultdict[str, list[float]] = defaultdict(list)
    spent = dict.fromkeys(SHARES, 0)

    async def some(name: str, trace: tuple[str, ...], first: int) -> None:
        for number in range(first, count, AT_ONCE):
            event_id, url = f"b-{time.time_ns() // 1000}-{number}", urls[number % ENDPOINTS]
            one = Claimed(event_id, 1, 1, 2**53, "sent", Status.SENT, "m1", url, BODY, trace=trace)
            attempt = await senders[name].send(one, workspace, round(time.time() * 1000))
            assert attempt.http_status == 200, attempt

    for turn in range(TURNS + 1):
        for name, (_, trace) in SHARES.items():
            before, spans_before = time.process_time(), exported.value
            await asyncio.gather(*(some(name, trace, first) for first in range(AT_ONCE)))
            await asyncio.to_thread(batches.force_flush)
            if turn:  # the first warms up
                costs[name].append((time.process_time() - before) / count)
                spent[name] += exported.value - spans_before
        contenders.receiver.take()
        contenders.progress.part(turn / TURNS)
    await transport.aclose()
    await tracer.aclose()
    return {name: (median(costs[name]), spent[name] / count / TURNS) for name in SHARES}


@contextmanager
def _collector() -> Iterator[tuple[str, "Synchronized[int]"]]:
    """The URL of a collector in a process of its own, and how many spans it has got."""
    exported, here = multiprocessing.Value("q", 0), multiprocessing.Pipe()
    process = multiprocessing.Process(target=_collect, args=(here[1], exported), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here[0].recv()}", exported
    finally:
        process.kill()
        process.join()


def _collect(ready: Any, exported: "Synchronized[int]") -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            resources = ExportTraceServiceRequest.FromString(body).resource_spans
            with exported.get_lock():
                exported.value += sum(len(one.spans) for of in resources for one in of.scope_spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ready.send(server.server_port)
    server.serve_forever()
