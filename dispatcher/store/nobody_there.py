"""Whether a server is gone, not only silent."""

import errno
import socket

from dispatcher.errors import RedisUnavailable
from dispatcher.store.sentinel import NoPrimary, Why

NOBODY_THERE = {
    errno.ECONNREFUSED,
    errno.ENOENT,  # no such socket file
    errno.EHOSTUNREACH,
    errno.EHOSTDOWN,
    errno.ENETUNREACH,
    socket.EAI_NONAME,
    socket.EAI_NODATA,  # a name without an address
}
"""Why no connection comes about where no server is."""
NOT_CONNECTED = "Timeout connecting"
"""In redis-py's error where nothing takes the connection for as long as it waits."""


def is_nobody_there(error: RedisUnavailable) -> bool:
    """Whether no server is there: nobody takes connections, or its sentinels say that it is down.

    One that takes a connection is there, also if it refuses us or our TLS, has no room for more, hangs, or closes it.
    """
    cause: BaseException | None = error.__cause__
    if isinstance(cause, NoPrimary) and cause.why is Why.DOWN:
        return True
    while cause:
        if (isinstance(cause, OSError) and cause.errno in NOBODY_THERE) or NOT_CONNECTED in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
