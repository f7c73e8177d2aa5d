"""One HTTP/1.1 connection to a receiver: a request goes out, and one answer comes in, within bounds.

A whole final head is an answer, whatever comes behind it. Heads, with all 1xx before them, and bodies are
bounded. What a server sends without being asked closes the connection, so that it is never taken for the
answer to the next request.
"""

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Any, cast

import httptools

MAX_HEAD_BYTES = 64 * 1024
"""Most that is read before the end of the final head."""

MAX_ANSWER_BYTES = 64 * 1024
"""Most of a body that is kept; the connection of a longer one is closed."""

MAX_BODY_BYTES = 1024 * 1024
"""Most that is read behind the head, with the frames of chunks, which can be long and hold nothing."""

INTERIM_BYTES = 1024
"""What a 1xx counts beside its length, so that a flood of short ones ends early."""


class NoAnswer(Exception):
    """No final head was read; `word` says why, from the closed list of attempt errors."""

    def __init__(self, word: str, text: str) -> None:
        super().__init__(text)
        self.word = word


@dataclass(slots=True)
class Answer:
    """A head that was read whole, and the beginning of its body, as it was sent."""

    status: int
    headers: list[tuple[bytes, bytes]]
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0

    @property
    def body(self) -> bytes:
        """At most 64 KiB."""
        return b"".join(self.chunks)[:MAX_ANSWER_BYTES]


class Connection(asyncio.Protocol):
    """Asks one thing at a time. Made by a loop's `create_connection`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._answer: Answer | None = None
        self._complete = self._head_only = False
        self._head_bytes = self._body_bytes = 0
        self.reusable = False
        """Whether another request may be sent: the last answer was read to its end, and nothing came behind it."""
        self.made_at = self.idle_since = self._loop.time()

    async def ask(self, request: bytes, deadline: float | None = None, *, head_only: bool = False) -> Answer:
        """Sends a request and waits for its answer, until `deadline` (of the loop's clock). Raises NoAnswer.

        With `head_only` no body is waited for: a proxy's answer to CONNECT has none.
        """
        assert self._transport
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)
        self._headers, self._answer, self._complete, self.reusable = [], None, False, False
        self._head_only = head_only
        self._head_bytes = self._body_bytes = 0
        self._waiting = self._loop.create_future()
        timer = self._loop.call_at(deadline, self._end, "timeout", "no answer in time") if deadline else None
        try:
            self._transport.write(request)
            return await self._waiting
        finally:
            if timer:
                timer.cancel()
            self._waiting = self._parser = None
            if self.reusable:
                self.idle_since = self._loop.time()
            else:
                self.close()

    async def encrypted(self, tls: ssl.SSLContext, name: str) -> "Connection":
        """The connection that goes through this one, encrypted, to the server of that name. Raises OSError."""
        inner = Connection()
        assert self._transport
        try:
            inner._transport = await self._loop.start_tls(self._transport, inner, tls, server_hostname=name)
        except BaseException:
            self.close()
            raise
        return inner

    def close(self) -> None:
        """Ends the connection at once."""
        self.reusable = False
        if self._transport:
            self._transport.abort()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is none by inheritance

    def connection_lost(self, error: Exception | None) -> None:
        self.reusable = False
        self._end("maybe_received", f"the connection ended before the answer's head: {error or 'closed'}")

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._waiting.done():
            self.close()  # nobody asked
            return
        before = self._answer
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.reusable = False
            self._end("protocol", f"not an HTTP answer: {error.__context__ or error}")
            return
        if self._answer is None:
            self._head_bytes += len(data)
        elif before:
            self._body_bytes += len(data)
        if self._complete or (self._answer and self._has_enough(self._answer)):
            self._end("protocol", "")
        elif self._head_bytes > MAX_HEAD_BYTES:
            self._end("protocol", f"head longer than {MAX_HEAD_BYTES} bytes")

    def _has_enough(self, answer: Answer) -> bool:
        return answer.size > MAX_ANSWER_BYTES or self._body_bytes > MAX_BODY_BYTES

    def _end(self, word: str, text: str) -> None:
        """Whoever waits gets the answer if its head was read, else is told why there is none."""
        if self._waiting is None or self._waiting.done():
            return
        if self._answer:
            self._waiting.set_result(self._answer)
        else:
            self._waiting.set_exception(NoAnswer(word, text))

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._complete:
            self.reusable = False  # something comes behind the answer

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer is None:  # else a trailer
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            self._headers = []
            self._head_bytes += INTERIM_BYTES
        elif self._answer is None:
            self._answer = Answer(status, self._headers)
            if self._head_only:
                self._complete = self.reusable = True

    def on_body(self, body: bytes) -> None:
        if self._answer and self._answer.size <= MAX_ANSWER_BYTES:
            self._answer.chunks.append(body)
            self._answer.size += len(body)

    def on_message_complete(self) -> None:
        if self._answer and not self._complete:
            self._complete = True
            self.reusable = self._parser.should_keep_alive()
