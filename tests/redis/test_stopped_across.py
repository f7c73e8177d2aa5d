"""Endpoints that the operator stops, of workspaces that are spread over several partitions; on two real servers."""

from pathlib import Path
from typing import Any

import pytest

from dispatcher.errors import PartlyDone
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.across.workspaces import WorkspacesAcross
from dispatcher.store.growth import Growth
from dispatcher.store.keys import endpoint_id
from dispatcher.store.replies import Stopped
from dispatcher.store.stored_callback import Waiting
from tasks import incomplete, wiring
from tasks.actions import endpoints, workspaces
from tasks.actions.workspaces import Wanted
from tests.divided import installed, two_servers
from tests.world import callback

URL = "https://acme.example:443"
NAME = f"acme {URL}"


async def state(store: wiring.Store) -> list[str]:
    """What the list of endpoints shows."""
    return [one.state for one in await endpoints.chosen(store, "acme", None)]


async def stop(store: wiring.Store, *, resume: bool) -> Any:
    """As the command does."""
    return await endpoints.stop(store, await endpoints.one(store, "acme", URL), resume=resume)


def test_stopped_where_nothing_came_yet(two_urls: list[str]) -> None:
    """One is stopped, and resumed, in all partitions of its workspace, also in those that knew no callback of it yet."""
    with installed(two_urls, 8) as many:
        many.do(workspaces.add, "acme", "zeckta", Wanted(f"{URL}/hooks", width=3), None)
        many.waiting("acme", "e1")
        assert Stopped.CHANGED is many.do(stop, resume=False)
        assert Stopped.SAME is many.do(stop, resume=False)
        assert ["stopped"] == many.do(state)
        _, *others = [many.worlds[n] for n in many.partitioning.all_of("acme", 3)]
        for number, world in enumerate(others):
            world.accept(callback(f"n{number}", endpoint=NAME, message="m", timestamp_ms=world.now))
            assert not world.claim(NAME).callbacks
        assert Stopped.CHANGED is many.do(stop, resume=True)
        assert [["n0"], ["n1"]] == [world.deliver_all(NAME) for world in others]
        for world in others:
            assert world.call("pttl", world.keys.endpoint(endpoint_id(NAME))) > 0


def test_stopped_and_spread_further(two_urls: list[str]) -> None:
    """A workspace that is spread over more partitions has its stopped endpoints stopped in the new ones."""
    with installed(two_urls, 8) as many:
        many.do(workspaces.add, "acme", "zeckta", Wanted(f"{URL}/hooks"), None)
        many.waiting("acme", "e1")
        assert Stopped.CHANGED is many.do(stop, resume=False)
        many.do(workspaces.update, "acme", Wanted(width=2))
        new = many.worlds[many.partitioning.all_of("acme", 2)[1]]
        new.accept(callback("n", endpoint=NAME, message="m", timestamp_ms=new.now))
        assert not new.claim(NAME).callbacks


def test_stopped_of_a_removed_workspace(two_urls: list[str]) -> None:
    """An endpoint whose workspace was removed is stopped where it is known, and nothing is left elsewhere."""
    with installed(two_urls, 8) as many:
        many.do(workspaces.add, "acme", "zeckta", Wanted(f"{URL}/hooks"), None)
        many.delivered("acme", "e1")
        many.do(lambda store: store.workspaces.remove("acme", store.ledger))
        many.do(stop, resume=False)
        key = endpoint_id(NAME)
        assert 1 == sum(world.call("exists", world.keys.endpoint(key)) for world in many.worlds)


def test_stopped_after_growth(two_urls: list[str]) -> None:
    """An endpoint that only the previous Redis knows is stopped in its workspace's home too, for what comes there."""
    previous, new = two_urls
    with installed([previous], 1) as before:
        before.do(workspaces.add, "acme", "zeckta", Wanted(f"{URL}/hooks"), None)
        before.waiting("acme", "e1")
    with installed([new], 8, previous_redis_url=previous) as many:

        async def grow() -> None:
            servers = wiring.servers(many.settings)
            await Growth(Partitions(servers, needs_all=True), "dispatcher").copy()
            await servers.aclose()

        home = many.of("acme")
        home.run(grow())
        assert Stopped.CHANGED is many.do(stop, resume=False)
        assert ["stopped"] == many.do(state)
        home.accept(callback("n", endpoint=NAME, message="m", timestamp_ms=home.now))
        assert not home.claim(NAME).callbacks
        assert Stopped.CHANGED is many.do(stop, resume=True)
        assert ["n"] == home.deliver_all(NAME)


