"""`dispatcher api`: serves the status API for customers and the HTTP intake for backends."""

import functools
from contextlib import suppress
from typing import Annotated

import typer

from config.settings import Settings
from dispatcher.errors import RedisUnavailable, extra_needed
from tasks import interrupt, terminal, wiring
from tasks.http_server import require_address, serve, serve_in_processes

PORT = 8080


def api(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.", min=0, max=65_535)] = PORT,
    workers: Annotated[int, typer.Option(help="Processes that serve it.", min=1, max=64)] = 1,
    with_console: Annotated[
        bool, typer.Option("--console", help="Serve the console too, below /console (docs/console.md).")
    ] = False,
) -> None:
    """Serve the status API and the HTTP intake; put a TLS proxy in front of it.

    docs/status-api.md describes each path. So does /openapi.json, and with DISPATCHER_API_DOCS=true a page at /docs.

    Examples:

      dispatcher workspace api-key add acme        a key for a customer

      dispatcher producer-key add billing          a key for a backend

      dispatcher api --host 0.0.0.0 --workers 2
    """
    settings = terminal.service_settings()
    if with_console and workers > 1:
        terminal.fail(
            "--console goes with one process: long work lives in it; run `dispatcher console` beside",
            terminal.USAGE,
        )
    interrupt.end_at_once()  # imports follow
    try:
        import fastapi  # noqa: F401  needed by the app; checked here
        import uvicorn
        import uvicorn.supervisors

        from dispatcher.api.log_rate import LogRate
        from tasks.api_protocol import SHUTDOWN_SECONDS, Limits
        from tasks.intake_protocol import IntakeProtocol

        if with_console:
            import jinja2  # noqa: F401  needed by its pages
        if settings.api_docs:
            import fastapi_offline  # noqa: F401  it has the page's files
    except ImportError:
        extra = "console" if with_console else "api"
        terminal.fail(
            extra_needed(f"`dispatcher api{' --console' if with_console else ''}`", extra), terminal.USAGE
        )
    if with_console:
        from tasks.commands.console import require_way

        terminal.run(require_way(settings, host, has_link=False))
    terminal.run(_require_format(settings))
    interrupt.end_at_once()  # the event loop above replaced the handler
    require_address(host, port)
    if not settings.status_retention_seconds:
        terminal.err.print("DISPATCHER_STATUS_RETENTION_SECONDS is 0: no message will be found", markup=False)
    limits = Limits(settings.api_request_seconds, settings.api_max_connections, LogRate())
    config = uvicorn.Config(
        "tasks.asgi_console:app" if with_console else "tasks.asgi:app",
        host=host,
        port=port,
        workers=workers,
        log_level=settings.log_level.lower(),
        access_log=False,
        http=functools.partial(IntakeProtocol, limits=limits),  # type: ignore[arg-type]  # makes a protocol
        proxy_headers=not with_console,  # the console trusts listed proxies alone
        ws="none",  # nothing would bound WebSocket connections
        timeout_graceful_shutdown=round(SHUTDOWN_SECONDS) + 1,
        log_config=None,
    )
    if workers > 1:
        serve_in_processes(uvicorn, config)
    else:
        serve(uvicorn, config, "the API")


async def _require_format(settings: Settings) -> None:
    """Raises OtherFormat. Without Redis the API starts nevertheless, and answers 503."""
    with suppress(RedisUnavailable):
        async with wiring.store(settings):
            return
