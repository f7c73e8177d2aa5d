"""Runs an HTTP application by uvicorn, in this process or in several, until a signal."""

import signal
import socket
import threading
from collections.abc import Callable
from multiprocessing import resource_tracker
from typing import Any

import typer

from tasks import garbage, interrupt, terminal


def serve(uvicorn: Any, config: Any, what: str, started: Callable[[int], None] = lambda port: None) -> None:
    """Serves in this process until a signal. Ends the command if the application does not start; `what` it is.

    `started` is told the port that it listens at, once it does.
    """
    _end(_serve(uvicorn, config, what, started))


def _end(came: int | None) -> None:
    if came == signal.SIGINT:
        raise typer.Exit(interrupt.CODE)


def require_address(host: str, port: int) -> None:
    """Ends the command if it cannot listen there."""
    is_ipv6 = ":" in host  # as uvicorn decides
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if is_ipv6 else socket.AF_INET).close()
    except OSError as error:
        raise terminal.cannot_listen(f"[{host}]" if is_ipv6 else host, port, error) from None


def _serve(uvicorn: Any, config: Any, what: str, started: Callable[[int], None]) -> int | None:
    """Serves in this process until a signal, and returns it. Ends the command if the application does not start."""
    came: list[int] = []
    server = uvicorn.Server(config)
    begin = server.startup

    async def startup(sockets: Any = None) -> None:
        await begin(sockets)
        garbage.spare()
        if server.started:
            started(server.servers[0].sockets[0].getsockname()[1])

    server.startup = startup

    def end(number: int, _frame: object) -> None:
        """Handles signals until uvicorn sets its own handlers; at its end uvicorn raises again what those received."""
        came.append(number)
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
    server.run()
    if not came and not server.started:
        terminal.fail(f"{what} did not start; the lines above say why")
    return came[0] if came else None


def serve_in_processes(uvicorn: Any, config: Any) -> None:
    """As `serve`, in several processes."""
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
    _end(came[0] if came else None)
