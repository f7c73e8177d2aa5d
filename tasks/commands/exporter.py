"""`dispatcher exporter`: the installation's figures for Prometheus, whatever the workers do."""

import threading
from typing import Annotated

import typer

from config import logs
from tasks import console
from tasks.metrics import InstallationCollector, serve

PORT = 9464


def exporter(
    port: Annotated[int, typer.Option(help="Where to listen; 0: any free port.", min=0, max=65_535)] = PORT,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "0.0.0.0",  # noqa: S104  scraped from elsewhere
) -> None:
    """Show queue, backlog, endpoints and Redis to Prometheus, read at each scrape.

    Workers show their own figures at METRICS_PORT; docs/metrics.md lists them all.
    """
    settings = console.settings()
    logs.guard_standard_streams()
    try:
        end = serve(port, InstallationCollector(settings), host)
    except OSError as error:
        console.fail(f"cannot listen at {host}:{port}: {error.strerror}", console.USAGE)
    console.err.print(f"metrics at http://{host}:{port}/metrics; Ctrl-C ends it", markup=False)
    try:
        threading.Event().wait()
    finally:
        end()
