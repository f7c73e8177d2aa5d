"""TLS against a server in memory, which sends what no TLS library's server would."""

import asyncio
import ssl

import pytest

from dispatcher.sending.encryption import MAX_EMPTY_RECORDS, MAX_HANDSHAKE_BYTES, MAX_RECORD_BYTES, Encryption
from dispatcher.sending.handshakes import Handshakes
from tests.http.test_transport import Certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One authority for all tests."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


class Server:
    """A server, and the transport to it. It sends `greeting` together with its last part of the handshake."""

    def __init__(self, tls: ssl.SSLContext, greeting: bytes) -> None:
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._received, self._to_send, server_side=True)
        self._greeting = greeting
        self._client: asyncio.Protocol | None = None
        self._closed = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Names its client."""
        assert isinstance(protocol, asyncio.Protocol)
        self._client = protocol

    def write(self, data: bytes) -> None:
        """Takes what the client sends during the handshake; answers at the loop's next turn."""
        self._received.write(data)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        else:
            self.encrypt(self._greeting)
        asyncio.get_running_loop().call_soon(self.flush)

    def encrypt(self, data: bytes) -> None:
        """Encrypts bytes, and sends nothing yet."""
        while data:
            data = data[self._tls.write(data) :]

    def flush(self) -> None:
        """Sends all at once."""
        if self._client and (sent := self._to_send.read()):
            self._client.data_received(sent)

    def abort(self) -> None:
        """Closes."""
        self._closed = True

    def is_closing(self) -> bool:
        """Whether the client closed it."""
        return self._closed


class Above(asyncio.Protocol):
    """What came."""

    def __init__(self) -> None:
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data


def received(tls: ssl.SSLContext, client: ssl.SSLContext, greeting: bytes, later: bytes = b"") -> bytes:
    """What a client gets of a server that greets it, and sends more at once."""

    async def scene() -> bytes:
        server, above = Server(tls, greeting), Above()
        await Encryption(server, above, client, "receiver.test").handshake(Handshakes())
        server.encrypt(later)
        server.flush()
        return above.received

    return asyncio.run(scene())


def test_what_comes_with_the_end_of_the_handshake_is_seen(certificates: Certificates) -> None:
    """Bytes behind the server's last part of the handshake are passed on at once, not with the next ones."""
    tls = certificates.server("receiver.test")
    tls.maximum_version = ssl.TLSVersion.TLSv1_2  # with TLS 1.3 the client's part is the last
    assert b"unasked" == received(tls, certificates.client(), b"unasked")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_records_are_whole_wherever_they_are_cut(certificates: Certificates, version: ssl.TLSVersion) -> None:
    """What comes at once may be many records, and the last one of them only in part."""
    tls = certificates.server("receiver.test")
    tls.maximum_version = version
    content = bytes(range(256)) * (MAX_RECORD_BYTES // 64)
    assert content + content == received(tls, certificates.client(), content, content)


@pytest.mark.parametrize(
    ("tickets", "is_closed"), [(MAX_EMPTY_RECORDS, False), (MAX_EMPTY_RECORDS + 1, True)]
)
def test_records_without_data_are_bounded(certificates: Certificates, tickets: int, is_closed: bool) -> None:
    """Each costs OpenSSL time, and no reader of an answer sees them."""
    tls = certificates.server("receiver.test")
    tls.num_tickets = tickets
    assert (b"" if is_closed else b"answer") == received(tls, certificates.client(), b"answer")


def test_they_are_counted_from_one_request_to_the_next(certificates: Certificates) -> None:
    """A connection that lasts is not closed for what came over all its time."""
    tls = certificates.server("receiver.test")
    tls.num_tickets = MAX_EMPTY_RECORDS

    async def scene() -> int:
        server, above = Server(tls, b"answer"), Above()
        layer = Encryption(server, above, certificates.client(), "receiver.test")
        await layer.handshake(Handshakes())
        server.flush()
        before = layer._empty_records
        layer.write(b"request")
        assert before == MAX_EMPTY_RECORDS
        return layer._empty_records

    assert 0 == asyncio.run(scene())


class Flood(Server):
    """A server that answers with records that OpenSSL skips: HelloRequest (RFC 5246 §7.4.1.1)."""

    sent = 0

    def write(self, data: bytes) -> None:
        """Answers without end, until it is closed."""
        asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Sends some, and more at the loop's next turn."""
        if self._client and not self.is_closing():
            flood = (b"\x16\x03\x03\x40\x00" + bytes(MAX_RECORD_BYTES)) * 4
            self.sent += len(flood)
            self._client.data_received(flood)
            asyncio.get_running_loop().call_soon(self.flush)


def test_a_servers_part_of_the_handshake_is_bounded(certificates: Certificates) -> None:
    """It is kept until its turn comes, so a server could fill the memory with it."""

    async def scene() -> int:
        server = Flood(certificates.server("receiver.test"), b"")
        layer = Encryption(server, Above(), certificates.client(), "receiver.test")
        with pytest.raises(OSError, match="too long"):
            await asyncio.wait_for(layer.handshake(Handshakes()), 5)
        return server.sent

    assert asyncio.run(scene()) < 2 * MAX_HANDSHAKE_BYTES
