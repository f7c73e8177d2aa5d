"""docs/operations.md is followed literally: each symptom is made on real processes, seen as it says, and mended by its commands."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from dispatcher import Dispatcher
from dispatcher.errors import RedisFull, RedisUnavailable
from dispatcher.store.client_certificates import ClientCertificates
from dispatcher.store.connection import connect_async
from dispatcher.store.endpoints import Endpoint, Endpoints
from dispatcher.store.keys import Keys, endpoint_id
from dispatcher.store.ledger import Ledger
from dispatcher.store.sealing import SecretBox
from dispatcher.store.workspaces import Workspaces
from dispatcher.worker.alerts import Alerts
from tasks.redis_server import RedisServer
from tests.acceptance.runbook import SYMPTOMS, Chapter
from tests.acceptance.stack import CLI, Stack, change, free_port, running_stack, wait_until
from tests.acceptance.test_api_bounds import running
from tests.acceptance.test_metrics import scrape
from tests.client_certificates import ClientAuthority
from tests.faults.proxy import Proxy
from tests.freezing import freeze
from tests.http.test_transport import Certificates

LONG_PAUSE = {
    "MAX_ATTEMPTS": "2",
    "BREAKER_FAILURES": "3",
    "BREAKER_PAUSE_SECONDS": "600",
    "BREAKER_MAX_PAUSE_SECONDS": "600",
    "ALERT_DOWN_SECONDS": "0.001",
}
"""What pauses stays so until somebody does something."""
FOLLOWED: dict[str, Callable[..., None]] = {}


def symptom(title: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The test follows the chapter of that title."""

    def follow(test: Callable[..., None]) -> Callable[..., None]:
        FOLLOWED[title] = test
        return test

    return follow


@pytest.fixture
def chapter(request: pytest.FixtureRequest) -> Iterator[Chapter]:
    """The chapter that the test follows: afterwards, all that it says was seen and run."""
    [title] = [title for title, test in FOLLOWED.items() if test is request.function]
    found = Chapter(title)
    yield found
    assert [] == found.left(), "not seen, or not run"


