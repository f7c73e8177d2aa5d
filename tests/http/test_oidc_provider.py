"""What is asked of an identity provider that is slow, or does not answer."""

import asyncio

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.model import encode_json
from tasks.console.oidc_provider import ENDPOINTS, Provider

AT_ONCE = 20


def test_those_who_log_in_at_once_share_a_request() -> None:
    """Whether it answers or not; after a failure it is asked again."""

    async def look() -> None:
        asked, answers = 0, False

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            await reader.readuntil(b"\r\n\r\n")
            asked += 1
            if answers:
                body = encode_json({"issuer": issuer, **dict.fromkeys(ENDPOINTS, f"{issuer}/x")})
                writer.write(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                )
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            issuer = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            provider = Provider(issuer)
            many = (provider.document() for _ in range(AT_ONCE))
            failed = await asyncio.gather(*many, return_exceptions=True)
            assert [InvalidInput] * AT_ONCE == [type(one) for one in failed]
            assert 1 == asked
            answers = True
            found = await asyncio.gather(*(provider.document() for _ in range(AT_ONCE)))
            assert {issuer} == {one["issuer"] for one in found}
            assert 2 == asked
            assert issuer == (await provider.document())["issuer"]
            assert 2 == asked
            await provider.close()

    asyncio.run(look())


def test_who_goes_ends_nobodys_request() -> None:
    """A browser that gives up leaves the others waiting for the same answer."""

    async def look() -> None:
        gate = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            arrived.set()
            await gate.wait()
            writer.close()

        arrived = asyncio.Event()
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            provider = Provider(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            first, second = (asyncio.create_task(provider.document()) for _ in range(2))
            await arrived.wait()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            gate.set()
            with pytest.raises(InvalidInput):
                await second
            await provider.close()

    asyncio.run(look())
