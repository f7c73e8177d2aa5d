"""Ports for servers that tests start."""

import socket

_HELD: list[socket.socket] = []


def free_port() -> int:
    """A port nobody listens on, and that no test has been given before, in this process or another one that runs."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1])
        if hold(port):
            return port


def hold(port: int) -> bool:
    """Keeps a port from being given again while this process lives, also while its server is down; False: it is held already."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0dispatcher-test-port-{port}")
    except OSError:
        name.close()
        return False
    _HELD.append(name)
    return True