@pytest.fixture(scope="module")
def shared(server_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stand, with a worker, for all that leaves it as it was: each test has a workspace of its own."""
    with running_stack(tmp_path_factory.mktemp("symptoms")) as stack:
        stack.start_worker(**{f"DISPATCHER_{name}": value for name, value in LONG_PAUSE.items()}).wait_ready()
        yield stack


@pytest.fixture
def stand(shared: Stack) -> Iterator[Stack]:
    """The shared stand, whose receiver takes everything unless the test says otherwise."""
    shared.answer = answering(200)
    yield shared
    shared.answer = answering(200)


def answering(status: int, **headers: str) -> Any:
    """A receiver that answers so."""

    async def answer(_request: web.Request, _number: int) -> web.Response:
        text = "database is gone" if status >= 400 else "ok"
        return web.Response(status=status, text=text, headers=headers)

    return answer


@contextmanager
def frozen(stack: Stack) -> Iterator[None]:
    """The worker does nothing while the block runs."""
    freeze(stack.workers[0].process.pid)
    try:
        yield
    finally:
        os.kill(stack.workers[0].process.pid, signal.SIGCONT)


def log_of(stack: Stack) -> str:
    """The worker's log so far."""
    return stack.workers[-1].log


T = TypeVar("T")


def ask(stack: Stack, work: Callable[[Any, Keys], Awaitable[T]]) -> T:
    """What some work on the stand's Redis returns: what the test itself does and looks at, for a command takes a second."""

    async def run() -> T:
        client = connect_async(stack.server.url)
        try:
            return await work(client, Keys())
        finally:
            await client.aclose()

    return asyncio.run(run())


def add(stack: Stack, name: str, **limits: Any) -> str:
    """Makes a workspace; its callback URL."""
    url = f"{stack.listen()}/hooks"

    async def work(client: Any, keys: Keys) -> str:
        workspaces = Workspaces(client, keys, SecretBox(), allow_http=True)
        made = await workspaces.add(name, "zeckta", url, now_ms=round(time.time() * 1000), **limits)
        return made.secrets[-1].text

    stack.secrets[name] = ask(stack, work)
    return url


def endpoints(stack: Stack, workspace: str) -> list[Endpoint]:
    """The workspace's endpoints."""
    found = ask(stack, lambda client, keys: Endpoints(client, keys).all())
    return [one for one in found if one.workspace == workspace]


def states(stack: Stack, workspace: str) -> set[str]:
    """Their states."""
    return {one.state for one in endpoints(stack, workspace)}


def waiting(stack: Stack, workspace: str) -> int:
    """How many callbacks wait for all of them."""
    return sum(one.waiting for one in endpoints(stack, workspace))


def stop(stack: Stack, workspace: str, *, resume: bool = False) -> None:
    """Stops the workspace's endpoints, or lets them go on."""

    async def work(client: Any, keys: Keys) -> None:
        ledger = Ledger(client.execute_command, keys)
        for one in await Endpoints(client, keys).all():
            if one.workspace == workspace:
                await ledger.stop(one.id, resume=resume)

    ask(stack, work)


def test_every_symptom_is_followed() -> None:
    """Each chapter that says what one sees has a test here, and no test follows a chapter that is not there."""
    assert set(SYMPTOMS) == set(FOLLOWED)


@symptom("Redis does not answer")
def test_redis_away(stand: Stack, chapter: Chapter) -> None:
    """Each command says so in a line; the worker waits, and goes on by itself."""
    add(stand, "away")
    stand.server.stop()
    try:
        chapter.see("Redis … is not reachable", chapter.run("dispatcher check", stand, 3))
        wait_until(lambda: stand.workers[0].lines("redis.away"))
        chapter.see("redis.away", log_of(stand))
    finally:
        stand.server.start()
    assert {"delivered": 1} == stand.wait_ended(stand.enqueue(workspace="away"), "away", 60)


@symptom("The certificate of Redis is refused")
def test_certificate(stand: Stack, chapter: Chapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the authority's file each command refuses the server; with it they work."""
    certificates = Certificates(tmp_path)
    add(stand, "secure")
    with Proxy(stand.server.socket, certificates.server("127.0.0.1")) as proxy:
        monkeypatch.setitem(stand.environment, "DISPATCHER_REDIS_URL", proxy.url)
        chapter.see("the certificate of rediss://… is refused", chapter.run("dispatcher check", stand, 3))
        monkeypatch.setitem(stand.environment, "DISPATCHER_REDIS_CA_FILE", str(certificates._authority))
        assert "secure" in [one["workspace"] for one in stand.cli_json("workspace", "list")]


@symptom("The queue grows")
def test_queue_grows(stack: Stack, chapter: Chapter) -> None:
    """Where nobody reads the queue, `check --live` says that no worker leads intake."""
    add(stack, "acme")
    event_ids = stack.enqueue(3)
    chapter.see("on the queue", said := chapter.run("dispatcher stats", stack))
    assert "3 on the queue" in said
    assert "no worker leads intake" in " ".join(chapter.run("dispatcher check --live", stack, 1).split())
    stack.start_worker().wait_ready()
    assert {"delivered": 3} == stack.wait_ended(event_ids)
    assert "0 on the queue" in chapter.run("dispatcher stats", stack)


@symptom("No worker is alive")
def test_no_worker(stack: Stack, chapter: Chapter) -> None:
    """`check` says so, and the exit code too; a worker that is started reads the queue."""
    add(stack, "acme")
    event_ids = stack.enqueue(2)
    chapter.see("workers bad", chapter.run("dispatcher check", stack, 1))
    command = chapter.command("dispatcher worker").split()[1:]
    stack.start_worker(*CLI, *command).wait_ready()
    assert {"delivered": 2} == stack.wait_ended(event_ids)
    wait_until(lambda: "1 alive" in stack.cli("check").stdout)


@symptom("A partition has no owner")
def test_partition_without_owner(stack: Stack, chapter: Chapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no worker leads partitions, `check --live` and `stats` name them; a worker that is started leads all."""
    monkeypatch.setitem(stack.environment, "DISPATCHER_PARTITIONS", "16")
    stack.add_workspace()
    event_ids = stack.enqueue(3)
    said = " ".join(chapter.run("dispatcher check --live", stack, 1).split())
    chapter.see("intake", said)
    assert "16 of 16 partitions have no owner" in said
    assert "all 16 answer" in chapter.run("dispatcher check", stack, 1)
    assert "16 without an owner: 0, 1, 2" in " ".join(chapter.run("dispatcher stats", stack).split())
    assert "dispatcher:{10}:events" in chapter.run("dispatcher partition --all", stack)
    stack.start_worker().wait_ready()
    assert {"delivered": 3} == stack.wait_ended(event_ids)
    wait_until(lambda: "without an owner" not in stack.cli("stats").stdout)


@symptom("The archive is behind")
def test_archive_behind(stack: Stack, chapter: Chapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that cannot be written to: the log says why, `check` how much waits; when it is mended all goes there."""
    folder = stack.folder / "archives"
    monkeypatch.setitem(stack.environment, "DISPATCHER_ARCHIVE_URL", f"sqlite:///{folder}/archive.db")
    monkeypatch.setitem(stack.environment, "DISPATCHER_ARCHIVE_AFTER_SECONDS", "0")
    stack.add_workspace()
    worker = stack.start_worker().wait_ready()
    assert {"delivered": 3} == stack.wait_ended(stack.enqueue(3))
    wait_until(lambda: worker.lines("archive.away"), what="a line in the log")
    assert "unable to open database file" in worker.lines("archive.away")[0]["problem"]
    said = " ".join(chapter.run("dispatcher check", stack, 1).split())
    chapter.see("archive", said)
    assert "3 ended callbacks and 0 messages have not gone there yet, the first since 20" in said
    folder.mkdir()
    wait_until(lambda: worker.lines("archive.back"), 60, "its end")
    assert 3 == len(stack.cli("history").stdout.splitlines())


@symptom("Callbacks are late")
def test_late(stand: Stack, chapter: Chapter) -> None:
    """An endpoint with a low limit and a low rate has callbacks that are due; raised limits hold at once."""
    own = {"acme": "late"}
    url = add(stand, "late", max_concurrency=1, rate_per_second=0.01)
    event_ids = stand.enqueue(10, workspace="late")
    wait_until(lambda: waiting(stand, "late") == 9)
    chapter.see("oldest due", chapter.run("dispatcher stats", stand))
    assert "late" in chapter.run("dispatcher endpoint list --state waiting", stand)
    assert "due since" in chapter.run("dispatcher endpoint show", stand, URL=url, **own)
    assert "0.01" in chapter.run("dispatcher workspace show", stand, **own)
    chapter.run("dispatcher workspace update acme --max-concurrency", stand, **own)
    chapter.run("dispatcher workspace update acme --rate-per-second", stand, **own)
    assert {"delivered": 10} == stand.wait_ended(event_ids, "late")


@symptom("An endpoint does not answer, or fails")
def test_endpoint_fails(stand: Stack, chapter: Chapter) -> None:
    """It pauses, and says why; when it is mended `retry` has everything go out, though its pause is ten minutes."""
    is_mended = False

    async def answer(request: web.Request, number: int) -> web.Response:
        if request.path == "/silent" and not is_mended:
            await asyncio.sleep(4)
        return await answering(200 if is_mended else 500)(request, number)

    stand.answer = answer
    url, silent = add(stand, "fails"), f"{stand.listen()}/silent"
    event_ids = stand.enqueue(8, workspace="fails")
    others = stand.enqueue(8, first=100, workspace="fails", callbackUrl=silent)

    wait_until(lambda: [one.state for one in endpoints(stand, "fails")] == ["paused", "paused"])
    here = {"acme": "fails", "URL": url, "EVENT_ID": event_ids[-1]}
    chapter.see("paused", said := chapter.run("dispatcher endpoint list", stand))
    assert all(one in said for one in ("fails (http_500)", "does not answer (timeout)", "database is gone"))
    shown = chapter.run("dispatcher endpoint show", stand, **here)
    assert all(one in shown for one in ("paused by the breaker until", "http_500", "database is gone"))
    assert "fails" in chapter.run("dispatcher event list --state waiting", stand, **here)
    waits = chapter.run("dispatcher event show", stand, **here)
    assert "fails (http_500); paused by the breaker until" in waits
    assert "database is gone" in chapter.run("dispatcher endpoint ping", stand, 1, **here)
    assert (
        "was not stopped; paused by the breaker until" in stand.cli("endpoint", "resume", "fails", url).stdout
    )
    assert {"paused"} == states(stand, "fails"), "resume changes nothing about it"
    with frozen(stand):
        chapter.run("dispatcher endpoint retry acme URL", stand, **here | {"URL": silent})
        chapter.see("probing", chapter.run("dispatcher endpoint list", stand))
    wait_until(lambda: log_of(stand).count('"endpoint.paused"') == 3, what="the probe has failed")
    assert {"paused"} == states(stand, "fails")
    chapter.see("endpoint.paused", log_of(stand))
    wait_until(lambda: stand.workers[0].lines("endpoint.down"))
    chapter.see("endpoint.down", log_of(stand))
    is_mended = True
    assert "200" in chapter.run("dispatcher workspace ping", stand, **here)
    assert "probing now" in chapter.run("dispatcher endpoint retry acme URL", stand, **here)
    assert stand.wait_ended(event_ids, "fails")["delivered"] >= 6, "all but those that were used up before"
    assert "nothing was done" in chapter.run("dispatcher endpoint retry --state paused", stand)
    chapter.run("dispatcher endpoint retry --state paused --yes", stand)
    assert stand.wait_ended(others, "fails")["delivered"] >= 4
    stop(stand, "fails")
    moved, left = (
        stand.enqueue(1, first=number, workspace="fails", callbackUrl=to)[0]
        for number, to in ((200, url), (201, f"{url}/own"))
    )
    wait_until(lambda: waiting(stand, "fails") == 2)
    move = "dispatcher workspace update acme --callback-url NEW_URL --move-waiting"
    chapter.run(move, stand, NEW_URL=f"{stand.listen()}/new", **here)
    assert {"delivered": 1} == stand.wait_ended([moved], "fails")
    chapter.run("dispatcher purge waiting", stand, **here)
    assert {"failed": 1} == stand.wait_ended([left], "fails")


@symptom("Callbacks are about to expire")
def test_about_to_expire(stand: Stack, chapter: Chapter) -> None:
    """What expires first is listed first; what has expired is sent when it is replayed."""
    stand.answer = answering(404)
    add(stand, "expiry")
    stand.wait_ended(stand.enqueue(workspace="expiry"), "expiry")
    stop(stand, "expiry")
    old = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 172_800 + 15))
    (event_id,) = stand.enqueue(first=1, workspace="expiry", timestamp=old)
    wait_until(lambda: stand.state(event_id, "expiry") == "pending")
    assert event_id in chapter.run("dispatcher event list --state waiting", stand).splitlines()[1]
    here = {"acme": "expiry", "EVENT_ID": event_id}
    assert "dispatcher endpoint resume expiry" in chapter.run("dispatcher event show", stand, **here)
    assert {"expired": 1} == stand.wait_ended([event_id], "expiry", 60)
    (url,) = (one.url for one in endpoints(stand, "expiry"))
    chapter.run("dispatcher endpoint resume", stand, URL=url, **here)
    chapter.run("dispatcher subscription resume", stand, crm="default", **here)
    stand.answer = answering(200)
    chapter.run("dispatcher event replay", stand, acme="expiry")
    assert {"delivered": 1} == stand.wait_ended([event_id], "expiry")


@symptom("Callbacks are given up")
def test_given_up(stand: Stack, chapter: Chapter) -> None:
    """Whose they are, which, why, and how they are sent once more."""
    stand.answer = answering(404)
    add(stand, "given")
    event_ids = stand.enqueue(3, workspace="given")
    assert {"failed": 3} == stand.wait_ended(event_ids, "given")
    said = chapter.run("dispatcher stats", stand)
    chapter.see("failed", said)
    chapter.see("expired", said)
    wait_until(lambda: stand.workers[0].lines("callback.ended"))
    chapter.see("callback.ended", log_of(stand))
    assert "given" in chapter.run("dispatcher stats --by workspace", stand)
    found = chapter.run("dispatcher event list --state failed", stand, acme="given")
    assert all(event_id in found for event_id in event_ids)
    assert "http_404" in found
    stand.answer = answering(200)
    many = "dispatcher event replay --state failed --workspace acme --since 6h"
    assert "3 events" in chapter.run(many, stand, acme="given")
    chapter.run(f"{many} --yes", stand, acme="given")
    assert {"delivered": 3} == stand.wait_ended(event_ids, "given")


@symptom("A customer says: we did not get it")
def test_did_not_get_it(stand: Stack, chapter: Chapter) -> None:
    """The message's id leads to its callbacks, to when they were delivered, or to why there are none."""
    add(stand, "asks")
    (event_id,) = stand.enqueue(workspace="asks")
    assert {"delivered": 1} == stand.wait_ended([event_id], "asks")
    assert event_id in chapter.run("dispatcher event list --message", stand, UUID="m0")
    shown = chapter.run("dispatcher event show", stand, EVENT_ID=event_id, acme="asks")
    assert "attempt 1" in shown
    assert "no events of message nobody; a message is found by its whole id" in chapter.run(
        "dispatcher event list --message", stand, UUID="nobody"
    )
    stand.enqueue(workspace="asks", eventId=event_id, status="DELIVERED")
    stand.redis.xadd("dispatcher:events", {"event": '{"workspace":"asks"}'})
    wait_until(lambda: stand.redis.xlen("dispatcher:rejected") == 2)
    said = chapter.run("dispatcher rejected list --workspace acme", stand, acme="asks")
    named = said.partition("ever rejected")[0]
    assert ("conflict" in named, "invalid" in named) == (True, False), named
    assert "invalid" in chapter.run("dispatcher rejected list", stand)


@symptom("Entries are rejected")
def test_rejected(stand: Stack, chapter: Chapter) -> None:
    """The list says why; with what they lacked they go back on the queue and are delivered."""
    event_ids = stand.enqueue(2, workspace="newcomer")
    wait_until(lambda: len(stand.workers[0].lines("event.rejected")) >= 2)
    chapter.see("event.rejected", log_of(stand))
    chapter.see("rejected", chapter.run("dispatcher stats", stand))
    assert "unknown_workspace" in chapter.run("dispatcher rejected list", stand)
    add(stand, "newcomer")
    many = "dispatcher rejected requeue --reason unknown_workspace"
    assert "2" in chapter.run(many, stand)
    chapter.run(f"{many} --yes", stand)
    assert {"delivered": 2} == stand.wait_ended(event_ids, "newcomer")


@symptom("A client certificate ends")
def test_client_certificate(stand: Stack, chapter: Chapter, tmp_path: Path) -> None:
    """It is seen two weeks before; a new one is set and tried, or it is taken away."""
    add(stand, "mtls")
    made = ("--callback-url", f"{stand.listen()}/crm")
    stand.cli_json("subscription", "add", "mtls", "crm", *made)
    authority = ClientAuthority(tmp_path)
    places = {"acme": "mtls", "acme.crm": "mtls.crm", "URL": made[1]}

    def update(days: float) -> None:
        pair = authority.issue(days=days)
        (tmp_path / "client.pem").write_text(pair.certificate)
        (tmp_path / "client.key").write_text(pair.key)
        files = {"FILE": str(tmp_path / "client.pem"), "KEY": str(tmp_path / "client.key")}
        command = "dispatcher subscription update acme crm --client-certificate FILE"
        chapter.run(command, stand, **places, **files)

    update(10)
    chapter.see("certificates warning", chapter.run("dispatcher check", stand))
    chapter.see("subscription.certificate_ends", chapter_log(stand))
    assert "CN=dispatcher, ends 20" in chapter.run("dispatcher subscription show", stand, **places)
    update(90)
    assert "certificates ok" in " ".join(stand.cli("check").stdout.split())
    chapter.run("dispatcher subscription ping", stand, **places)
    assert {"delivered": 1} == stand.wait_ended(stand.enqueue(workspace="mtls"), "mtls")
    chapter.run("dispatcher endpoint retry", stand, **places)
    chapter.run("dispatcher subscription update acme crm --client-certificate none", stand, **places)


def chapter_log(stand: Stack) -> str:
    """The log of a worker's look at its certificates: it looks once a minute, here at once."""
    with capture_logs() as lines:

        async def look() -> None:
            client = connect_async(stand.server.url)
            try:
                found = await ClientCertificates(client, Keys()).ending(round(time.time() * 1000))
            finally:
                await client.aclose()
            Alerts("worker-1").certificates(found, round(time.time() * 1000))

        asyncio.run(look())
    return json.dumps(lines)


@symptom("Who changed that")
def test_who_changed_that(stand: Stack, chapter: Chapter) -> None:
    """The trail says who moved the URL and stopped the endpoint; a key that did wrong is revoked."""
    url = add(stand, "changed")
    assert {"delivered": 1} == stand.wait_ended(stand.enqueue(workspace="changed"), "changed")
    key = stand.cli_json("workspace", "api-key", "add", "changed")["key"]
    stand.cli("workspace", "update", "changed", "--callback-url", f"{url}/elsewhere")
    stand.cli("endpoint", "stop", "changed", url)
    told = chapter.run("dispatcher audit list", stand, acme="changed")
    assert all(word in told for word in ("workspace.update", "/elsewhere", "endpoint.stop", "api_key.add"))
    chapter.run("dispatcher workspace api-key revoke", stand, acme="changed", KEY=key)
    assert [] == stand.cli_json("workspace", "api-key", "list", "changed")


@symptom("API calls are refused")
def test_refused(stand: Stack, chapter: Chapter) -> None:
    """The log and the counts say why; the key that was named with a wrong secret is shown."""
    add(stand, "refused")
    made = stand.cli_json("workspace", "api-key", "add", "refused")
    with running(stand) as api:
        wrong = {"Authorization": f"Bearer {made['apiKey'][:-4]}AAAA"}
        path = "/api/v1/messages/m1/status"
        codes = {httpx.get(f"{api.url}{path}", headers=wrong).status_code for _ in range(3)}
        assert codes <= {401, 404}
        httpx.post(f"{api.url}/v1/status-changes", headers=wrong, json=[])
        wait_until(lambda: api.process.lines("api.refused"))
        chapter.see("api.refused", api.process.log)
        wait_until(lambda: "API calls refused" in stand.cli("stats").stdout, what="counts that are kept")
        chapter.see("API calls refused", chapter.run("dispatcher stats", stand))
    assert made["key"] in chapter.run("dispatcher workspace api-key list", stand, acme="refused")


@symptom("Redis cannot write its disk")
def test_disk(stand: Stack, chapter: Chapter) -> None:
    """A Redis whose snapshots fail takes nothing, and that is named; after one that works all goes on."""
    add(stand, "disk")
    in_the_way = stand.folder / "dump.rdb"
    in_the_way.mkdir()
    stand.redis.config_set("save", "3600 1")

    def save(expected: str) -> None:
        stand.redis.bgsave()
        wait_until(lambda: stand.redis.info("persistence")["rdb_last_bgsave_status"] == expected)

    try:
        save("err")
        chapter.see("disk bad", chapter.run("dispatcher check", stand, 1))
        with Dispatcher.from_url(stand.server.url) as producer, pytest.raises(RedisUnavailable) as refused:
            producer.enqueue(change(1, workspace="disk"))
        chapter.see("refuses writes, because it cannot write its files", str(refused.value))
    finally:
        in_the_way.rmdir()
        save("ok")
        stand.redis.config_set("save", "")
    assert {"delivered": 1} == stand.wait_ended(stand.enqueue(workspace="disk"), "disk")


@symptom("Redis is a read-only replica")
def test_replica(stand: Stack, chapter: Chapter) -> None:
    """Each process names the true reason; when the server is a primary again, all goes on."""
    add(stand, "replica")
    with running(stand) as api:
        stand.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            chapter.see("Redis is a read-only replica", chapter.run("dispatcher check", stand, 1))
            live = stand.cli("check", "--live", "--json")
            assert 1 == live.returncode, live
            found = {one["subject"]: one for one in json.loads(live.stdout)}
            assert ["workers", "hints", "intake"] == list(found)
            assert "read-only replica" in found["hints"]["detail"]
            wait_until(lambda: stand.workers[0].lines("redis.away"))
            wait_until(lambda: api.process.lines("redis.away"))
            chapter.see("redis.away", api.process.log)
            ready = httpx.get(f"{api.url}/readyz")
            assert (503, True) == (ready.status_code, "read-only replica" in ready.text)
            chapter.see("/readyz", "/readyz")
            refused = stand.cli("workspace", "update", "replica", "--max-concurrency", "3")
            assert (3, True) == (refused.returncode, "is a read-only replica" in refused.stderr)
            assert "script" not in refused.stderr
        finally:
            stand.redis.execute_command("REPLICAOF", "NO", "ONE")
        wait_until(lambda: httpx.get(f"{api.url}/readyz").status_code == 200)
    assert {"delivered": 1} == stand.wait_ended(stand.enqueue(workspace="replica"), "replica", 60)
    assert "Frequent restarts" not in log_of(stand)


@symptom("Redis is full")
def test_redis_full(stand: Stack, chapter: Chapter) -> None:
    """Nothing new is taken, and said so; who fills it is shown, and what waits can be ended; with room it goes on."""
    add(stand, "full")
    assert {"delivered": 1} == stand.wait_ended(stand.enqueue(workspace="full"), "full")
    stop(stand, "full")
    event_ids = stand.enqueue(20, first=1, workspace="full")
    wait_until(lambda: waiting(stand, "full") == 20)
    with frozen(stand):
        held = stand.enqueue(1, first=100, workspace="full")
        stand.redis.config_set("maxmemory", "1")
    try:
        wait_until(lambda: stand.workers[0].lines("intake.refused"))
        chapter.see("intake.refused", log_of(stand))
        chapter.see("writes bad", chapter.run("dispatcher check", stand, 1))
        live = stand.cli("check", "--live", "--json")
        found = {one["subject"]: one for one in json.loads(live.stdout)}
        assert (1, "ok", "bad") == (live.returncode, found["workers"]["verdict"], found["hints"]["verdict"])
        assert "Redis is full" in found["hints"]["detail"]
        with Dispatcher.from_url(stand.server.url) as producer, pytest.raises(RedisFull) as refused:
            producer.enqueue(change(200, workspace="full"))
        chapter.see("RedisFull", repr(refused.value))
        first = chapter.run("dispatcher endpoint list --sort waiting", stand).splitlines()[1]
        assert "full" in first
        chapter.run("dispatcher purge waiting", stand, acme="full")
        assert {"failed": 20} == stand.wait_ended(event_ids, "full")
    finally:
        stand.redis.config_set("maxmemory", "0")
    stop(stand, "full", resume=True)
    assert {"delivered": 1} == stand.wait_ended(held, "full")


@symptom("Something waits though its endpoint is well")
def test_waits(stand: Stack, chapter: Chapter) -> None:
    """The event says what it waits for: a stop, which `resume` ends, or its next attempt, which `retry` makes due."""
    url = add(stand, "waits")
    assert {"delivered": 1} == stand.wait_ended(stand.enqueue(workspace="waits"), "waits")
    stop(stand, "waits")
    (event_id,) = stand.enqueue(first=1, workspace="waits")
    wait_until(lambda: stand.state(event_id, "waits") == "pending")
    here = {"acme": "waits", "URL": url, "EVENT_ID": event_id}
    chapter.see("pending", chapter.run("dispatcher event list", stand))
    assert "200" in chapter.run("dispatcher workspace ping", stand, **here)
    assert "the operator stopped the endpoint" in chapter.run("dispatcher event show", stand, **here)
    assert "stopped by the operator since" in chapter.run("dispatcher endpoint show", stand, **here)
    assert "`dispatcher endpoint resume" in chapter.run("dispatcher endpoint retry", stand, 1, **here)
    assert "not stopped any more" in chapter.run("dispatcher endpoint resume", stand, **here)
    assert {"delivered": 1} == stand.wait_ended([event_id], "waits")
    assert "was not stopped; idle" in chapter.run("dispatcher endpoint resume", stand, **here)


@symptom("The status API knows less than it should")
def test_status_unrecorded(stand: Stack, chapter: Chapter) -> None:
    """The log says so, the callback is delivered all the same, and the same status change again makes up for it."""
    add(stand, "lacks")
    stand.cli_json("workspace", "api-key", "add", "lacks")
    key = "dispatcher:status:lacks:m0"
    stand.redis.lpush(key, "no text")
    same = {"workspace": "lacks", "eventId": "once", "timestamp": change(0)["timestamp"]}
    (event_id,) = stand.enqueue(**same)
    assert {"delivered": 1} == stand.wait_ended([event_id], "lacks")
    wait_until(lambda: stand.workers[0].lines("status.unrecorded"))
    chapter.see("status.unrecorded", log_of(stand))
    stand.redis.delete(key)
    before = len(stand.received)
    stand.enqueue(**same)
    wait_until(lambda: stand.redis.exists(key), what="the message's status is there")
    assert before == len(stand.received), "its callback is not sent twice"
    assert "delivered" in chapter.run("dispatcher event list --message", stand, UUID="m0")
    assert (
        "lacks"
        not in chapter.run("dispatcher workspace api-key list", stand, acme="lacks").partition("\n")[0]
    )


@symptom("The API answers 503")
def test_api_503(stand: Stack, chapter: Chapter) -> None:
    """Too many connections, or Redis away: the log says which; a worker that leads intake is found by `check --live`."""
    key = stand.cli_json("producer-key", "add", "billing")["apiKey"]
    with running(stand, MAX_CONNECTIONS="3") as api:
        with ExitStack() as open_:
            for _ in range(3):
                open_.enter_context(api.connect())
            wait_until(lambda: httpx.get(f"{api.url}/openapi.json").status_code == 503)
            wait_until(lambda: api.process.lines("api.too_many_connections"))
        chapter.see("api.too_many_connections", api.process.log)
        wait_until(api.is_up)
        stand.server.stop()
        try:
            headers = {"Authorization": f"Bearer {key}"}
            asked = httpx.post(f"{api.url}/v1/status-changes", headers=headers, json={}, timeout=30)
            assert 503 == asked.status_code
        finally:
            stand.server.start()
        wait_until(lambda: api.process.lines("api.redis_away"))
        chapter.see("api.redis_away", api.process.log)
    assert "dispatcher api" == chapter.command("dispatcher api")
    wait_until(lambda: stand.cli("check", "--live").returncode == 0)
    assert "led by" in " ".join(chapter.run("dispatcher check --live", stand).split())


@symptom("A key was written over by hand")
def test_key_written_over(stand: Stack, chapter: Chapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits in a lane that somebody made a text is put back from the ledger, and delivered; a format is not guessed."""
    url = add(stand, "broken")
    assert {"delivered": 1} == stand.wait_ended(stand.enqueue(workspace="broken"), "broken")
    stop(stand, "broken")
    event_ids = stand.enqueue(2, first=1, workspace="broken")
    wait_until(lambda: waiting(stand, "broken") == 2)
    origin = url.removesuffix("/hooks")
    lane = f"dispatcher:lane:{endpoint_id(f'broken {origin}')}"
    stand.redis.set(lane, "no lane")
    [unreadable] = stand.enqueue(1, first=5, workspace="broken")
    wait_until(lambda: stand.workers[0].lines("redis.key_set_aside"))
    entry = f"dispatcher:event:broken:{unreadable}"
    wait_until(lambda: stand.redis.xlen("dispatcher:events") == 0)
    stand.redis.set(entry, stand.redis.get(entry).replace(b"MESSAGE_", b"MESSAG\xff_", 1))
    chapter.see("redis.wrong_type", log_of(stand))
    chapter.see("redis.key_set_aside", log_of(stand))
    said = chapter.run("dispatcher check", stand)
    chapter.see("damage", said)
    assert "1 key was of a wrong type" in " ".join(said.split())
    stop(stand, "broken", resume=True)
    assert {"delivered": 2} == stand.wait_ended(event_ids, "broken")
    wait_until(lambda: stand.workers[0].lines("callback.unreadable"))
    chapter.see("callback.unreadable", log_of(stand))

    monkeypatch.setitem(stand.environment, "DISPATCHER_KEY_PREFIX", "another")  # without a worker
    stand.redis.set("another:expiries", "by hand")
    chapter.see("WRONGTYPE the key … holds a value of another type", stand.cli("stats").stderr)
    stand.redis.delete("another:expiries")
    stand.redis.set("another:format", b"\xff")
    said = chapter.run("dispatcher check", stand, 1)
    assert 1 == len(said.splitlines())
    chapter.see("the key … was written over", said)
    worker = stand.start_worker()
    stand.workers.pop()
    assert 78 == worker.process.wait(30)
    chapter.see("worker.refused", worker.log)
    stand.redis.delete("another:format")


@symptom("Hints do not come through")
def test_hints_blocked(stack: Stack, chapter: Chapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the broker away callbacks are sent, and log, check and figures say so; when it is back hints come again."""

    async def slow(_request: web.Request, _number: int) -> web.Response:
        await asyncio.sleep(0.2)
        return web.Response()

    stack.answer = slow
    add(stack, "acme")
    port = free_port()
    (stack.folder / "broker").mkdir()
    with RedisServer(stack.folder / "broker") as broker:
        monkeypatch.setitem(stack.environment, "DISPATCHER_BROKER_URL", broker.url)
        monkeypatch.setitem(stack.environment, "DISPATCHER_MAX_IN_FLIGHT", "1")
        leader = stack.start_worker(DISPATCHER_METRICS_PORT=str(port)).wait_ready()
        wait_until(lambda: leader.lines("intake.leading"), what="it leads")
        stack.start_worker().wait_ready()
        wait_until(lambda: scrape(port)["dispatcher_broker_connected"] == 1, what="it is connected")
        wait_until(lambda: "2 alive" in stack.cli("check").stdout, what="both are alive")
        chapter.run("dispatcher check --live", stack)
        broker.stop()
        wait_until(lambda: scrape(port)["dispatcher_broker_connected"] == 0, what="it is not")
        urls = [f"{stack.listen()}/hooks" for _ in range(12)]
        event_ids = [stack.enqueue(1, first=n, callbackUrl=url)[0] for n, url in enumerate(urls)]
        assert {"delivered": 12} == stack.wait_ended(event_ids)
        wait_until(lambda: leader.lines("hints.unpublished"), what="a hint was not taken")
        chapter.see("hints.unpublished", leader.log)
        chapter.see("celery bad", chapter.run("dispatcher check", stack, 1))
        assert 1 <= scrape(port)["dispatcher_hints_unpublished_total"]
        broker.start()
        wait_until(lambda: scrape(port)["dispatcher_broker_connected"] == 1, 60, "it is connected again")


@symptom("What watches does not see")
def test_alerts_not_sent(stack: Stack, chapter: Chapter) -> None:
    """Alerts that cannot be sent are logged."""
    stack.answer = answering(404)
    add(stack, "acme")
    worker = stack.start_worker(DISPATCHER_ALERT_URL=stack.refusing_url()).wait_ready()
    chapter.run("dispatcher check --live", stack)
    assert {"failed": 1} == stack.wait_ended(stack.enqueue())
    assert 0 == worker.terminate()
    chapter.see("alerts.not_sent", worker.log)
