"""`dispatcher exporter`: the installation's figures for Prometheus, whatever the workers do."""

import asyncio
from typing import Annotated

import typer

from config.settings import Settings
from dispatcher.errors import InvalidInput
from dispatcher.health import Health
from tasks import console
from tasks.health import looking
from tasks.metrics import InstallationCollector, serve

PORT = 9464


def exporter(
    port: Annotated[int, typer.Option(help="Where to listen; 0: any free port.", min=0, max=65_535)] = PORT,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "0.0.0.0",  # noqa: S104  scraped from elsewhere
) -> None:
    """Show queue, backlog, endpoints and Redis to Prometheus, read at each scrape.

    Workers show their own figures at METRICS_PORT; docs/metrics.md lists them all. /healthz and /readyz say whether it
    lives, and whether Redis answers it.
    """
    settings = console.service_settings()
    console.run_service(_export(settings, host, port))


async def _export(settings: Settings, host: str, port: int) -> None:
    health = Health()
    async with looking(health, settings):
        try:
            end, port = serve(port, InstallationCollector(settings), health, host)
        except OSError as error:
            raise InvalidInput(f"cannot listen at {host}:{port}: {error.strerror}") from None
        shown = f"[{host}]" if ":" in host else host
        console.err.print(f"metrics at http://{shown}:{port}/metrics; Ctrl-C ends it", markup=False)
        try:
            await asyncio.Event().wait()
        finally:
            end()
