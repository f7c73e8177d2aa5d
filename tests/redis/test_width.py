"""A workspace that is spread over several partitions: its record lies in each, and what is asked of it is put together."""

from collections.abc import Iterator
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest
import redis

from config.settings import Settings
from dispatcher.errors import InvalidInput, NotFound, StillWaiting
from dispatcher.model import Status
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import Failed, Retry
from dispatcher.store.across.messages import MessagesAcross
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.arguments import ToAccept
from dispatcher.store.keys import endpoint_id
from dispatcher.store.replies import Stopped
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.recorder import Recorder
from tasks import incomplete, wiring
from tasks.actions import endpoints, event_pages, events, purge, replay, workspaces
from tasks.actions.events import Filter, of_message
from tasks.actions.replay import How
from tasks.actions.workspaces import Wanted
from tests.command import command
from tests.divided import Installed, installed, two_servers
from tests.messages import change
from tests.world import TOKEN, World, callback

P = 8
NAME, ENDPOINT = "acme", "acme https://a.example:443"
URL = "https://a.example/hooks"


@pytest.fixture
def many(redis_url: str) -> Iterator[Installed]:
    """Eight partitions, and a workspace that is spread over three of them."""
    with installed([redis_url], P) as found:
        found.do(workspaces.add, NAME, "zeckta", Wanted(URL, width=3), None)
        yield found


def places(many: Installed, width: int = 3) -> list[int]:
    """The partitions of the workspace, its home first."""
    return many.partitioning.all_of(NAME, width)


def places_of(many: Installed, width: int) -> list[World]:
    """The workspace's partitions."""
    return [many.worlds[n] for n in places(many, width)]


def records(many: Installed) -> dict[int, dict[bytes, bytes]]:
    """The workspace's record in each partition that has one."""
    found = {n: world.call("hgetall", world.keys.workspace(NAME)) for n, world in enumerate(many.worlds)}
    return {n: record for n, record in found.items() if record}


def accepted(many: Installed, *event_ids: str, state: str = "waiting", apart_ms: int = 10) -> None:
    """Accepts a callback in each of the workspace's partitions, in turn."""
    for number, event_id in enumerate(event_ids):
        many.now += apart_ms
        world = many.worlds[places(many)[number % 3]]
        world.now = many.now
        world.accept(callback(event_id, endpoint=ENDPOINT, message=f"of-{event_id}", timestamp_ms=world.now))
        (one,) = world.claim(ENDPOINT).callbacks
        outcome = Retry(3_600_000) if state == "waiting" else Failed()
        world.settle(event_id, one.claim, outcome, endpoint=ENDPOINT, error="http_500")


def test_records(many: Installed) -> None:
    """Every change is written to all of a workspace's partitions, with one revision; a larger width to further ones."""
    first = records(many)
    assert sorted(places(many)) == [*first]
    assert 1 == len({record[b"revision"] for record in first.values()})
    many.do(workspaces.update, NAME, Wanted(max_concurrency=7))
    assert {b"7"} == {record[b"max_concurrency"] for record in records(many).values()}
    many.do(workspaces.update, NAME, Wanted(width=5))
    second = records(many)
    assert sorted(places(many, 5)) == [*second]
    assert 1 == len({tuple(sorted(record.items())) for record in second.values()})
    many.do(lambda store: store.subscriptions.add(NAME, "crm", "https://crm.example/sms", now_ms=1))
    assert all(b"callback_url:crm" in record for record in records(many).values())
    assert [NAME] == many.do(lambda store: store.workspaces.names())
    assert [5] == [one.width for one in many.do(lambda store: store.workspaces.all())]


def test_width_only_grows(many: Installed) -> None:
    """A smaller width, none, and one of more than 64 are refused in one line, and nothing is changed."""
    before = records(many)
    for width, why in ((2, "cannot be spread over fewer"), (0, "1 to 64"), (65, "1 to 64"), (-1, "1 to 64")):
        with pytest.raises(InvalidInput, match=why):
            many.do(workspaces.update, NAME, Wanted(width=width))
    assert not many.do(workspaces.update, NAME, Wanted(width=3))
    assert before == records(many)
    many.do(workspaces.update, NAME, Wanted(width=64))  # more than there are partitions
    assert {n: str(P).encode() for n in range(P)} == {n: one[b"width"] for n, one in records(many).items()}
    assert not many.do(workspaces.update, NAME, Wanted(width=20))


