"""TLS contexts with a client certificate: one for each certificate, with the trust of all others."""

import asyncio
import os
import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from dispatcher.rules.client_certificate import ClientCertificate

MOST = 64
"""Contexts that are kept, the most recently used ones: each takes some 0.75 MB and 20 ms, most of it for the authorities."""

FAILED_SECONDS = 30.0
"""So long after a context could not be made, it is not tried again."""


class ClientContexts:
    """Makes and keeps TLS contexts by certificate. `new` makes one that trusts what all trust."""

    def __init__(self, new: Callable[[], ssl.SSLContext], most: int = MOST) -> None:
        self._new = new
        self._most = most
        self._made: OrderedDict[str, asyncio.Task[ssl.SSLContext]] = OrderedDict()
        """Those that failed as well, for FAILED_SECONDS: every callback that waits would try again."""

    async def of(self, certificate: ClientCertificate) -> ssl.SSLContext:
        """The context for a certificate, made once for all who wait for it, in a thread. Raises OSError if OpenSSL refuses it."""
        name = certificate.fingerprint
        making = self._made.get(name)
        if making is None:
            making = asyncio.create_task(asyncio.to_thread(with_certificate, certificate, self._new))
            making.add_done_callback(lambda task: self._ended(name, task))
            self._made[name] = making
            if len(self._made) > self._most:
                self._made.popitem(last=False)
        self._made.move_to_end(name)
        return await asyncio.shield(making)

    def _ended(self, name: str, making: asyncio.Task[ssl.SSLContext]) -> None:
        if making.cancelled():
            self._forget(name, making)
        elif making.exception():
            asyncio.get_running_loop().call_later(FAILED_SECONDS, self._forget, name, making)

    def _forget(self, name: str, making: asyncio.Task[ssl.SSLContext]) -> None:
        if self._made.get(name) is making:
            del self._made[name]


def with_certificate(certificate: ClientCertificate, new: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """A TLS context with a client certificate. Raises OSError if OpenSSL refuses it.

    OpenSSL reads files only, so certificate and key are in one for a moment.
    """
    context = new()
    with _file() as (file, path):
        file.write((certificate.chain + certificate.key).encode())
        file.flush()
        context.load_cert_chain(path)
    context.post_handshake_auth = True  # some servers ask once they know the path (RFC 8446 §4.6.2)
    return context


@contextmanager
def _file() -> Iterator[tuple[IO[bytes], str]]:
    """A file with its path: on Linux in memory, so a key is never on a disk; elsewhere one that this user alone may read."""
    if not hasattr(os, "memfd_create"):
        with tempfile.NamedTemporaryFile() as file:
            yield file, file.name
        return
    descriptor = os.memfd_create("client-certificate")
    with open(descriptor, "wb") as in_memory:
        yield in_memory, f"/proc/self/fd/{descriptor}"
