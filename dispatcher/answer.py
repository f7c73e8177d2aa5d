"""Takes an answer's bytes in, more strictly than aiohttp does by itself.

A whole head counts, whatever comes behind it; heads, with all 1xx before them, are bounded; what a
server sends without being asked closes the connection; and no connection grows old, so that a name
that has moved is looked up again.
"""

import asyncio
from typing import Any

from aiohttp import ClientPayloadError
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

MAX_HEAD_BYTES = 64 * 1024
"""Most that is read before the end of the final head."""

MAX_AGE_SECONDS = 60.0
"""A connection older than this is not used again."""

_END = b"\r\n\r\n"


class AnswerProtocol(ResponseHandler):
    """One connection's reading side. aiohttp's connector makes them by its `_factory`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._born = loop.time()
        self._awaits_head = False
        self._head_bytes = 0
        self._unfinished = b""
        """The last bytes of a head that is not whole yet: its end may lie across two reads."""

    @property
    def should_close(self) -> bool:
        """Asked when an answer is done."""
        return super().should_close or self._loop.time() - self._born > MAX_AGE_SECONDS

    def set_response_params(self, **params: Any) -> None:
        """Called before a request goes out."""
        self._awaits_head, self._head_bytes, self._unfinished = True, 0, b""
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Called with whatever has come."""
        while data and self._awaits_head:
            data = self._take_head(data)
        if data and self._nothing_asked():
            self._close()
        elif data:
            super().data_received(data)
            self._end_broken_body()

    def _take_head(self, data: bytes) -> bytes:
        """Hands a head's bytes on by themselves; returns what is behind them."""
        before = len(self._unfinished)
        end = (self._unfinished + data).find(_END)
        cut = len(data) if end < 0 else end + len(_END) - before
        self._unfinished = (self._unfinished + data)[-len(_END) + 1 :] if end < 0 else b""
        self._head_bytes += cut
        if self._head_bytes > MAX_HEAD_BYTES:
            self._close()
            self.set_exception(HttpProcessingError(message=f"head longer than {MAX_HEAD_BYTES} bytes"))
        else:
            super().data_received(data[:cut])
        self._awaits_head = self._exception is None and (end < 0 or not self._final_head_is_here())
        return b"" if self._exception else data[cut:]

    def _final_head_is_here(self) -> bool:
        return bool(self._buffer) and self._buffer[-1][0][0].code >= 200

    def _end_broken_body(self) -> None:
        """Whoever reads a body that cannot be read on is told, not left waiting for its end."""
        if self._exception is not None and self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(ClientPayloadError("the body is not what its head says"))

    def _nothing_asked(self) -> bool:
        return self._payload is None or self._payload.is_eof()

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.close()
