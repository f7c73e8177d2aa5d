"""A name server for benchmarks, whose answers are loopback addresses.

A name's first label decides: `e` and a number is that number's address, one that starts with `slow` takes two seconds.
"""

import asyncio
import multiprocessing
import socket
import struct
from types import TracebackType
from typing import Self

SLOW_SECONDS = 2.0
TYPE_A = 1
TTL_SECONDS = 1


def loopback(number: int) -> str:
    """The address of endpoint `number`, in 127.0.0.0/8."""
    return f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def answer_to(query: bytes, address: str) -> tuple[bytes, bytes]:
    """The queried name's first label, and the answer: an A record, or no records for other types (RFC 1035 §4).

    `address` is the answer for names that are not `e` and a number.
    """
    end = query.index(b"\0", 12) + 5
    question = query[12:end]
    kind = struct.unpack(">H", question[-4:-2])[0]
    label = question[1 : 1 + question[0]]
    records = b""
    if kind == TYPE_A:
        found = loopback(int(label[1:])) if label[:1] == b"e" and label[1:].isdigit() else address
        records = b"\xc0\x0c" + struct.pack(">HHIH", TYPE_A, 1, TTL_SECONDS, 4) + socket.inet_aton(found)
    head = query[:2] + struct.pack(">HHHHH", 0x8180, 1, 1 if records else 0, 0, 0)
    return label, head + question + records


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
    """The name server's process; use it in `with`. `self.address` is its own, with its port.

    Names that are not `e` and a number resolve to the given address.
    """

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
