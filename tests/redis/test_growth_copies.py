"""What `grow` copies from the previous Redis: all of it, in commands of bounded size, and nothing that is only half there."""

import asyncio
import socketserver
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import hiredis
import pytest
import redis

from dispatcher.errors import (
    EnqueueInterrupted,
    InvalidInput,
    OtherSettings,
    PreviousUnavailable,
    StillWaiting,
)
from dispatcher.model import StatusChange
from dispatcher.producer import Dispatcher
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store import growth_lock
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.command_parts import MOST_ARGUMENTS
from dispatcher.store.format import FORMAT
from dispatcher.store.grown import require_grown
from dispatcher.store.grown_servers import GrownServers
from dispatcher.store.growth import WHAT_IS_LOST, Growth
from dispatcher.store.growth_copies import Copies
from dispatcher.store.keys import Keys, endpoint_id, keys_of
from dispatcher.store.previous import Previous
from dispatcher.store.servers import PlainServers
from tests.command import command
from tests.redis.test_producer import change
from tests.sentinels import wait_until

MANY = 9000
COUNT = 2
OLD, NEW = b"https://old.example", b"https://new.example"

T = TypeVar("T")


def fill(url: str) -> None:
    """One customer with very many stopped endpoints and client certificates; and the name of one that was removed half-way."""
    keys = Keys("dispatcher")
    with redis.Redis.from_url(url) as client:
        client.set(keys.format, FORMAT)
        client.sadd(keys.workspaces, "acme", "gone", b"\xff")  # the last one by hand
        client.hset(keys.workspace("acme"), "dialect", "zeckta")
        pipe = client.pipeline(transaction=False)
        for number in range(MANY):
            name = EndpointName("acme", f"https://a{number}.example:443")
            pipe.hset(keys.endpoint(endpoint_id(name)), mapping={"name": str(name), "stopped": 1})
            pipe.zadd(keys.endpoints, {endpoint_id(name): "inf"})
            pipe.zadd(keys.client_certificates, {f"acme s{number}": number})
        pipe.execute()


def growing(here: str, previous: str, act: Callable[[Growth], Awaitable[T]]) -> T:
    """What is done with the growth of a previous Redis into two partitions on one server."""

    async def work() -> T:
        servers = GrownServers(PlainServers([here], keys_of("dispatcher", COUNT)), previous, "dispatcher")
        try:
            return await act(Growth(Partitions(servers, needs_all=True), "dispatcher"))
        finally:
            await servers.aclose()

    return asyncio.run(work())


def grow(here: str, previous: str, **how: bool) -> Counter[str]:
    """What `dispatcher grow` copies."""
    return growing(here, previous, lambda growth: growth.copy(**how))


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

    copied = grow(here, previous)
    assert (1, MANY) == (copied["workspaces"], copied["stoppedEndpoints"])
    assert max(sizes) <= MOST_ARGUMENTS
    with redis.Redis.from_url(here) as client:
        all_keys = keys_of("dispatcher", COUNT)
        names = [name for keys in all_keys for name in client.smembers(keys.workspaces)]
        listed = [client.zcard(keys.endpoints) for keys in all_keys]
        certificates = [client.zcard(keys.client_certificates) for keys in all_keys]
    assert [b"acme"] == names
    assert (MANY, MANY) == (sum(listed), sum(certificates))


class Broken(Exception):
    """The run breaks off."""


def broken_off(monkeypatch: pytest.MonkeyPatch, here: str, previous: str) -> None:
    """A run of `grow` that has copied all, and noted nothing yet."""
    whole = Copies.make

    async def make(copies: Copies, tell: Callable[[int, int], None]) -> Counter[str]:
        await whole(copies, tell)
        raise Broken

    with monkeypatch.context() as patch:
        patch.setattr(Copies, "make", make)
        with pytest.raises(Broken):
            grow(here, previous)


def before_growth(client: Any, keys: Keys) -> None:
    """An installation with two customers, API keys of one and of producers, and a stopped endpoint of each."""
    client.set(keys.format, FORMAT)
    for name in ("acme", "gone"):
        client.sadd(keys.workspaces, name)
        client.hset(keys.workspace(name), mapping={"dialect": "zeckta", "callback_url": OLD, "secrets": "s1"})
        client.zadd(keys.client_certificates, {f"{name} crm": 5})
        endpoint = f"{name} https://a.example:443"
        client.hset(keys.endpoint(endpoint_id(endpoint)), mapping={"name": endpoint, "stopped": 1})
        client.zadd(keys.endpoints, {endpoint_id(endpoint): "inf"})
        client.sadd(keys.api_keys(name), f"k-{name}")
        client.hset(keys.api_key(f"k-{name}"), "workspace", name)
    client.sadd(keys.api_keys("acme"), "kept")
    client.hset(keys.api_key("kept"), "workspace", "acme")
    client.sadd(keys.api_keys("*"), "producer")
    client.hset(keys.api_key("producer"), "workspace", "*")


