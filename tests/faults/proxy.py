"""A TCP proxy between workers and Redis that can be slow, go silent, cut what it carries, or change its target.

With a certificate it speaks TLS to those who connect.
"""

import asyncio
import ssl
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHUNK = 65536


class Proxy:
    """Carries connections from a TCP port to a unix socket; use in `with`."""

    def __init__(self, target: Path, tls: ssl.SSLContext | None = None) -> None:
        self.target = target
        self.tls = tls
        self.received = bytearray()
        """What came from those who connect, decrypted."""
        self.delay_seconds = 0.0
        """How long each piece from the server is held back."""
        self.silent = False
        """Whether what comes is thrown away."""
        self.answers_until = b""
        """Once this came from those who connect, what the server answers is thrown away; empty: never."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._carried: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """What clients connect to."""
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Ends all connections, with a reset."""
        self._loop.call_soon_threadsafe(self._abort)

    def _abort(self) -> None:
        for writer in list(self._carried):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_unix_connection(str(self.target))
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, there_writer}
        self._carried |= pair
        await asyncio.gather(
            self._carry(reader, there_writer, back=False), self._carry(there_reader, writer, back=True)
        )
        self._carried -= pair

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool) -> None:
        try:
            while data := await reader.read(CHUNK):
                if back and self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                if not back:
                    self.received += data
                if not (self.silent or (back and self._keeps_answers())):
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        writer.transport.abort()

    def _keeps_answers(self) -> bool:
        return bool(self.answers_until) and self.answers_until in self.received

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        self._abort()
        while self._carried:
            await asyncio.sleep(0.01)
