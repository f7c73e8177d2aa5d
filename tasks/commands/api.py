"""`dispatcher api`: serves the status API for customers and the HTTP intake for backends."""

import functools
import signal
import socket
import threading
from contextlib import suppress
from multiprocessing import resource_tracker
from typing import Annotated, Any

import typer

from config.settings import Settings
from dispatcher.errors import RedisUnavailable, extra_needed
from tasks import console, interrupt, wiring

PORT = 8080


def api(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.", min=0, max=65_535)] = PORT,
    workers: Annotated[int, typer.Option(help="Processes that serve it.", min=1, max=64)] = 1,
) -> None:
    """Serve the status API and the HTTP intake; put a TLS proxy in front of it.

    docs/status-api.md describes each path. So does /openapi.json, and with DISPATCHER_API_DOCS=true a page at /docs.

    Examples:

      dispatcher workspace api-key add acme        a key for a customer

      dispatcher producer-key add billing          a key for a backend

      dispatcher api --host 0.0.0.0 --workers 2
    """
    settings = console.service_settings()
    interrupt.end_at_once()  # imports follow
    try:
        import fastapi  # noqa: F401  needed by the app; checked here
        import uvicorn
        import uvicorn.supervisors

        from dispatcher.api.log_rate import LogRate
        from tasks.api_protocol import SHUTDOWN_SECONDS, Limits
        from tasks.intake_protocol import IntakeProtocol

        if settings.api_docs:
            import fastapi_offline  # noqa: F401  it has the page's files
    except ImportError:
        console.fail(extra_needed("`dispatcher api`", "api"), console.USAGE)
    console.run(_require_format(settings))
    interrupt.end_at_once()  # the event loop above replaced the handler
    _require_address(host, port)
    if not settings.status_retention_seconds:
        console.err.print("DISPATCHER_STATUS_RETENTION_SECONDS is 0: no message will be found", markup=False)
    limits = Limits(settings.api_request_seconds, settings.api_max_connections, LogRate())
    config = uvicorn.Config(
        "tasks.asgi:app",
        host=host,
        port=port,
        workers=workers,
        log_level=settings.log_level.lower(),
        access_log=False,
        http=functools.partial(IntakeProtocol, limits=limits),  # type: ignore[arg-type]  # makes a protocol
        ws="none",  # nothing would bound WebSocket connections
        timeout_graceful_shutdown=round(SHUTDOWN_SECONDS) + 1,
        log_config=None,
    )
    serve = _serve_in_processes if workers > 1 else _serve
    if serve(uvicorn, config) == signal.SIGINT:
        raise typer.Exit(interrupt.CODE)


def _require_address(host: str, port: int) -> None:
    """Ends the command if it cannot listen there."""
    is_ipv6 = ":" in host  # as uvicorn decides
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if is_ipv6 else socket.AF_INET).close()
    except OSError as error:
        raise console.cannot_listen(f"[{host}]" if is_ipv6 else host, port, error) from None


def _serve(uvicorn: Any, config: Any) -> int | None:
    """Serves in this process until a signal, and returns it. Ends the command if the application does not start."""
    came: list[int] = []
    server = uvicorn.Server(config)

    def end(number: int, _frame: object) -> None:
        """Handles signals until uvicorn sets its own handlers; at its end uvicorn raises again what those received."""
        came.append(number)
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
    server.run()
    if not came and not server.started:
        console.fail("the API did not start; the lines above say why")
    return came[0] if came else None


def _serve_in_processes(uvicorn: Any, config: Any) -> int | None:
    """As `_serve`, in several processes."""
    came: list[int] = []
    resource_tracker.ensure_running()  # if started later, it would unblock Ctrl-C again
    interrupt.hold()  # its children inherit this: only this process handles Ctrl-C, and ends them
    supervisor = uvicorn.supervisors.Multiprocess(config, sockets=[config.bind_socket()])

    def tell(*_: object) -> None:
        came.append(signal.SIGINT)
        supervisor.signal_queue.append(signal.SIGINT)

    signal.signal(signal.SIGINT, tell)  # for a thread that does not block the signal
    threading.Thread(target=lambda: tell(signal.sigwait({signal.SIGINT})), daemon=True).start()
    supervisor.run()
    return came[0] if came else None


async def _require_format(settings: Settings) -> None:
    """Raises OtherFormat. Without Redis the API starts nevertheless, and answers 503."""
    with suppress(RedisUnavailable):
        async with wiring.store(settings):
            return
