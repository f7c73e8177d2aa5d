"""An API is ready as long as one of several servers takes writes: the others' partitions alone stand still."""

import asyncio
from pathlib import Path

import pytest

from dispatcher.errors import RedisUnavailable
from dispatcher.store.across.installation import InstallationAcross
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.connection import connect
from dispatcher.store.grown_servers import GrownServers
from dispatcher.store.keys import keys_of
from dispatcher.store.servers import PlainServers
from tasks import wiring
from tests.divided import installed, two_servers


def test_one_server_that_refuses_writes(server_program: str, tmp_path: Path) -> None:
    """`check` is told of it; who can go on with the other is not stopped by it, unless all refuse."""
    with two_servers(server_program, tmp_path) as servers:
        urls = [server.url for server in servers]
        with installed(urls, 8) as many:

            async def require(store: wiring.Store, *, some: bool) -> None:
                await store.installation.require_writable(some=some)

            many.do(require, some=False)
            for place, url in enumerate(urls):
                with connect(url) as client:
                    client.config_set("min-replicas-to-write", 1)
                with pytest.raises(RedisUnavailable, match="NOREPLICAS") as refused:
                    many.do(require, some=False)
                named = tuple(f" ({one})" for one in urls[: place + 1])  # the first that answers
                assert refused.value.why.endswith(named), "and /readyz shows what is before brackets"
                if place == 0:
                    many.do(require, some=True)
            with pytest.raises(RedisUnavailable, match="NOREPLICAS"):
                many.do(require, some=True)


def test_the_previous_redis_does_not_count(server_program: str, tmp_path: Path) -> None:
    """No status change is put there: that it takes writes makes an API ready as little as that it answers."""

    async def require(url: str, previous: str, *, some: bool) -> None:
        servers = GrownServers(PlainServers([url], keys_of("dispatcher", 8)), previous, "dispatcher")
        try:
            await InstallationAcross(Partitions(servers)).require_writable(some=some)
        finally:
            await servers.aclose()

    with two_servers(server_program, tmp_path) as (new, previous):
        urls = new.url, previous.url
        with connect(previous.url) as client:
            client.config_set("min-replicas-to-write", 1)
        asyncio.run(require(*urls, some=True))
        with pytest.raises(RedisUnavailable, match="NOREPLICAS"):
            asyncio.run(require(*urls, some=False))
        with pytest.raises(RedisUnavailable, match="NOREPLICAS"):
            asyncio.run(require(previous.url, new.url, some=True))
        new.kill()
        with pytest.raises(RedisUnavailable, match="is not reachable"):
            asyncio.run(require(*urls, some=True))
