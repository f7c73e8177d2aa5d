"""uvicorn's HTTP/1.1 protocol with the bounds it lacks: on request time, request framing and connections."""

import asyncio
import logging
from typing import Any, NamedTuple

import h11
import structlog
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from dispatcher.api.log_rate import LogRate
from dispatcher.api.status_changes import MAX_BYTES

MAX_WIRE_BYTES = MAX_BYTES + MAX_BYTES // 4
"""Limit of one request, with its head and the framing of its body."""
FEW_CHUNKS, CHUNK_BYTES = 1000, 64
"""Chunks a body may have regardless of length; beyond that, one more per CHUNK_BYTES. Each costs some 30 us."""
SPARE_CONNECTIONS = 64
"""Connections above the limit that still get an answer (503); further ones are closed at once."""
REFUSED_SECONDS = 2.0
"""How long such a connection has to send a request and take the answer."""
SHUTDOWN_SECONDS = 4.0
"""How long calls under way may take to end when the API stops."""
LINGER_SECONDS = 1.0
"""How long a client may take to read an answer that closes the connection."""

log = structlog.get_logger()

_uvicorns_log = logging.getLogger("uvicorn.error.connection")
_uvicorns_log.setLevel(logging.ERROR)  # it warns once per invalid request, and anyone can send those


class Limits(NamedTuple):
    """Bounds of one process."""

    seconds: float
    """From the first byte of a request to the last byte of its answer."""
    connections: int
    log_rate: LogRate
    """Of the line that says that there are too many connections."""


class _Framing(h11.Connection):
    """Counts the chunks of a body."""

    _chunks = _bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
            if {b"transfer-encoding", b"content-length"} <= {name for name, _ in event.headers}:
                raise h11.RemoteProtocolError("a length and a transfer coding")  # RFC 9112 §6.1
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._bytes += len(event.data)
            if self._chunks > FEW_CHUNKS + self._bytes // CHUNK_BYTES:
                raise h11.RemoteProtocolError("too many chunks")
        return event


class BoundedProtocol(H11Protocol):
    """One connection. A request that overruns its time is answered 408 if it is incomplete, else the connection is cut."""

    def __init__(self, *args: Any, limits: Limits, **named: Any) -> None:
        super().__init__(*args, **named)
        self.conn = _Framing(h11.SERVER)
        self.logger = _uvicorns_log
        self._limits = limits
        self._seconds = limits.seconds
        self._deadline: asyncio.TimerHandle | None = None
        self._asking = False
        self._wire_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        over = len(self.connections) - self._limits.connections
        if over > 0:
            self.app_state = self.app_state | {"refused": True}
            self._seconds = min(self._seconds, REFUSED_SECONDS)
        if over == 1 and (times := self._limits.log_rate.count("too many connections")):
            log.warning("api.too_many_connections", limit=self._limits.connections, times=times)
        self._start()
        if over > SPARE_CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline:
            self._deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._asking:
            self._begin()
        self._wire_bytes += len(data)
        if self._wire_bytes > MAX_WIRE_BYTES:
            self._refuse(413, "the request is too long")
        else:
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Reads a part of a request."""
        super().data_received(data)

    def on_response_complete(self) -> None:
        self._asking, cycle = False, self.cycle
        super().on_response_complete()
        if self.cycle is not cycle:  # a pipelined request has begun
            self._begin()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def shutdown(self) -> None:
        self.loop.call_later(SHUTDOWN_SECONDS, self.transport.abort)
        try:
            super().shutdown()
        except h11.LocalProtocolError:  # the response is already over
            self.transport.abort()

    def _begin(self) -> None:
        """A request begins."""
        self._asking, self._wire_bytes = True, 0
        self._start()

    def _start(self) -> None:
        if self._deadline:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(self._seconds, self._late)

    def _late(self) -> None:
        """Ends an overdue request, or an answer that the client does not read. uvicorn's timer ends idle connections."""
        untaken = self.transport.get_write_buffer_size() > 0
        if not (self._asking or untaken):
            if self.cycle is None:
                self.transport.close()
        elif untaken or self._is_answered():
            self.transport.abort()
        elif self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self.transport.close()
        else:
            self._refuse(408, f"the request did not come within {self._seconds:g} s")

    def _is_answered(self) -> bool:
        """Whether the request is complete or its answer has begun."""
        cycle = self.cycle
        return (
            cycle is not None
            and not cycle.response_complete
            and (cycle.response_started or not cycle.more_body)
        )

    def _refuse(self, status: int, text: str) -> None:
        """Answers instead of the application if no answer has begun, and closes the connection."""
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        body = text.encode()
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
        ]
        response = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)
