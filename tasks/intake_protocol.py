"""The short way of a plain post: from the connection to the HTTP intake, past h11 and the application.

Those take ten times as long as all the rest. They still read every request that is not plain, and answer every one that
the intake does not take.
"""

from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES

from dispatcher.api.enqueuer import Answer, Enqueuer
from dispatcher.api.plain_post import PlainHead, plain_head
from tasks.api_protocol import SHUTDOWN_SECONDS, BoundedProtocol

MAX_BEHIND_BYTES = 64 * 1024
"""What is read of further requests while one is with the intake."""


class IntakeProtocol(BoundedProtocol):
    """One connection. It holds the bytes of a plain post until it is answered, or given to h11 after all."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._post: PlainHead | None = None
        self._last_head = b""
        self._last: PlainHead | None = None
        """What that head says, whose end it includes: a connection's plain posts often have the same one, byte for byte."""
        self._held = bytearray()
        self._is_taken = False
        self._is_ending = False
        self._pipelines = False
        """Whether a request came before the one before it was answered: from then on h11 reads all."""

    def shutdown(self) -> None:
        if self._is_taken:
            self._is_ending = True
            self.loop.call_later(SHUTDOWN_SECONDS, self.transport.abort)
        else:
            self._give_back()
            super().shutdown()

    def _read(self, data: bytes) -> None:
        if not self._post:
            self._post = self._begun(data)
        if not self._post:
            super()._read(data)
            return
        self._held += data
        if self._is_taken:
            if len(self._held) > self._post.end + MAX_BEHIND_BYTES:
                self.flow.pause_reading()
        elif len(self._held) >= self._post.end:
            self._is_taken = True
            body = bytes(self._held[self._post.body_at : self._post.end])
            self._enqueuer.take(self._post.key, body, self._reply)

    def _begun(self, data: bytes) -> PlainHead | None:
        """The head of a plain post that begins here. One whose key is not known is not waited for."""
        enqueuer: Enqueuer | None = self.app_state.get("enqueuer")
        if not enqueuer or "refused" in self.app_state or not self._is_between_requests():
            return None
        if self._pipelines or self.flow.write_paused:  # h11's way holds such a client up
            return None
        post = self._plain_head(data, enqueuer)
        if not post or (len(data) < post.end and not enqueuer.knows(post.key)):
            return None
        self._enqueuer = enqueuer
        self._unset_keepalive_if_required()
        return post

    def _plain_head(self, data: bytes, enqueuer: Enqueuer) -> PlainHead | None:
        if self._last and data.startswith(self._last_head):
            return self._last
        post = plain_head(data)
        if post and enqueuer.knows(post.key):  # no other key's text is kept
            self._last_head, self._last = data[: post.body_at], post
        return post

    def _is_between_requests(self) -> bool:
        """Whether h11 has nothing of a request."""
        is_idle = self.conn.their_state is h11.IDLE and self.conn.our_state is h11.IDLE
        return is_idle and not self.conn.trailing_data[0]

    def _reply(self, answer: Answer | None) -> None:
        post, self._is_taken = self._post, False
        if not post or self.transport.is_closing():
            return
        if answer is None:
            self._give_back()
            if self._is_ending:
                super().shutdown()
            return
        behind = bytes(self._held[post.end :])
        self._pipelines = self._pipelines or bool(behind)
        self._post, self._held = None, bytearray()
        self._write(answer)
        self.on_response_complete()
        if behind and not self._is_ending:
            self.data_received(behind)

    def _write(self, answer: Answer) -> None:
        lines = [b"HTTP/1.1 %d %s" % (answer.status, STATUS_PHRASES[answer.status])]
        lines += [b"%s: %s" % header for header in self.server_state.default_headers]
        lines += [f"{name}: {value}".encode() for name, value in answer.headers.items()]
        lines += [b"connection: close"] if self._is_ending else []
        lines.append(b"content-type: application/json\r\ncache-control: no-store")
        lines.append(b"content-length: %d\r\n\r\n%s" % (len(answer.body), answer.body))
        self.transport.write(b"\r\n".join(lines))
        if self._is_ending:
            self.transport.close()

    def _give_back(self) -> None:
        """Lets h11 read what is held."""
        held, self._post, self._held = self._held, None, bytearray()
        if held:
            super()._read(bytes(held))

    def _late(self) -> None:
        if not self._is_taken:
            self._give_back()
        super()._late()

    def _is_answered(self) -> bool:
        return self._is_taken or super()._is_answered()
