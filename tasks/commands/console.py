"""`dispatcher console`: serves the console for operators, and the portal for customers."""

import functools
import ipaddress
import secrets
import sys
from contextlib import suppress
from typing import Annotated

import typer

from config import logs
from config.settings import Settings
from dispatcher.errors import InvalidInput, RedisUnavailable, extra_needed
from dispatcher.store.api_keys import OPERATORS
from tasks import incomplete, interrupt, terminal, wiring
from tasks.give_way import give_way
from tasks.http_server import require_address, serve

PORT = 8090
NICENESS = 10
"""Added to its process's: where workers run on the same machine, who looks must not hold up what is sent."""
NO_WAY = (
    "there is no way to log in: make a key (`dispatcher console-key add NAME --role viewer`), or set DISPATCHER_CONSOLE_OIDC_ISSUER "
    "or DISPATCHER_CONSOLE_PROXIES (docs/console.md)"
)


def console(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.", min=0, max=65_535)] = PORT,
    link: Annotated[
        bool | None,
        typer.Option(
            "--link/--no-link",
            help="Print a link that logs in as admin (default: on a terminal, if it listens on this machine alone).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve the console: what waits, what failed and why, live attempts, and what to do about it.

    It listens on this machine alone. Beyond it, it wants DISPATCHER_CONSOLE_URL, a TLS proxy in front of it, and a way to
    log in: docs/console.md.

    Examples:

      dispatcher console                           on this machine, with a link that logs in

      dispatcher console-key add jane --role operator

      dispatcher console --host 0.0.0.0            behind a TLS proxy
    """
    settings = terminal.settings()
    interrupt.end_at_once()  # imports follow
    try:
        import jinja2  # noqa: F401  needed by the pages; checked here
        import uvicorn

        from dispatcher.api.log_rate import LogRate
        from tasks.api_protocol import SHUTDOWN_SECONDS, BoundedProtocol, Limits
        from tasks.console.app import create_app, open_console
        from tasks.console.oidc import provider
        from tasks.console.ways import Ways
    except ImportError:
        terminal.fail(extra_needed("`dispatcher console`", "console"), terminal.USAGE)
    is_here = is_loopback(host)
    with_link = link if link is not None else is_here and sys.stdout.isatty()
    if with_link and not is_here:
        raise InvalidInput("--link is for a console on this machine alone: others could read it on its way")
    terminal.run(require_way(settings, host, has_link=with_link))
    interrupt.end_at_once()  # the event loop above replaced the handler
    require_address(host, port)
    token = secrets.token_urlsafe(32) if with_link else ""
    app = create_app(functools.partial(open_console, settings, Ways.of(settings, token, provider(settings))))
    limits = Limits(settings.api_request_seconds, settings.api_max_connections, LogRate())
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level=settings.log_level.lower(),
        access_log=False,
        http=functools.partial(BoundedProtocol, limits=limits),  # type: ignore[arg-type]  # makes a protocol
        ws="none",
        proxy_headers=False,  # who asks is said by the connection, and by the header of a listed proxy alone
        timeout_graceful_shutdown=round(SHUTDOWN_SECONDS) + 1,
        log_config=None,
    )
    shown = f"[{host}]" if ":" in host else host
    output = sys.stdout  # from here on prints may be lines of the log, which the link is not for

    def started(at: int) -> None:
        if token:
            with suppress(OSError):
                output.write(f"open http://{shown}:{at}/login#token={token}\n")
                output.flush()

    give_way(NICENESS)
    incomplete.is_service = True
    logs.guard_standard_streams()
    serve(uvicorn, config, "the console", started)


def is_loopback(host: str) -> bool:
    """Whether an address to listen at is this machine's alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def require_way(settings: Settings, host: str, *, has_link: bool) -> None:
    """Raises InvalidInput if nobody could log in, or if the console would listen beyond this machine without its URL.

    Also raises OtherFormat. Without Redis the console starts nevertheless where another way than keys is set.
    """
    if not is_loopback(host) and not settings.console_url:
        raise InvalidInput(
            f"to listen at {host}, beyond this machine, set DISPATCHER_CONSOLE_URL to the https:// URL that browsers use "
            "(docs/console.md); without --host it listens on this machine alone"
        )
    has_way = bool(has_link or settings.console_oidc_issuer or settings.console_proxies)
    try:
        async with wiring.store(settings) as store:
            if not has_way and not await store.api_keys.list(OPERATORS):
                raise InvalidInput(NO_WAY)
    except RedisUnavailable:
        if not has_way:
            raise
