"""A server that ends TLS in front of another one, and one that serves a single page by TLS: as sites are reached."""

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def context(folder: Path) -> ssl.SSLContext:
    """A server's side, with a certificate of its own for localhost and 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(now - datetime.timedelta(1))
    built = built.not_valid_after(now + datetime.timedelta(1))
    signed = built.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(
        key, hashes.SHA256()
    )
    pem = signed.public_bytes(serialization.Encoding.PEM)
    pem += key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "localhost.pem"
    file.write_bytes(pem)
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(file)
    return found


@contextmanager
def forwarder(listener: socket.socket, tls: ssl.SSLContext, to: str) -> Iterator[None]:
    """Hands on what comes by TLS to a URL's host and port."""
    where = urlsplit(to)
    assert where.hostname
    assert where.port
    target = where.hostname, where.port

    def serve(raw: socket.socket) -> None:
        with (
            suppress(OSError),
            tls.wrap_socket(raw, server_side=True) as client,
            socket.create_connection(target) as server,
        ):
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()

    with _accepting(listener, serve):
        yield


@contextmanager
def one_page(listener: socket.socket, tls: ssl.SSLContext, pages: dict[str, str]) -> Iterator[None]:
    """Answers each GET with the page of its path, as it stands in `pages` then."""

    def serve(raw: socket.socket) -> None:
        with suppress(OSError), tls.wrap_socket(raw, server_side=True) as client:
            asked = client.recv(65_536)
            if not asked:  # a spare connection of the browser
                return
            path = asked.split(b" ")[1].decode()
            body = pages.get(path, "").encode()
            status = "200 OK" if path in pages else "404 Not Found"
            if path == "/favicon.ico":
                status = "204 No Content"
            head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            client.sendall(head.encode() + body)

    with _accepting(listener, serve):
        yield


@contextmanager
def _accepting(listener: socket.socket, serve: object) -> Iterator[None]:
    def accept() -> None:
        with suppress(OSError):
            while True:
                raw, _ = listener.accept()
                threading.Thread(target=serve, args=(raw,), daemon=True).start()  # type: ignore[arg-type]

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def _copy(from_: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while some := from_.recv(65_536):
            to.sendall(some)
    with suppress(OSError):
        to.shutdown(socket.SHUT_WR)
