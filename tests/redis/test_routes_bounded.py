"""What a service remembers of the workspaces that it is asked about."""

from dispatcher.store.across import partitions
from dispatcher.store.across.partitions import Partitions
from tasks import wiring
from tests.divided import installed


def test_remembered_routes_are_bounded(redis_url: str) -> None:
    """However many workspaces are looked up, only the last ones' partitions are remembered."""
    with installed([redis_url], 2) as found:

        async def looked_up() -> list[str]:
            servers = wiring.servers(found.settings)
            some = Partitions(servers)
            for number in range(partitions.MOST_ROUTES + 10):
                await some.of(f"w-{number}")
            await servers.aclose()
            return list(some._routes)

        known = found.worlds[0].run(looked_up())
    assert [f"w-{number}" for number in range(10, partitions.MOST_ROUTES + 10)] == known
