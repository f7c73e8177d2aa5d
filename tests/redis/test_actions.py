"""What operators do to many things at once, without a command line."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pytest

from config.settings import Settings
from dispatcher.errors import InvalidInput, NotFound
from dispatcher.rules.outcomes import EndpointHealth, Failed, Retry, State
from dispatcher.store.archive import ends
from dispatcher.store.audit import AuditEntry
from dispatcher.store.format import FORMAT
from tasks import wiring
from tasks.actions import endpoints, event_pages, events, purge, rejected, replay, workspaces
from tasks.actions.events import Filter
from tasks.actions.rejected import Choice
from tasks.actions.replay import How
from tasks.actions.workspaces import Moved, Wanted
from tests.world import World, callback

T = TypeVar("T")

A, B = "acme https://a.example:443", "acme https://b.example:443"
HOW = How(expiry_seconds=3600)


def at_once(steps: Sequence[T]) -> Sequence[T]:
    """No progress is shown."""
    return steps


@pytest.fixture
def do(world: World, redis_url: str) -> Callable[..., Any]:
    """Runs an action on the store, by the real clock, which the world's ledger has too."""
    world.now = round(time.time() * 1000) - 1000
    world.call("set", world.keys.format, FORMAT)

    def run(action: Callable[..., Awaitable[Any]], *args: Any, limit: int = 0, **kwargs: Any) -> Any:
        settings = Settings(_env_file=None, redis_url=redis_url, max_waiting_per_endpoint=limit)

        async def act() -> Any:
            async with wiring.store(settings) as store:
                return await action(store, *args, **kwargs)

        return world.run(act())

    return run


def failed(world: World, *event_ids: str, endpoint: str = A) -> None:
    """Accepts callbacks that end as failed, each of a message of its own."""
    for event_id in event_ids:
        world.accept(callback(event_id, endpoint=endpoint, message=f"of-{event_id}", timestamp_ms=world.now))
        (one,) = world.claim(endpoint).callbacks
        world.settle(event_id, one.claim, Failed(), endpoint=endpoint, error="http_500")


def waiting(world: World, *event_ids: str, endpoint: str = A) -> None:
    """Accepts callbacks whose next attempt is in an hour."""
    for event_id in event_ids:
        world.accept(callback(event_id, endpoint=endpoint, message=f"of-{event_id}", timestamp_ms=world.now))
        (one,) = world.claim(endpoint).callbacks
        world.settle(event_id, one.claim, Retry(3_600_000), endpoint=endpoint, error="http_500")


async def chosen(store: wiring.Store, asked: Filter) -> list[str]:
    """The eventIds of a filter."""
    return [event.event_id async for event in events.chosen(store, asked)]


async def audited(store: wiring.Store) -> list[AuditEntry]:
    """What the audit says, the newest first."""
    return await store.audit.latest(10)


async def add_acme(store: wiring.Store, url: str = "https://a.example/hooks") -> None:
    """A workspace."""
    await workspaces.add(store, "acme", "zeckta", Wanted(url), None)


def test_chosen(world: World, do: Callable[..., Any]) -> None:
    """A filter leaves those of a state, of a workspace, to an endpoint, with an error, that ended within a time."""
    do(add_acme)
    failed(world, "old")
    world.now += 500
    failed(world, "new")
    failed(world, "b", endpoint=B)
    waiting(world, "waits")
    assert {"old", "new", "b"} == set(do(chosen, Filter("failed")))
    assert ["new", "old"] == do(chosen, Filter("failed", "acme", "https://a.example/anything"))
    assert [] == do(chosen, Filter("failed", error="timeout"))
    assert [] == do(chosen, Filter("failed", until="1h"))
    assert ["waits"] == do(chosen, Filter("waiting", "acme", "https://a.example"))
    with pytest.raises(NotFound):
        do(chosen, Filter("failed", "nobody"))
    with pytest.raises(InvalidInput, match="is no time"):
        do(chosen, Filter("failed", since="yesterday"))


