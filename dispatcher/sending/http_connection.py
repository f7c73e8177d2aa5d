"""One HTTP/1.1 connection to a receiver: one request at a time, and one answer to each.

Unsolicited bytes from a server close the connection, so that they are never taken for the answer to the next request.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from dispatcher.sending.answer import Answer, Reader
from dispatcher.sending.encryption import Encryption, Transport
from dispatcher.sending.failures import NoAnswer, plain
from dispatcher.sending.handshakes import Handshakes

REST_SECONDS = 1.0
"""How long to wait for the rest of an answer after its head: the status is known, and the wait holds a slot."""


class Connection(asyncio.Protocol):
    """Sends one request at a time. Created by a loop's `create_connection`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: Transport | None = None
        self._reader: Reader | None = None
        """Of a request under way. It holds a head of up to 64 KiB, so an idle connection has none."""
        self._waiting: asyncio.Future[Answer | NoAnswer] | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._heard = False
        self._rest_seconds = REST_SECONDS
        self._over: NoAnswer | None = None
        self.reusable = False
        """Whether another request may be sent: the last answer was read to its end, nothing came after it, and the request had gone.

        A receiver that answers and does not read would have requests pile up in this process.

        The opener also sets it for a connection that it made for nobody.
        """
        self.fresh = True
        """Whether no request was sent yet."""
        self.keep_alive: float | None = None
        """For how many seconds the server said that it keeps this connection; None: it did not say."""
        self.unanswered = True
        """Whether nothing at all has come since the last request."""

        # What the pool notes, by its own clock.
        self.old_at = self.idle_since = self.idle_seconds = 0.0
        """`idle_seconds` is how long it had been idle when it was taken."""
        self.workspace = ""
        """Whose callback was the last."""
        self.ended: Callable[[Connection], None] | None = None
        """Called if it ends while it is reusable: the server closed it, or sent something without being asked."""

    async def ask(
        self, request: bytes, deadline: float | None = None, *, head_only: bool = False, whole: bool = False
    ) -> Answer | NoAnswer:
        """Sends a request and waits for its answer, until `deadline` (of the loop's clock).

        After its head it waits for REST_SECONDS at most, or for half of the time that is left if the `whole` answer is
        wanted: some answers have no end, and what came of them may do.
        With `head_only` it expects no body: answers to HEAD, and a proxy's answer to CONNECT, have none.
        """
        assert self._transport
        if self._over:
            return self._over
        self._reader = reader = Reader()
        reader.head_only = head_only
        self.reusable = self.fresh = False
        left = deadline - self._loop.time() if deadline and whole else 0.0
        self._rest_seconds = max(REST_SECONDS, left / 2)
        self._waiting = self._loop.create_future()
        timer = self._loop.call_at(deadline, self._end, "timeout", "no answer in time") if deadline else None
        try:
            self._transport.write(request)
            return await self._waiting
        except BaseException:
            self.reusable = (
                False  # cancelled, maybe just when the answer came: nobody else has this connection
            )
            raise
        finally:
            if timer:
                timer.cancel()
            if self._rest_timer:
                self._rest_timer.cancel()
            self._waiting = self._rest_timer = self._reader = None
            self.keep_alive, self.unanswered = reader.keep_alive, not reader.begun
            if not self.reusable:
                self.close()

    async def encrypt(self, tls: ssl.SSLContext, name: str, handshakes: Handshakes) -> None:
        """Starts TLS with the server `name`. Raises OSError."""
        assert self._transport
        try:
            layer = Encryption(self._transport, self, tls, name)
            await layer.handshake(handshakes)
        except BaseException:
            self.close()
            raise
        self._transport, self.keep_alive = layer, None
        self._heard, self.reusable, self.fresh = False, False, True

    @property
    def over(self) -> bool:
        """Whether it ended, or its receiver spoke, before a request was sent: none can be sent."""
        return self._over is not None

    def close(self) -> None:
        """Aborts the connection."""
        self.reusable = False
        if self._transport:
            self._transport.abort()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(Transport, transport)  # uvloop's does not inherit from it

    def eof_received(self) -> None:
        self.connection_lost(None)  # now, not at the loop's next turn: a request might be sent before that

    def connection_lost(self, error: Exception | None) -> None:
        self._end_idle()
        why = plain(error) if error else "closed by the other side"
        if not self._heard and isinstance(error, ssl.SSLError) and "alert" in str(error):
            self._end("tls_handshake", f"refused after the handshake: {why}")  # TLS 1.3: RFC 8446 §4.4.2.4
        elif self._waiting:
            self._end("maybe_received", f"the connection ended before the answer's head was whole: {why}")
        else:
            self._end("connect", f"the connection ended before anything was sent: {why}")

    def data_received(self, data: bytes) -> None:
        self._heard = True
        reader, waiting = self._reader, self._waiting
        if reader is None or waiting is None or waiting.done():
            self._end_idle()
            self._end("protocol", "it sent something before it was asked")
            self.close()
            return
        reader.feed(data)
        if reader.done and reader.answer:
            assert self._transport
            self.reusable = reader.reusable and not self._transport.get_write_buffer_size()
            waiting.set_result(reader.answer)
        elif reader.done:
            self._end("protocol", reader.problem)
        elif reader.answer and not self._rest_timer:
            self._rest_timer = self._loop.call_later(self._rest_seconds, self._end, "", "")

    def _end_idle(self) -> None:
        if self.reusable:
            self.reusable = False
            if self.ended:
                self.ended(self)

    def _end(self, word: str, text: str) -> None:
        """Ends a request: with the answer if its head was read, else with the reason why there is none.

        Without a request, the next one ends with that reason.
        """
        if self._waiting is None:
            self._over = self._over or NoAnswer(word, text)
        elif self._waiting.done():
            pass
        elif self._reader and self._reader.answer:
            self._waiting.set_result(self._reader.answer)
        else:
            self._waiting.set_result(NoAnswer(word, text))