def test_stopped_in_some(two_urls: list[str]) -> None:
    """One that is stopped in some partitions only, as after a run that broke off, is not shown as stopped; the next run stops it in all."""
    with installed(two_urls, 8) as many:
        many.do(workspaces.add, "acme", "zeckta", Wanted(f"{URL}/hooks", width=2), None)
        home, other = [many.worlds[n] for n in many.partitioning.all_of("acme", 2)]
        for number, world in enumerate((home, other)):
            world.accept(callback(f"e{number}", endpoint=NAME, message=f"m{number}", timestamp_ms=world.now))
        home.run(home.ledger.stop(endpoint_id(NAME)))
        assert ["waiting"] == many.do(state)
        assert Stopped.CHANGED is many.do(stop, resume=False)
        assert ["stopped"] == many.do(state)
        assert not other.claim(NAME).callbacks


@pytest.mark.parametrize("how", [{"needs_all": True}, {"is_service": True}])
def test_services_note_no_endpoints(two_urls: list[str], how: dict[str, bool]) -> None:
    """A service reads a workspace's endpoints, and finds who holds one, without noting any: it would note more and more."""
    with installed(two_urls, 8) as many:
        many.do(workspaces.add, "acme", "zeckta", Wanted(f"{URL}/hooks"), None)
        many.waiting("acme", "e1")

        async def read() -> tuple[int, list[int]]:
            servers = wiring.servers(many.settings)
            of = Partitions(servers, **how)
            found = WorkspacesAcross(of, lambda *of_one: wiring.workspaces(many.settings, *of_one))
            [endpoint] = await found.endpoints("acme")
            holders = await of.with_endpoint(endpoint.id)
            await servers.aclose()
            return len(of._holders), holders

        assert (0, [many.partitioning.home("acme")]) == many.worlds[0].run(read())


def test_a_service_finds_what_came_since(two_urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A console that has shown an endpoint cancels also what waits in a partition that its workspace has got since."""
    monkeypatch.setattr(incomplete, "is_service", True)
    with installed(two_urls, 8) as many:
        many.do(workspaces.add, "acme", "zeckta", Wanted(f"{URL}/hooks"), None)
        many.waiting("acme", "e1")
        new = many.worlds[many.partitioning.all_of("acme", 2)[1]]

        async def cancel(store: wiring.Store) -> int:
            assert await store.endpoints.get(EndpointName.parse(NAME))
            async with wiring.store(many.settings) as other:
                await workspaces.update(other, "acme", Wanted(width=2))
            return await store.ledger.cancel(endpoint_id(NAME), [Waiting("e2")])

        new.accept(callback("e2", endpoint=NAME, message="m", timestamp_ms=new.now))
        assert 1 == many.do(cancel)


def test_a_service_says_what_it_could_not_ask(
    server_program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a partition of the endpoint's workspace is away, what was done is not complete; others that are away do not matter."""
    monkeypatch.setattr(incomplete, "is_service", True)
    with two_servers(server_program, tmp_path) as servers, installed([one.url for one in servers], 8) as many:
        home = many.partitioning.home("acme")
        many.do(workspaces.add, "acme", "zeckta", Wanted(f"{URL}/hooks"), None)
        many.waiting("acme", "e1", "e2")

        async def cancel(store: wiring.Store, event_id: str) -> int:
            servers[1 - home % 2].kill()
            return await store.ledger.cancel(endpoint_id(NAME), [Waiting(event_id)])

        assert 1 == many.do(cancel, "e1")
        servers[1 - home % 2].start()
        many.do(workspaces.update, "acme", Wanted(width=2))
        with pytest.raises(PartlyDone):
            many.do(cancel, "e2")