def test_each_partition_has_its_share_of_the_limits(redis_url: str) -> None:
    """Of a workspace in four partitions each takes a quarter of what may be under way, of the rate, and of what may wait."""
    with installed([redis_url], P) as many:
        limits = Wanted(URL, width=4, max_concurrency=10, rate_per_second=100)
        many.do(workspaces.add, NAME, "zeckta", limits, None)
        for n, world in enumerate(places_of(many, 4)):
            world.lead()
            world.call("hset", world.keys.endpoint(endpoint_id(ENDPOINT)), "window", 99)
            world.accept(*(callback(f"e{n}-{i}", endpoint=ENDPOINT, message=f"{i}") for i in range(40)))
            claim = world.claim(ENDPOINT, 50)
            assert (2, 40) == (len(claim.callbacks), claim.wait_ms), "25 a second"
        many.do(workspaces.update, NAME, Wanted(rate_per_second=0))
        assert {1} == {len(world.claim(ENDPOINT, 50).callbacks) for world in places_of(many, 4)}, (
            "three in all"
        )


def test_each_partition_has_its_share_of_what_may_wait(redis_url: str) -> None:
    """Of MAX_WAITING_PER_ENDPOINT 10 each of four partitions takes three."""
    with installed([redis_url], P) as many:
        many.do(workspaces.add, NAME, "zeckta", Wanted(URL, width=4), None)
        for n, world in enumerate(places_of(many, 4)):
            world.lead()
            world.ledger.options = changed(world.ledger.options, max_waiting=10)
            made = [callback(f"e{n}-{i}", endpoint=ENDPOINT, message=f"{i}") for i in range(12)]
            _, words = world.accept(*made)
            assert ["accepted"] * 3 + ["full"] * 9 == words


def test_one_partition_has_no_width(redis_url: str) -> None:
    """In an installation with one partition any width but 1 is refused, and 1 is not stored."""
    with installed([redis_url], 1) as one:
        with pytest.raises(InvalidInput, match="has one partition"):
            one.do(workspaces.add, NAME, "zeckta", Wanted(URL, width=2), None)
        one.do(workspaces.add, NAME, "zeckta", Wanted(URL, width=1), None)
        [record] = records(one).values()
        assert b"width" not in record


def test_reads(many: Installed) -> None:
    """Callbacks are found and listed in all partitions of the workspace; its endpoint is one, with what waits added."""

    async def read(store: wiring.Store) -> tuple[Any, ...]:
        endpoint = await endpoints.one(store, NAME, "https://a.example:443")
        failed = [one.event_id async for one in events.chosen(store, Filter("failed", NAME))]
        waiting = [one.event_id async for one in events.chosen(store, Filter("waiting", NAME))]
        found = await store.callbacks.get(NAME, "w2")
        message = [one.event_id for one in await of_message(store, "of-f1", NAME, store.history)]
        every = [(one.url, one.waiting) for one in await store.endpoints.all()]
        counted = (await store.stats.workspaces(many.now, 1))[NAME].counts["failed"]
        return endpoint.waiting, failed, waiting, found.event_id if found else None, message, every, counted

    accepted(many, "w0", "w1", "w2", "w3")
    accepted(many, "f0", "f1", "f2", state="failed")
    waits, failed, waiting, found, message, every, counted = many.do(read)
    assert (4, ["f2", "f1", "f0"], ["w0", "w1", "w2", "w3"]) == (waits, failed, waiting)
    assert ("w2", ["f1"], [("https://a.example:443", 4)], 3) == (found, message, every, counted)


def test_pages(many: Installed) -> None:
    """Of what has the same time in several partitions, each is on one page, once."""

    async def every(store: wiring.Store, state: str) -> list[str]:
        found, after = list[str](), None
        while len(found) < 20:
            page = await event_pages.page(store, Filter(state, NAME), after, 0, 1, [].append)
            found += [one.event_id for one in page.events]
            after = page.cursor
            if after is None:
                break
        return found

    accepted(many, "f4", "f3", "f2", "f1", "f0", state="failed", apart_ms=0)
    accepted(many, "w4", "w3", "w2", "w1", "w0", apart_ms=0)
    assert ["f4", "f3", "f2", "f1", "f0"] == many.do(every, "failed")
    assert ["w0", "w1", "w2", "w3", "w4"] == many.do(every, "waiting")


