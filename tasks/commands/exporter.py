"""`dispatcher exporter`: exports the installation's metrics to Prometheus, even while no worker runs."""

import asyncio
from typing import Annotated

import typer

from config.settings import Settings
from dispatcher.health import Health
from tasks import terminal
from tasks.health import looking
from tasks.metrics_server import serve
from tasks.prometheus import InstallationCollector

PORT = 9464


def exporter(
    port: Annotated[int, typer.Option(help="Where to listen; 0: any free port.", min=0, max=65_535)] = PORT,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 for a Prometheus on another machine.")
    ] = "127.0.0.1",
) -> None:
    """Export metrics of queue, endpoints and Redis to Prometheus, read at each scrape.

    The metrics have no password: let only Prometheus reach them. Workers export their own at DISPATCHER_METRICS_PORT; docs/metrics.md lists all of them. /healthz says whether the exporter
    is alive, /readyz whether Redis answers it.
    """
    settings = terminal.service_settings()
    terminal.run_service(_export(settings, host, port))


async def _export(settings: Settings, host: str, port: int) -> None:
    health = Health()
    async with looking(health, settings, writes=False):
        try:
            end, port = serve(port, InstallationCollector(settings), health, host)
        except OSError as error:
            raise terminal.cannot_listen(host, port, error) from None
        shown = f"[{host}]" if ":" in host else host
        terminal.say(f"metrics at http://{shown}:{port}/metrics; Ctrl-C ends it")
        try:
            await asyncio.Event().wait()
        finally:
            end()
