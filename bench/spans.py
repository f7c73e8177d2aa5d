"""What it costs that attempts are spans: the worker's CPU for a callback, without spans and with more and more of them."""

import multiprocessing
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from bench.contenders import Contenders, customers, ratio
from bench.report import spread, table
from bench.stack import running

RATE, ENDPOINTS, WARMING = 1000, 100, 200
SHARES = {"none": "", "of sampled traces, of which there are none": "0", "1 %": "0.01", "all": "1"}
"""By name, what DISPATCHER_TRACES_SAMPLE is."""


def spans(contenders: Contenders) -> str:
    """CPU of a callback at a steady rate; what is exported goes to a process that only counts it."""
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    with _collector() as (url, exported):
        for _ in range(contenders.size.rounds):
            for name, share in SHARES.items():
                contenders.progress.start(f"spans: {name}")
                before = exported.value
                posts, cpu = _run(contenders, share, url)
                found[name, "cpu"].append(cpu / posts * 1000)
                found[name, "exported"].append((exported.value - before) / (posts + WARMING))
    rows = [
        [
            name,
            spread(found[name, "cpu"], 3),
            ratio(found[name, "cpu"], found["none", "cpu"]),
            spread(found[name, "exported"], 3),
        ]
        for name in SHARES
    ]
    return table(
        [f"attempts that are spans, {RATE:,}/s", "worker CPU ms each", "÷ none", "exported each"], rows
    )


def _run(contenders: Contenders, share: str, url: str) -> tuple[int, float]:
    """How many callbacks were posted, and the worker's CPU seconds for them."""
    with running(workers=0, TRACES_SAMPLE=share) as stack:
        stack.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = url
        stack.start()
        made = customers(stack, contenders.urls(ENDPOINTS))
        stack.load.burst("w", made, WARMING)
        stack.drained()
        contenders.receiver.take()
        before = stack.worker_cpu()
        stack.load.steady(RATE, contenders.size.seconds, {"b": made}, tell=contenders.progress.part)
        stack.drained()
        posts = contenders.receiver.take()["b"].posts
        cpu = stack.worker_cpu() - before
        worker = stack.workers.pop()
        worker.terminate()  # exports the last ones
        worker.wait(30)
        return posts, cpu


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