def test_changes(many: Installed) -> None:
    """An endpoint is stopped, resumed and retried in all partitions; callbacks are replayed, cancelled, moved and forgotten in theirs."""

    async def change(store: wiring.Store) -> list[Any]:
        endpoint = await endpoints.one(store, NAME, "https://a.example:443")
        stopped = await endpoints.stop(store, endpoint, resume=False)
        state = (await endpoints.again(store, endpoint)).state
        resumed = await endpoints.stop(store, endpoint, resume=True)
        retried = await endpoints.retry_one(store, endpoint)
        word, _ = await replay.replay_one(store, NAME, "f1", How(expiry_seconds=3600))
        await workspaces.update(store, NAME, Wanted("https://other.example/hooks"))
        waiting = await workspaces.waiting_in_order(store, NAME)
        moved = await workspaces.move(store, NAME, URL, waiting, list)
        pending = [one async for one in store.callbacks.pending(NAME)]
        cancelled = await purge.cancel(store, NAME, None, pending, list)
        ended = [one async for one in events.chosen(store, Filter("failed", NAME))]
        forgotten, _ = await purge.forget(store, NAME, ended)
        left = await store.endpoints.get(EndpointName(NAME, "https://other.example:443"))
        return [
            stopped, state, resumed, retried.made_due, word, moved.moved, cancelled, forgotten, left and left.waiting,
        ]  # fmt: skip

    accepted(many, "w0", "w1", "w2", "w3")
    accepted(many, "f0", "f1", "f2", state="failed")
    assert [Stopped.CHANGED, "stopped", Stopped.CHANGED, 4, "replayed", 5, 5, 7, 0] == many.do(change)


def test_messages(many: Installed) -> None:
    """The message store finds a workspace's messages in all of its partitions, page by page; of two records the newer counts."""

    def tell(place: int, status: str, uuid: str, at_ms: int) -> None:
        world, batch, recorder = (
            many.worlds[places(many)[place]],
            ToAccept(),
            Recorder(604_800_000, Metrics()),
        )
        about = {"campaign_id": "spring", "customer_message_id": f"c-{uuid}", "reference": {"key": "r"}}
        dialect = {"z": "zeckta", "n": "namirial", "q": "qlara"}[uuid[0]]  # each has look-ups of its own
        recorder.add(batch, change(status, uuid, at_ms=at_ms, workspace=NAME, **about), dialect, 0)
        world.run(world.ledger.accept(TOKEN, {}, [], batch))

    async def read() -> list[Any]:
        servers = wiring.servers(many.settings)
        messages, after = MessagesAcross(Partitions(servers, needs_all=True)), many.now + 1000
        phone = "+233200000001"
        search = {"from_ms": many.now - 100_000, "to_ms": after, "now_ms": after}
        found = [
            await messages.get_many(NAME, ["z4", "z0", "z9", "z2"]),
            await messages.to_phone(NAME, phone, after, 3, lambda _: True),
            await messages.with_reference(NAME, "r", after, 2, lambda _: True),
            [one for skip in (0, 2, 4) for one in await messages.recipients(NAME, "spring", skip, 2)],
            [
                one
                for skip in (0, 4)
                for one in await messages.sent_between(NAME, "SMS", skip=skip, count=4, **search)
            ],
            [*(await messages.of_customer(NAME, "SMS", ["c-q1", "c-q3", "c-q9"])).values()],
        ]
        campaign = await messages.campaign(NAME, "spring")
        newest = await messages.get(NAME, "z0")
        await servers.aclose()
        assert campaign
        assert newest
        return [[one.uuid for one in some] for some in found] + [campaign.recipients, newest.status]

    for number in range(5):
        for one in "znq":
            tell(number % 3, "SENT", f"{one}{number}", many.now - 50_000 + number * 1000)
    tell(2, "DELIVERED", "z0", many.now)  # as after the width was changed: its first record is in partition 0
    by_id, to_phone, referred, recipients, sent, of_customer, count, status = many.worlds[0].run(read())
    assert ["z4", "z0", "z2"] == by_id
    assert (["n4", "n3", "n2"], ["n4", "n3"]) == (to_phone, referred)
    assert [f"z{number}" for number in range(5)] == sorted(set(recipients))
    assert [f"q{number}" for number in range(5)] == sorted(sent)
    assert (["q1", "q3"], Status.DELIVERED) == (of_customer, status)
    assert 6 == count  # one that is in two partitions counts in both