@pytest.mark.parametrize(
    ("state", "found"),
    [("waiting", ["due", "waits"]), ("pending", ["due"]), ("retrying", ["waits"]), ("sending", [])],
)
def test_chosen_by_a_state_that_is_shown(
    world: World, do: Callable[..., Any], state: str, found: list[str]
) -> None:
    """What has not ended can be asked for by each state that it is shown with."""
    do(add_acme)
    waiting(world, "waits")
    world.accept(callback("due", endpoint=B, message="of-due", timestamp_ms=world.now))
    assert found == sorted(do(chosen, Filter(state)))


def test_replay_stops_where_an_endpoint_is_full(world: World, do: Callable[..., Any]) -> None:
    """What was replayed until then is counted, and audited with the filter; the rest is not tried."""
    do(add_acme)
    failed(world, *"abcdef")
    found = [replay.ToReplay.of(world.event(event_id)) for event_id in "abcdef"]
    done = do(replay.replay_all, Filter("failed", error="http_500"), found, HOW, at_once, limit=4)
    assert ({A: 6}, {"replayed": 2, "full": 1}) == (done.by_endpoint, done.words)
    entry, _ = do(audited)
    assert ("event.replay", "failed", "http_500", 2) == (
        entry.what,
        *(entry.after[name] for name in ("state", "error", "replayed")),
    )


def test_replay_one_as_new(world: World, do: Callable[..., Any]) -> None:
    """The copy's eventId comes back, and is audited; what has not ended is not replayed."""
    do(add_acme)
    failed(world, "a")
    word, id_ = do(replay.replay_one, "acme", "a", How(3600, as_new=True))
    assert ("replayed", State.PENDING) == (word, world.event(id_).state)
    assert [{"eventId": "a", "as": id_}] == [dict(entry.after) for entry in do(audited)[:1]]
    assert ("not_ended", id_) == do(replay.replay_one, "acme", id_, HOW)


def test_nothing_of_a_removed_workspace_is_replayed(world: World, do: Callable[..., Any]) -> None:
    """It would end at once; it is counted as left out, one by one and of many."""
    do(add_acme)
    failed(world, "e1", "e2")
    asked = Filter("failed")
    found = do(replay.replayable, asked)
    assert 2 == len(found)

    async def remove(store: wiring.Store) -> None:
        await store.workspaces.remove("acme", store.ledger, force=True)

    do(remove)
    assert {replay.WORKSPACE_REMOVED: 2} == do(replay.replay_all, asked, found, HOW, at_once).words
    assert (replay.WORKSPACE_REMOVED, "e1") == do(replay.replay_one, "acme", "e1", HOW)
    assert not do(replay.counted, found).count


def test_requeue(world: World, do: Callable[..., Any]) -> None:
    """Without a reason, what is of no use on the queue is left out; by its reason it is put back."""
    for number, reason in enumerate(("invalid", "poisoned"), 1):
        world.call("xadd", world.keys.events, {"event": b"{}"}, id=f"5-{number}")
        world.run(world.ledger.reject("leader", [(f"5-{number}", reason, "why", "", "")]))
    everything, poisoned = Choice(), Choice(reason="poisoned")
    ids = do(rejected.to_requeue, everything)
    assert rejected.Requeued(1, 1, 0) == do(rejected.requeue, everything, ids)
    assert rejected.Requeued(1, 0, 1) == do(rejected.requeue, everything, ids)
    ids = do(rejected.to_requeue, poisoned)
    assert rejected.Requeued(1, 1, 0) == do(rejected.requeue, poisoned, ids)
    assert 2 == world.call("xlen", world.keys.events)
    assert 0 == do(rejected.remove, poisoned, ids)  # they are on the queue again
    assert ["rejected.purge", *["rejected.requeue"] * 3] == [entry.what for entry in do(audited)]


def test_purge(world: World, do: Callable[..., Any]) -> None:
    """What waits ends as cancelled, by endpoint; what has ended is forgotten. Each counts what it found."""
    do(add_acme)
    waiting(world, "a")
    waiting(world, "b", endpoint=B)

    async def cancel(store: wiring.Store) -> int:
        found = [one async for one in store.callbacks.pending("acme")]
        return await purge.cancel(store, "acme", None, found, at_once)

    assert 2 == do(cancel)
    assert 0 == do(cancel)
    ended = do(purge.ended, "acme", State.FAILED, None)
    assert {"a", "b"} == {one.event_id for one in ended}
    assert ["a"] == [one.event_id for one in do(purge.ended, "acme", None, "of-a")]
    assert (2, 0) == do(purge.forget, "acme", ended, state="failed", message=None)
    assert [] == do(purge.ended, "acme", State.FAILED, None)
    after = {entry.what: dict(entry.after) for entry in do(audited)}
    assert {"cancelled": 2} == after["callbacks.cancel"]
    assert {"state": "failed", "forgotten": 2} == after["callbacks.forget"]


