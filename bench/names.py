"""A name server for benchmarks: all names have one loopback address; those that start with `slow` take two seconds."""

import asyncio
import multiprocessing
import socket
import struct
from types import TracebackType
from typing import Self

SLOW_SECONDS = 2.0
TYPE_A = 1


def answer_to(query: bytes, address: str) -> tuple[bytes, bytes]:
    """The queried name's first label, and the answer: an A record, or no records for other types (RFC 1035 §4)."""
    end = query.index(b"\0", 12) + 5
    question = query[12:end]
    kind = struct.unpack(">H", question[-4:-2])[0]
    records = b""
    if kind == TYPE_A:
        records = b"\xc0\x0c" + struct.pack(">HHIH", TYPE_A, 1, 1, 4) + socket.inet_aton(address)
    head = query[:2] + struct.pack(">HHHHH", 0x8180, 1, 1 if records else 0, 0, 0)
    return question[1 : 1 + question[0]], head + question + records


class _Names(asyncio.DatagramProtocol):
    def __init__(self, address: str) -> None:
        self._address = address

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, query: bytes, sender: tuple[str, int]) -> None:
        first, answer = answer_to(query, self._address)
        wait = SLOW_SECONDS if first.startswith(b"slow") else 0
        asyncio.get_running_loop().call_later(wait, self._transport.sendto, answer, sender)


async def _serve(pipe: "multiprocessing.connection.Connection", address: str) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Names(address), ("127.0.0.1", 0))
    pipe.send(transport.get_extra_info("sockname")[1])
    await asyncio.Event().wait()


def _main(pipe: "multiprocessing.connection.Connection", address: str) -> None:
    asyncio.run(_serve(pipe, address))


class NameServer:
    """The name server's process; use it in `with`. All names resolve to the given address; `self.address` is its own."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs, address), daemon=True)
        self._process.start()
        self.address = f"127.0.0.1:{pipe.recv()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()
