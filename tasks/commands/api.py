"""`dispatcher api`: status of messages for customers, and status changes from backends, over HTTP."""

import functools
import socket
from contextlib import suppress
from typing import Annotated

import typer

from config import logs
from config.settings import Settings
from dispatcher.errors import RedisUnavailable
from dispatcher.extras import needed
from tasks import console, wiring

PORT = 8080


def api(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen.", min=0, max=65_535)] = PORT,
    workers: Annotated[int, typer.Option(help="Processes that serve it.", min=1, max=64)] = 1,
) -> None:
    """Serve the status API and the HTTP intake; put a proxy that speaks TLS in front of it.

    docs/status-api.md shows each path; /openapi.json does, too, and with API_DOCS=true a page at /docs.

    Examples:

      dispatcher workspace api-key add acme        a key for a customer

      dispatcher producer-key add billing          a key for a backend

      dispatcher api --host 0.0.0.0 --workers 2
    """
    settings = console.settings()
    try:
        import fastapi  # noqa: F401  the app needs it
        import uvicorn

        from tasks.http_protocol import SHUTDOWN_SECONDS, BoundedProtocol, Limits

        if settings.api_docs:
            import fastapi_offline  # noqa: F401  it has the files
    except ImportError:
        console.fail(needed("`dispatcher api`", "api"), console.USAGE)
    console.run(_require_format(settings))
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        console.fail(f"cannot listen at {host}:{port}: {error.strerror}", console.USAGE)
    if not settings.status_retention_seconds:
        console.err.print("STATUS_RETENTION_SECONDS is 0: no message will be found", markup=False)
    logs.guard_standard_streams()
    level = settings.log_level.lower()
    limits = Limits(settings.api_request_seconds, settings.api_max_connections)
    uvicorn.run(
        "tasks.asgi:app",
        host=host,
        port=port,
        workers=workers,
        log_level=level,
        access_log=False,
        http=functools.partial(BoundedProtocol, limits=limits),  # type: ignore[arg-type]  # it makes one
        ws="none",  # whose connections nothing bounds
        timeout_graceful_shutdown=round(SHUTDOWN_SECONDS) + 1,
        log_config=None,
    )


async def _require_format(settings: Settings) -> None:
    """Raises OtherFormat. While Redis is away the API starts all the same, and answers 503."""
    with suppress(RedisUnavailable):
        async with wiring.store(settings):
            return