def test_removal(many: Installed) -> None:
    """What waits in any partition, listed or not, keeps a workspace; by force it is removed from all."""
    accepted(many, "w0", "w1", "w2")
    lost = many.worlds[places(many)[1]]
    lost.call("delete", lost.keys.endpoints)
    with pytest.raises(StillWaiting, match="3 callbacks of 'acme' wait"):
        many.do(lambda store: store.workspaces.remove(NAME, store.ledger))
    assert 3 == many.do(lambda store: store.workspaces.remove(NAME, store.ledger, force=True))
    assert {} == records(many)
    assert [] == many.do(lambda store: store.workspaces.names())
    assert (
        "w1" == many.do(lambda store: store.callbacks.get(NAME, "w1")).event_id
    )  # until it ends, and is forgotten
    with pytest.raises(NotFound):
        many.do(lambda store: store.workspaces.remove(NAME, store.ledger, force=True))


def test_a_subscription_that_waits_elsewhere(many: Installed) -> None:
    """A subscription is not removed while its callbacks wait in another partition than the home."""
    many.do(lambda store: store.subscriptions.add(NAME, "crm", "https://crm.example/sms", now_ms=1))
    world = many.worlds[places(many)[2]]
    of = "acme.crm https://crm.example:443"
    world.accept(callback("e1.crm", endpoint=of, message="m1", timestamp_ms=many.now))
    with pytest.raises(StillWaiting, match="1 callback waits"):
        many.do(lambda store: store.subscriptions.remove(NAME, "crm", store.ledger))
    assert 1 == many.do(lambda store: store.subscriptions.remove(NAME, "crm", store.ledger, force=True))
    assert not any(b"callback_url:crm" in record for record in records(many).values())


def test_a_copy_that_fails(server_program: str, tmp_path: Path) -> None:
    """A change that could not be written everywhere says so; the same command, repeated, writes the rest."""
    with two_servers(server_program, tmp_path) as servers:
        urls = [one.url for one in servers]
        with installed(urls, P) as many:
            many.do(workspaces.add, NAME, "zeckta", Wanted(URL, width=2), None)
            home, other = places(many, 2)
            servers[other % 2].kill()
            assert many.do(workspaces.update, NAME, Wanted(max_concurrency=7))
            assert f"stored, and not yet in partition {other}: " in incomplete.not_copied.pop(NAME)
            servers[other % 2].start()
            assert not many.do(workspaces.update, NAME, Wanted(max_concurrency=7))
            with redis.Redis.from_url(urls[other % 2]) as client:
                found = client.hget(many.worlds[other].keys.workspace(NAME), "max_concurrency")
            assert b"7" == found
            assert home != other


def test_commands(redis_url: str) -> None:
    """`workspace add|update --width` take it, `workspace show` shows it, and an update says what becomes of what waits."""

    def run(*args: str) -> tuple[int, str]:
        found = command(redis_url, "workspace", *args, PARTITIONS=str(P))
        return found.returncode, found.stdout + found.stderr

    made = run("add", NAME, "--dialect", "zeckta", "--callback-url", URL, "--width", "2", "--no-check")
    assert 0 == made[0], made
    code, said = run("update", NAME, "--width", "4")
    assert 0 == code
    assert "new messages are spread over 4 partitions" in said
    assert '"width": 4' in run("show", NAME, "--json")[1]
    code, said = run("update", NAME, "--width", "64")
    assert (0, True) == (code, f"spread over {P} partitions;" in said), said  # there are no more
    code, said = run("update", NAME, "--width", "3")
    assert (2, 1) == (code, len(said.splitlines()))


def test_settings_take_a_count(redis_url: str) -> None:
    """DISPATCHER_PARTITIONS is 1 to 1,024."""
    assert 1 == Settings(_env_file=None, redis_url=redis_url).partitions
    for wrong in (0, 1025, "many"):
        with pytest.raises(ValueError, match="partitions"):
            Settings(_env_file=None, redis_url=redis_url, partitions=wrong)