def test_retry_all(world: World, do: Callable[..., Any]) -> None:
    """What waits is made due; an endpoint that an operator stopped, or for which nothing waits, is left alone."""
    waiting(world, "a1", "a2")
    waiting(world, "b", endpoint=B)
    failed(world, "c", endpoint="acme https://c.example:443")
    at_b = do(endpoints.one, "acme", "https://b.example:443")
    do(endpoints.stop, at_b, resume=False)
    found = do(endpoints.to_retry, None, None)
    assert ["https://a.example:443"] == [one.url for one in found.chosen]
    assert ["https://b.example:443"] == [one.url for one in found.stopped]
    assert (0, 2) == do(endpoints.retry_all, None, None, found.chosen, at_once)
    assert do(endpoints.retry_one, at_b).stopped
    assert ["endpoint.retry", "endpoint.stop"] == [entry.what for entry in do(audited)]
    do(endpoints.stop, at_b, resume=True)
    assert 1 == do(endpoints.retry_one, do(endpoints.again, at_b)).made_due
    world.now += 5000
    assert {"a1", "a2"} == set(world.deliver_all())


def test_an_endpoint_that_is_not_known(world: World, do: Callable[..., Any]) -> None:
    """The error names the nearest one that there is, or says that there is none."""
    do(add_acme)
    with pytest.raises(NotFound, match="has no endpoint yet"):
        do(endpoints.one, "acme", "https://a.example:444")
    world.accept(callback("e"))
    with pytest.raises(NotFound, match=r"it has https://a\.example:443 \("):
        do(endpoints.one, "acme", "https://a.example:444")
    with pytest.raises(NotFound, match="nobody"):
        do(endpoints.one, "nobody", "https://a.example:443")
    world.accept(callback("s", endpoint="acme.crm https://c.example:443", message="m9"))
    with pytest.raises(NotFound, match=r"is no endpoint of acme itself, but of acme\.crm: name that one"):
        do(endpoints.one, "acme", "https://c.example:443")


def test_of_many_endpoints_none_is_suggested(world: World, do: Callable[..., Any]) -> None:
    """All would be read for one wrong URL."""
    do(add_acme)
    world.accept(callback("e"))

    async def one(store: wiring.Store) -> object:
        places = await store.callbacks.places(None)
        others = {f"of-{n}": world.now for n in range(endpoints.MOST_READ)}
        await places[0].client.zadd(places[0].keys.endpoints, others)
        try:
            return await endpoints.one(store, "acme", "https://c.example:443")
        finally:
            await places[0].client.zrem(places[0].keys.endpoints, *others)

    with pytest.raises(
        NotFound, match=r"^workspace acme has no endpoint https://c.example:443 \(`dispatcher"
    ):
        do(one)


def test_move(world: World, do: Callable[..., Any]) -> None:
    """A message's callbacks are moved in the order in which they were accepted, and keep it; others stay."""
    do(add_acme)
    names = [f"e{number}" for number in (3, 1, 2, 0)]
    world.accept(*[callback(name, timestamp_ms=world.now) for name in names])
    world.accept(callback("other", endpoint=B, message="m2", timestamp_ms=world.now))
    before = do(workspaces.url_before, "acme", needed=True)
    assert do(workspaces.update, "acme", Wanted("https://new.example/hooks"))
    assert not do(workspaces.update, "acme", Wanted("https://new.example/hooks"))
    found = do(workspaces.waiting_in_order, "acme")
    assert names == [one.event_id for one in found if one.event_id != "other"]
    assert 4 == do(workspaces.left_behind, "acme", before)
    assert [0, 0] == [do(workspaces.left_behind, "acme", url) for url in ("", "https://none.example/hooks")]
    assert Moved(5, 0) == do(workspaces.move, "acme", before, found, at_once)
    assert Moved(0, 5) == do(workspaces.move, "acme", before, found, at_once)
    world.now += 5000
    assert names == [one for one in world.deliver_all("acme https://new.example:443") if one != "other"]