def changed_meanwhile(client: Any, keys: Keys) -> None:
    """It goes on, and one customer leaves; the other has another URL and secret, and an API key less."""
    client.hset(keys.workspace("acme"), mapping={"callback_url": NEW, "secrets": "s2", "width": 1})
    client.hdel(keys.workspace("acme"), "dialect")
    client.delete(keys.workspace("gone"), keys.api_keys("gone"), keys.api_key("k-gone"))
    client.srem(keys.workspaces, "gone")
    client.srem(keys.api_keys("acme"), "k-acme")
    client.delete(keys.api_key("k-acme"), keys.api_key("producer"), keys.api_keys("*"))
    client.zrem(keys.client_certificates, "gone crm")
    for name in ("acme", "gone"):
        client.hdel(keys.endpoint(endpoint_id(f"{name} https://a.example:443")), "stopped")
        client.zadd(keys.endpoints, {endpoint_id(f"{name} https://a.example:443"): 7})


def everything(client: Any) -> dict[str, Any]:
    """What the partitions have of workspaces, API keys, certificates and endpoints."""
    found: dict[str, Any] = {}
    for keys in keys_of("dispatcher", COUNT):
        for key in map(bytes.decode, client.scan_iter(f"{keys.prefix}:*")):
            what = key.removeprefix(f"{keys.prefix}:")
            if what in ("workspaces", "endpoints", "expiries-of-certificates") or "api-keys" in what:
                members = client.smembers(key) if client.type(key) == b"set" else client.zrange(key, 0, -1)
                found[what] = found.get(what, set()) | {*members}
            elif client.type(key) == b"hash":
                found[what] = client.hgetall(key)
    return found


