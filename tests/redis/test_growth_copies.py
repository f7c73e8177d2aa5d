"""What `grow` copies from the previous Redis: all of it, in commands of bounded size, and nothing that is only half there."""

import asyncio

import hiredis
import pytest
import redis

from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.command_parts import MOST_ARGUMENTS
from dispatcher.store.format import FORMAT
from dispatcher.store.grown_servers import GrownServers
from dispatcher.store.growth import Growth
from dispatcher.store.keys import Keys, endpoint_id, keys_of
from dispatcher.store.servers import PlainServers

MANY = 9000
COUNT = 2


def fill(url: str) -> None:
    """One customer with very many stopped endpoints and client certificates; and the name of one that was removed half-way."""
    keys = Keys("dispatcher")
    with redis.Redis.from_url(url) as client:
        client.set(keys.format, FORMAT)
        client.sadd(keys.workspaces, "acme", "gone")
        client.hset(keys.workspace("acme"), "dialect", "zeckta")
        pipe = client.pipeline(transaction=False)
        for number in range(MANY):
            name = EndpointName("acme", f"https://a{number}.example:443")
            pipe.hset(keys.endpoint(endpoint_id(name)), mapping={"name": str(name), "stopped": 1})
            pipe.zadd(keys.endpoints, {endpoint_id(name): "inf"})
            pipe.zadd(keys.client_certificates, {f"acme s{number}": number})
        pipe.execute()


def test_very_many(two_urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of thousands no command has more arguments than proxies allow; a workspace without a record is none afterwards."""
    here, previous = two_urls
    fill(previous)
    sizes: list[int] = []
    pack = hiredis.pack_command

    def counted(command: tuple[object, ...]) -> bytes:
        sizes.append(len(command))
        return pack(command)  # type: ignore[arg-type]  # its stub says one

    monkeypatch.setattr(hiredis, "pack_command", counted)

    async def grow() -> dict[str, int]:
        servers = GrownServers(PlainServers([here], keys_of("dispatcher", COUNT)), previous, "dispatcher")
        try:
            return await Growth(Partitions(servers, needs_all=True), "dispatcher").copy()
        finally:
            await servers.aclose()

    copied = asyncio.run(grow())
    assert (1, MANY) == (copied["workspaces"], copied["stoppedEndpoints"])
    assert max(sizes) <= MOST_ARGUMENTS
    with redis.Redis.from_url(here) as client:
        all_keys = keys_of("dispatcher", COUNT)
        names = [name for keys in all_keys for name in client.smembers(keys.workspaces)]
        listed = [client.zcard(keys.endpoints) for keys in all_keys]
        certificates = [client.zcard(keys.client_certificates) for keys in all_keys]
    assert [b"acme"] == names
    assert (MANY, MANY) == (sum(listed), sum(certificates))
