"""An API is ready as long as one of several servers takes writes: the others' partitions alone stand still."""

from pathlib import Path

import pytest

from dispatcher.errors import RedisUnavailable
from dispatcher.store.connection import connect
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
                with pytest.raises(RedisUnavailable, match="NOREPLICAS"):
                    many.do(require, some=False)
                if place == 0:
                    many.do(require, some=True)
            with pytest.raises(RedisUnavailable, match="NOREPLICAS"):
                many.do(require, some=True)
