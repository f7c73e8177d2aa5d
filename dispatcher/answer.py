"""Takes an answer's bytes in, more strictly than aiohttp does by itself.

A whole head counts, whatever comes behind it; heads, with all 1xx before them, are bounded; what a
server sends without being asked closes the connection; and no connection grows old, so that a name
that has moved is looked up again.
"""

import asyncio
import re
from typing import Any

from aiohttp import ClientPayloadError
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

MAX_HEAD_BYTES = 64 * 1024
"""Most that is read before the end of the final head."""

MAX_BODY_BYTES = 1024 * 1024
"""Most that is read behind the head, with the frames of chunks, which can be long and hold nothing."""

MAX_AGE_SECONDS = 60.0
"""A connection that is this old is not used again."""

INTERIM_BYTES = 1024
"""What a 1xx counts beside its length, so that a flood of short ones ends early."""

_HEAD_END = re.compile(rb"\A[\r\n]+|\r?\n\r?\n")
"""Where a head may end; at the beginning of a read also what may be the rest of such an end."""


class AnswerProtocol(ResponseHandler):
    """One connection's reading side. aiohttp's connector makes them by its `_factory`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_age_seconds: float = MAX_AGE_SECONDS) -> None:
        super().__init__(loop)
        self._old_at = loop.time() + max_age_seconds
        self._awaits_head = False
        self._head_bytes = 0
        self._body_bytes = 0

    @property
    def should_close(self) -> bool:
        """Asked when an answer is done."""
        return super().should_close or self._loop.time() >= self._old_at

    def set_response_params(self, **params: Any) -> None:
        """Called before a request goes out."""
        self._awaits_head, self._head_bytes, self._body_bytes = True, 0, 0
        super().set_response_params(**params)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Called by the parser for each head that is whole."""
        self._awaits_head = data[0].code < 200 and data[0].code != 101
        self._head_bytes += INTERIM_BYTES
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Called with whatever has come, and with nothing to have a paused parser go on."""
        while self._awaits_head and data and not self._exception:
            data = self._take_head(data)
        self._body_bytes += len(data)
        if self._body_bytes > MAX_BODY_BYTES and not self._exception:
            self._refuse("body longer than is read")
            self._end_broken_body()
        elif data and self._nothing_asked():
            self._close()
        elif not self._exception:
            super().data_received(data)
            self._end_broken_body()

    def _take_head(self, data: bytes) -> bytes:
        """Hands a head's bytes on by themselves; returns what is behind them."""
        end = _HEAD_END.search(data)
        cut = end.end() if end else len(data)
        self._head_bytes += cut
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(f"head longer than {MAX_HEAD_BYTES} bytes")
        else:
            super().data_received(data[:cut])
        return data[cut:]

    def _end_broken_body(self) -> None:
        """Whoever reads a body that cannot be read on is told, not left waiting for its end."""
        if self._exception is not None and self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(ClientPayloadError("the body is not what its head says"))

    def _nothing_asked(self) -> bool:
        return self._payload is None or self._payload.is_eof()

    def _refuse(self, why: str) -> None:
        self._close()
        self.set_exception(HttpProcessingError(message=why))

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.close()