def test_a_run_that_broke_off_is_replaced(two_urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was changed, revoked or removed after a run that broke off is so in what the next one copies."""
    here, previous = two_urls
    with redis.Redis.from_url(previous) as old, redis.Redis.from_url(here) as new:
        before_growth(old, Keys("dispatcher"))
        broken_off(monkeypatch, here, previous)
        assert {b"acme", b"gone"} == everything(new)["workspaces"]
        changed_meanwhile(old, Keys("dispatcher"))
        assert Counter(workspaces=1, apiKeys=1, stoppedEndpoints=0) == grow(here, previous)
        assert everything(new) == {
            "workspaces": {b"acme"},
            "workspace:acme": {b"callback_url": NEW, b"secrets": b"s2", b"width": b"1"},
            "api-keys:acme": {b"kept"},
            "api-key:kept": {b"workspace": b"acme"},
            "expiries-of-certificates": {b"acme crm"},
        }


def test_nothing_is_copied_twice(two_urls: list[str]) -> None:
    """Once it has grown, what is removed stays so: a repeated run copies nothing, nor does one that takes an end back."""
    here, previous = two_urls
    with redis.Redis.from_url(previous) as old, redis.Redis.from_url(here) as new:
        before_growth(old, Keys("dispatcher"))
        assert 2 == grow(here, previous)["workspaces"]
        for keys in keys_of("dispatcher", COUNT):
            new.delete(keys.workspaces, keys.workspace("gone"), keys.api_key("k-acme"))
        expected = everything(new)
        assert Counter() == grow(here, previous)
        growing(here, previous, lambda growth: growth.end(1, force=True))
        assert new.get("dispatcher:grown").endswith(b" ended")
        assert Counter() == grow(here, previous)
        assert not new.get("dispatcher:grown").endswith(b" ended")
        assert expected == everything(new)


def test_two_runs_at_once(two_urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is refused while the first copies; a first one whose lock another one has since changes nothing any more."""
    here, previous = two_urls
    monkeypatch.setattr(growth_lock, "WAIT_SECONDS", 0)
    whole = Copies.make
    loses_lock = False

    with redis.Redis.from_url(previous) as old, redis.Redis.from_url(here) as new:

        async def make(copies: Copies, tell: Callable[[int, int], None]) -> Counter[str]:
            with pytest.raises(InvalidInput, match="another `dispatcher grow` is under way"):
                await asyncio.to_thread(grow, here, previous)
            if loses_lock:
                new.set("dispatcher:growing", "another's", px=500)
            return await whole(copies, tell)

        monkeypatch.setattr(Copies, "make", make)
        before_growth(old, Keys("dispatcher"))
        loses_lock = True
        with pytest.raises(InvalidInput, match="began while this one stood still"):
            grow(here, previous)
        assert ({}, b"0") == (everything(new), new.get("dispatcher:grown"))
        loses_lock = False
        wait_until(lambda: not new.exists("dispatcher:growing"))
        assert 2 == grow(here, previous)["workspaces"]
        assert not new.exists("dispatcher:growing")


def test_a_lock_that_ran_out(two_urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where reading took longer than the lock lives, and no other run has it, the copies are made."""
    here, previous = two_urls
    whole = Copies.make

    async def make(copies: Copies, tell: Callable[[int, int], None]) -> Counter[str]:
        new.delete("dispatcher:growing")
        return await whole(copies, tell)

    monkeypatch.setattr(Copies, "make", make)
    with redis.Redis.from_url(previous) as old, redis.Redis.from_url(here) as new:
        before_growth(old, Keys("dispatcher"))
        assert 2 == grow(here, previous)["workspaces"]


def test_a_note_that_was_taken_back_by_another_run(two_urls: list[str]) -> None:
    """Where the previous Redis says that it has grown, a run only notes that here too, whatever waits in the partitions."""
    here, previous = two_urls
    with redis.Redis.from_url(previous) as old, redis.Redis.from_url(here) as new:
        before_growth(old, Keys("dispatcher"))
        grow(here, previous)
        keys = keys_of("dispatcher", COUNT)[0]
        new.sadd(keys.api_keys("acme"), "since")
        new.zadd(keys.expiries, {"acme:e1": 9e12})
        expected = everything(new)
        new.set("dispatcher:grown", 0)
        assert Counter() == grow(here, previous)
        assert int(new.get("dispatcher:grown") or 0) > 0
        assert expected == everything(new)


def test_gone_back(two_urls: list[str]) -> None:
    """After growth was gone back from, all is copied anew; who forgot to delete what was noted of it is told."""
    here, previous = two_urls
    with redis.Redis.from_url(previous) as old, redis.Redis.from_url(here) as new:
        before_growth(old, Keys("dispatcher"))
        grow(here, previous)
        old.set("dispatcher:format", FORMAT)
        changed_meanwhile(old, Keys("dispatcher"))
        with pytest.raises(InvalidInput, match="delete dispatcher:grown on the servers"):
            grow(here, previous)
        new.delete("dispatcher:grown")
        with pytest.raises(
            InvalidInput, match="hold workspace acme, workspace gone, API keys of producers already"
        ):
            grow(here, previous)
        assert 1 == grow(here, previous, replace=True)["workspaces"]
        assert {b"acme"} == everything(new)["workspaces"]
        assert NEW == everything(new)["workspace:acme"][b"callback_url"]


def test_the_old_queue_after_the_end(two_urls: list[str]) -> None:
    """It takes nothing once the previous Redis is not needed, and the producer says so; it does again when the end is taken back."""
    here, previous = two_urls
    with redis.Redis.from_url(previous) as old, Dispatcher.from_url(previous) as producer:
        before_growth(old, Keys("dispatcher"))
        grow(here, previous)
        for _ in range(2):  # without a stream, and with one
            growing(here, previous, lambda growth: growth.end(1, force=True))
            with pytest.raises(EnqueueInterrupted, match="has grown into several partitions elsewhere"):
                producer.enqueue(change(1))
            assert 0 == producer.queued()
            grow(here, previous)
            producer.enqueue(change(2))
            [(_, [(entry, _)])] = old.xreadgroup("workers", "intake", {"dispatcher:events": ">"})
            with pytest.raises(StillWaiting, match="1 status change and 0 callbacks wait"):
                growing(here, previous, lambda growth: growth.end(1, force=True))
            old.xack("dispatcher:events", "workers", entry)
            old.xdel("dispatcher:events", entry)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, "holds nothing of this installation"),
        ({"dispatcher:format": FORMAT}, "has not grown into these partitions"),
        ({"dispatcher:format": f"{FORMAT} grown into {COUNT + 1}"}, "has not grown into these partitions"),
    ],
)
def test_another_redis_is_not_asked(two_urls: list[str], keys: dict[str, str], told: str) -> None:
    """What an empty Redis, or that of another installation, does not know is not new: intake waits."""

    async def ask() -> list[bool]:
        servers = PlainServers([two_urls[1]], [Keys("dispatcher", COUNT)])
        try:
            return await Previous(servers.wire(0), servers.keys[0]).known(
                [StatusChange.model_validate(change(1))]
            )
        finally:
            await servers.aclose()

    with redis.Redis.from_url(two_urls[1]) as client:
        for key, value in keys.items():
            client.set(key, value)
        with pytest.raises(PreviousUnavailable, match=told):
            asyncio.run(ask())
        client.set("dispatcher:format", f"{FORMAT} grown into {COUNT}")
        assert [False] == asyncio.run(ask())


def test_the_end_of_another_installation(two_urls: list[str]) -> None:
    """Where the setting leads to another installation's Redis, also one that no worker has led yet, `--force` ends nothing."""
    here, previous = two_urls
    with redis.Redis.from_url(previous) as old, Dispatcher.from_url(previous) as producer:
        before_growth(old, Keys("dispatcher"))
        grow(here, previous)
        for stored in (str(FORMAT), None):
            old.delete("dispatcher:format")
            if stored:
                old.set("dispatcher:format", stored)
            with pytest.raises(OtherSettings, match="has not grown into these partitions"):
                growing(here, previous, lambda growth: growth.end(1, force=True))
        producer.enqueue(change(1))
        old.flushall()
        with pytest.raises(StillWaiting, match="cause callbacks once more"):
            growing(here, previous, lambda growth: growth.end(1))
        assert WHAT_IS_LOST == growing(here, previous, lambda growth: growth.end(1, force=True))


class Answers(socketserver.BaseRequestHandler):
    """A server that takes connections and is no help."""

    def handle(self) -> None:
        """Says at once what it says, or reads and says nothing; then it closes."""
        if said := self.server.said:  # type: ignore[attr-defined]
            self.request.sendall(said)
        elif self.server.hangs:  # type: ignore[attr-defined]
            while self.request.recv(65536):
                pass


@pytest.mark.parametrize(
    ("said", "hangs"), [(b"-ERR max number of clients reached\r\n", False), (b"", True), (b"", False)]
)
def test_what_takes_connections_is_not_lost(two_urls: list[str], said: bytes, hangs: bool) -> None:
    """A previous Redis without room for more connections, one that hangs, and one that closes them is there; `--lost` refuses."""
    here, previous = two_urls
    with redis.Redis.from_url(previous) as old:
        before_growth(old, Keys("dispatcher"))
    grow(here, previous)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answers) as server:
        server.said, server.hangs, server.daemon_threads = said, hangs, True  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"redis://127.0.0.1:{server.server_address[1]}/0"
        try:
            with pytest.raises(StillWaiting, match="answers, so it is not lost") as still:
                growing(here, url, lambda growth: growth.end_lost())
            assert "DISPATCHER_REDIS_URL" not in str(still.value)
            with pytest.raises(PreviousUnavailable) as refused:
                growing(here, url, lambda growth: growth.end(1, force=True))
            assert "--lost" not in str(refused.value)
        finally:
            server.shutdown()
            thread.join()
    growing(here, url, lambda growth: growth.end_lost())  # nobody is there any more


def test_half_of_a_growth_is_no_installation(two_urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run that broke off has copied is led by no worker: the next run would replace what came there meanwhile."""
    here, previous = two_urls
    with redis.Redis.from_url(previous) as client:
        before_growth(client, Keys("dispatcher"))
    broken_off(monkeypatch, here, previous)

    async def start() -> None:
        servers = PlainServers([here], keys_of("dispatcher", COUNT))
        try:
            await require_grown(servers, "dispatcher")
        finally:
            await servers.aclose()

    with pytest.raises(OtherSettings, match="`dispatcher grow` broke off here"):
        asyncio.run(start())
    grow(here, previous)
    with pytest.raises(OtherSettings, match="has a previous Redis"):
        asyncio.run(start())


def test_a_note_that_is_lost_rolls_nothing_back(two_urls: list[str]) -> None:
    """Where the previous Redis says that it has grown, nothing is copied over what has come since."""
    here, previous = two_urls
    with redis.Redis.from_url(previous) as client:
        before_growth(client, Keys("dispatcher"))
    grow(here, previous)
    with redis.Redis.from_url(here) as client:
        client.delete("dispatcher:grown")
    for replace in (False, True):
        with pytest.raises(InvalidInput, match="set it to the time at which that was"):
            grow(here, previous, replace=replace)


def test_what_the_archive_has_not_got(two_urls: list[str]) -> None:
    """The end is refused while something there is to go to the archive; forced, it says what it leaves behind."""
    here, previous = two_urls
    with redis.Redis.from_url(previous) as old:
        keys = Keys("dispatcher")
        before_growth(old, keys)
        grow(here, previous)
        old.zadd(keys.endpoints, {endpoint_id("acme https://a.example:443"): 7})
        old.xadd(keys.to_archive, {"id": "acme e1"})
        old.zadd(keys.status_due, {"acme m1": 9e12, "acme m2": 5})
        left = "1 ended callback and 2 messages of the previous Redis are not in the archive"
        with pytest.raises(StillWaiting, match=f"{left}: workers and archivers take them there"):
            growing(here, previous, lambda growth: growth.end(1))
        found = command(here, "check", PARTITIONS=str(COUNT), PREVIOUS_REDIS_URL=previous, BROKER_URL=here)
        assert left in " ".join(found.stdout.split())
        assert left == growing(here, previous, lambda growth: growth.end(1, force=True))
