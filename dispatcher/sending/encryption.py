"""TLS on an open connection.

It drives OpenSSL itself, because the loops' own TLS decides for us what this module decides by measurement
(docs/decisions/http-connection.md): when a handshake takes the loop, and what else is done for a connection.
"""

import asyncio
import ssl
from typing import Protocol

from dispatcher.sending.handshakes import Handshakes

MAX_RECORD_BYTES = 16 * 1024
"""Most bytes that one record carries (RFC 8446 §5.1).

OpenSSL gets the handshake in slices of this size, and what follows by the record, because a BIO keeps the memory of the
most that it ever held.
"""
HEAD_BYTES = 5
"""Of a record's head, whose last two are the length of what follows (RFC 8446 §5.1)."""
LARGEST_RECORD = HEAD_BYTES + MAX_RECORD_BYTES + 2048
"""A record that says it is larger than this is invalid (RFC 5246 §6.2.3), and OpenSSL says so at once."""
MAX_HANDSHAKE_BYTES = 256 * 1024
"""Most bytes of a server's part of the handshake. OpenSSL takes a chain of certificates of up to 100 kB."""
MAX_EMPTY_RECORDS = 32
"""Most records without data between two requests: tickets, and new keys, which cost OpenSSL up to 0.2 ms each."""


class Transport(Protocol):
    """What a connection needs of the transport under it: a loop's, or Encryption."""

    def write(self, data: bytes) -> None:
        """Sends bytes."""

    def abort(self) -> None:
        """Closes at once."""

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""

    def get_write_buffer_size(self) -> int:
        """Bytes that the system has not taken yet: the other side does not read them."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Has another protocol told what happens."""


class Encryption(asyncio.Protocol):
    """TLS between a transport and a protocol: a protocol to the former, a transport to the latter."""

    def __init__(self, under: Transport, above: asyncio.Protocol, tls: ssl.SSLContext, name: str) -> None:
        self._under = under
        self._above = above
        self._name = name
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._received, self._to_send, server_hostname=name)
        self._held: list[bytes] = []
        """What came during the handshake. OpenSSL gets it when the next step has its turn."""
        self._news: asyncio.Future[None] | None = None
        self._shaking, self._shaken_bytes = True, 0
        self._begun = bytearray()
        """Of a record that has not wholly come."""
        self._empty_records = 0
        self._lost: Exception | None = None
        under.set_protocol(self)

    async def handshake(self, handshakes: Handshakes) -> None:
        """Shakes hands with the server, whose certificate must be for the name. Raises OSError."""
        while True:
            try:
                await handshakes.step(self._tls.do_handshake, self._name)
                break
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLError:
                self._flush()  # an alert, which tells the server why
                await asyncio.sleep(0)  # uvloop writes at the end of its turn, and nothing after `abort`
                raise
            await self._more()
        self._shaking = False
        self._flush()
        self.data_received(self._received.read() + b"".join(self._held))  # what came with the last part
        self._held.clear()
        if self._lost:
            raise self._lost

    async def _more(self) -> None:
        """Waits for more from the server. Raises OSError if the connection ended."""
        if not self._held and not self._lost:
            self._news = asyncio.get_running_loop().create_future()
            await self._news
            self._news = None
        if not self._held and self._lost:
            raise self._lost
        held = b"".join(self._held)
        self._received.write(held[:MAX_RECORD_BYTES])
        self._held = [held[MAX_RECORD_BYTES:]] if len(held) > MAX_RECORD_BYTES else []

    # What the protocol above calls.

    def write(self, data: bytes) -> None:
        """Encrypts and sends bytes."""
        self._empty_records = 0
        try:
            sent = self._tls.write(data)
            while sent < len(data):
                sent += self._tls.write(data[sent:])
        except ssl.SSLError as error:
            self._end(error)
        else:
            self._flush()

    def abort(self) -> None:
        """Closes the connection at once."""
        self._under.abort()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._under.is_closing()

    def get_write_buffer_size(self) -> int:
        """Bytes that the system has not taken yet."""
        return self._under.get_write_buffer_size()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Has another protocol told what happens: the next layer of TLS, in a tunnel through an encrypted proxy."""
        assert isinstance(protocol, asyncio.Protocol)
        self._above = protocol

    # What the transport under it calls.

    def data_received(self, data: bytes) -> None:
        if not self._shaking:
            self._begun += data
            self._read_records()
        elif self._lost is None:
            self._shaken_bytes += len(data)
            self._held.append(data)
            if self._shaken_bytes > MAX_HANDSHAKE_BYTES:
                self._held.clear()
                self._lost = OSError("the server's part of the handshake is too long")
                self._under.abort()
            self._wake()

    def _read_records(self) -> None:
        """Decrypts the records that have come, for the protocol above, until the connection is closed."""
        begun = self._begun
        while len(begun) >= HEAD_BYTES and not self._under.is_closing():
            size = HEAD_BYTES + (begun[3] << 8 | begun[4])
            if len(begun) < size <= LARGEST_RECORD:
                break
            self._received.write(begun[:size])
            del begun[:size]
            self._read_record()
        if self._to_send.pending:
            self._flush()

    def _read_record(self) -> None:
        try:
            clear = self._tls.read(MAX_RECORD_BYTES)
        except ssl.SSLWantReadError:  # it has no data: a ticket, new keys
            self._empty_records += 1
            if self._empty_records > MAX_EMPTY_RECORDS:
                self._end(ConnectionResetError("the server sends TLS records without data"))
        except ssl.SSLError as error:
            self._end(error)
        else:
            if clear:
                self._above.data_received(clear)
            else:  # close_notify (RFC 8446 §6.1)
                self._end(None)

    def eof_received(self) -> None:
        self.connection_lost(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = self._lost or error or ConnectionResetError("closed by the other side")
        if self._shaking:
            self._wake()
        else:
            self._above.connection_lost(error)

    def _end(self, error: Exception | None) -> None:
        self._above.connection_lost(error)
        self._under.abort()

    def _wake(self) -> None:
        if self._news and not self._news.done():
            self._news.set_result(None)

    def _flush(self) -> None:
        data = self._to_send.read()
        if data and not self._under.is_closing():  # connection_lost follows
            self._under.write(data)
