"""What is opened for requests that no longer need it."""

import asyncio

from dispatcher.sending.handshakes import Handshakes
from dispatcher.sending.opener import Opener
from dispatcher.sending.pool import Pool
from dispatcher.sending.target import Target

TARGET = Target("a.example", 80, False, ("a.example", 80, False), b"")


class Hanging:
    """In place of the connector: to a server that says nothing."""

    def __init__(self) -> None:
        self.begun = self.open = 0

    async def connect(self, _target: Target) -> None:
        """Never ends."""
        self.begun += 1
        self.open += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.open -= 1


def test_one_connection_is_opened_on() -> None:
    """Of the connections that no request waits for any more, one to an origin goes on being opened."""

    async def scene() -> None:
        connector, pool = Hanging(), Pool()
        opener = Opener(connector, Handshakes(), pool)  # type: ignore[arg-type]
        deadline = asyncio.get_running_loop().time() + 3600
        requests = [asyncio.create_task(opener.connection(TARGET, "acme", deadline)) for _ in range(10)]
        while connector.begun < 10:
            await asyncio.sleep(0)
        for one in requests:
            one.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        await asyncio.sleep(0)
        assert 1 == connector.open
        opener.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert 0 == connector.open
        pool.close()

    asyncio.run(scene())