def test_a_workspace_without_a_url_has_nothing_to_move(do: Callable[..., Any]) -> None:
    """What waits has no URL to be moved from: it must be said."""
    do(add_acme, "")
    assert "" == do(workspaces.url_before, "acme", needed=False)
    with pytest.raises(InvalidInput, match="--move-from"):
        do(workspaces.url_before, "acme", needed=True)


def test_retry_probes_what_is_paused(world: World, do: Callable[..., Any]) -> None:
    """An endpoint that the breaker paused is probed at once."""
    do(add_acme)
    world.accept(callback("e", timestamp_ms=world.now))
    (one,) = world.claim().callbacks
    world.settle(
        "e", one.claim, Retry(3_600_000), error="timeout", health=EndpointHealth.DOWN, retry_after_ms=600_000
    )
    found = do(endpoints.to_retry, "acme", "paused")
    assert (1, 1) == do(endpoints.retry_all, "acme", "paused", found.chosen, at_once)


def all_pages(do: Callable[..., Any], asked: Filter, limit: int) -> tuple[list[str], list[bool]]:
    """The eventIds of a list that is read by pages, and whether each page but the last was full."""
    found: list[str] = []
    whole: list[bool] = []
    after = None
    while True:
        page = do(event_pages.page, asked, after, 0, limit, [].append)
        found += [one.event_id for one in page.events]
        after = page.cursor
        if after is None:
            return found, whole
        whole.append(page.whole)


def paged(do: Callable[..., Any], asked: Filter, limit: int) -> list[str]:
    """The same, of a list whose pages are full."""
    found, whole = all_pages(do, asked, limit)
    assert all(whole)
    return found


def test_pages(world: World, do: Callable[..., Any]) -> None:
    """Pages follow each other without a gap or a repetition, also among events of the same time, and if one ends meanwhile."""
    do(add_acme)
    failed(world, *(f"f{number}" for number in range(7)))
    waiting(world, *(f"w{number}" for number in range(7)))
    assert [f"f{number}" for number in (6, 5, 4, 3, 2, 1, 0)] == paged(do, Filter("failed"), 2)
    assert [f"w{number}" for number in range(7)] == paged(do, Filter("waiting", "acme"), 3)
    first = do(event_pages.page, Filter("failed"), None, 1, 2, [].append)
    world.now += 1
    failed(world, "later")
    second = do(event_pages.page, Filter("failed"), first.cursor, 0, 9, [].append)
    assert ["f5", "f4", "f3", "f2", "f1", "f0"] == [
        one.event_id for page in (first, second) for one in page.events
    ]


def test_a_page_passes_over_so_many(
    world: World, do: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that finds nothing ends after so many that do not match; its cursor goes on, to the one that does."""
    monkeypatch.setattr(ends, "LOOK", 2)
    monkeypatch.setattr(events, "LOOK", 2)
    monkeypatch.setattr(event_pages, "MOST_LOOKS", 3)
    do(add_acme)
    failed(world, "match", endpoint=B)
    world.now += 1
    failed(world, *(f"f{number}" for number in range(20)))
    waiting(world, *(f"w{number}" for number in range(20)))
    world.now += 1
    waiting(world, "last", endpoint=B)
    do(workspaces.update, "acme", Wanted("https://b.example/hooks"))
    assert (["match"], [False] * 3) == all_pages(do, Filter("failed", "acme", "https://b.example"), 5)
    assert ([], [False] * 3) == all_pages(do, Filter("waiting", error="timeout"), 5)


def test_pages_of_several_workspaces(world: World, do: Callable[..., Any]) -> None:
    """What ended in the same ms in several workspaces is on one page or the next, once."""
    do(add_acme)
    do(workspaces.add, "zulu", "zeckta", Wanted("https://a.example/hooks"), None)
    for number in range(6):
        failed(world, f"f{number}", endpoint=f"{('acme', 'zulu')[number % 2]} https://a.example:443")
    assert ["f5", "f3", "f1", "f4", "f2", "f0"] == paged(do, Filter("failed"), 1)
