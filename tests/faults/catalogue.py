"""The faults. Each states its promise, does its damage to real processes, and returns what was counted."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from zlib import crc32

import redis
from aiohttp import web

from dispatcher import Dispatcher
from dispatcher.errors import RedisFull
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.keys import endpoint_id
from tasks.redis_server import RedisServer
from tests.acceptance.outputs import BAD_OUTPUTS
from tests.acceptance.stack import Worker, change, wait_until
from tests.faults.checker import Counts
from tests.faults.proxy import Proxy
from tests.faults.scene import Scene
from tests.freezing import freeze

REQUEST_TIMEOUT_SECONDS, LEASE_SECONDS = 2.0, 4.0
"""Of the stack's workers."""


@dataclass(frozen=True)
class Fault:
    """One entry of the catalogue."""

    number: int
    name: str
    promise: str
    run: Callable[[Scene], Counts]
    duplicates: Callable[[Scene], int]
    """How many POSTs may be repeated."""
    seed: int
    heavy: bool = False


FAULTS: list[Fault] = []


def fault(
    number: int, promise: str, *, duplicates: int | Callable[[Scene], int] = 0, heavy: bool = False
) -> Callable[[Callable[[Scene], Counts]], Callable[[Scene], Counts]]:
    """Puts a function into the catalogue; its name is the fault's."""

    def add(run: Callable[[Scene], Counts]) -> Callable[[Scene], Counts]:
        allowed = duplicates if callable(duplicates) else lambda _: duplicates
        name = run.__name__.replace("_", " ")
        FAULTS.append(
            Fault(number, name, promise, run, allowed, seed=crc32(name.encode()) % 10_000, heavy=heavy)
        )
        return run

    return add


def in_flight(scene: Scene) -> int:
    """The bound that a kill sets: what was in workers' hands."""
    return scene.allowed


@fault(
    1,
    "Killed before the POST: attempted again when the lease is over, one attempt `worker_lost`, no duplicate.",
)
def worker_killed_before_the_post(scene: Scene) -> Counts:
    scene.stack.add_workspace()
    scene.event_ids.append(("acme", "doomed"))
    first = scene.worker("before_send", "doomed")
    scene.stack.enqueue(eventId="doomed")
    first.process.wait(20)
    scene.worker(ready=False)
    counts = scene.counted()
    errors = [attempt["error"] for attempt in scene.stack.event("doomed")["attempts"]]
    if errors != ["worker_lost", None] or counts.posts != 1:
        counts.problems.append(f"attempts {errors}, {counts.posts} POSTs")
    return counts


@fault(
    1,
    "A callback whose attempts kill their worker ends `failed` by its attempts; those in flight beside it do not.",
    duplicates=in_flight,
)
def callback_that_kills_its_worker(scene: Scene) -> Counts:
    scene.stack.add_workspace()
    scene.event_ids.append(("acme", "doomed"))
    scene.enqueue(15)
    scene.stack.enqueue(eventId="doomed", first=1000)
    scene.enqueue(15)
    for _ in range(8):
        worker = scene.worker("before_send", "doomed", ready=False)
        while worker.process.poll() is None and scene.stack.state("doomed") != "failed":
            time.sleep(0.05)
        scene.allowed += scene.leased()
        if scene.stack.state("doomed") == "failed":
            break
    counts = scene.counted()
    if dict(counts.ends) != {"delivered": 30, "failed": 1}:
        counts.problems.append(f"ends {dict(counts.ends)}")
    return counts


@fault(
    1,
    "A worker whose engine dies ends itself with exit code 70, for its supervisor to start it anew; nothing is lost.",
    duplicates=in_flight,
)
def engine_dies(scene: Scene) -> Counts:
    scene.slowest = 0.3
    scene.stack.add_workspace()
    first = scene.worker("loop_dies", "6")
    while first.process.poll() is None:
        scene.enqueue(5)
        time.sleep(0.2)
    scene.allowed += scene.leased()
    scene.worker(ready=False)
    counts = scene.counted()
    counts.problems += [f"exit code {first.process.returncode}"] * (first.process.returncode != 70)
    counts.problems += ["it did not say so"] * (not first.lines("engine.died"))
    return counts


@fault(
    2, "Killed after the receiver read the POST: at most one more, with the same webhook-id.", duplicates=1
)
def worker_killed_after_the_post(scene: Scene) -> Counts:
    scene.stack.add_workspace()
    first = scene.worker()

    async def answer(_request: web.Request, number: int) -> web.Response:
        if number == 1:
            first.process.kill()
        return web.Response()

    scene.answer = answer
    scene.enqueue()
    first.process.wait(20)
    scene.worker(ready=False)
    counts = scene.counted()
    if counts.posts != 2:
        counts.problems.append(f"{counts.posts} POSTs in place of 2")
    return counts


@fault(
    3,
    "Workers are killed again and again: nothing lost, repeated at most what was in flight at a kill.",
    duplicates=in_flight,
    heavy=True,
)
def workers_killed_200_times(scene: Scene) -> Counts:
    kills, per_kill = (8, 25) if scene.short else (200, 25)
    scene.failure_rate, scene.slowest = 0.1, 0.2
    scene.stack.add_workspace()
    urls = [scene.stack.listen() for _ in range(10)]
    workers = [scene.worker(), scene.worker()]
    for kill in range(kills):
        for url in urls:
            scene.enqueue(
                per_kill // len(urls) + (urls.index(url) < per_kill % len(urls)), callbackUrl=f"{url}/hooks"
            )
        victim = a_ready_one(scene, workers)
        scene.in_the_midst()
        workers[victim].kill()
        scene.allowed += scene.leased()
        workers[victim] = scene.worker(ready=False)
        scene.tell(f"kill {kill + 1} of {kills}")
    counts = scene.counted(300)
    counts.problems += ["no kill met anything in flight"] * (scene.allowed == 0)
    return counts


def a_ready_one(scene: Scene, workers: Sequence[Worker]) -> int:
    """The place of one of the workers that are ready, by chance; waits until one is."""
    ready = wait_until(
        lambda: [place for place, worker in enumerate(workers) if "ready." in worker.log], 30, "a worker"
    )
    return int(scene.chance.choice(ready))


@fault(
    3,
    "Redis is killed again and again, append-only file everysec: nothing lost that it still has.",
    duplicates=in_flight,
    heavy=True,
)
def redis_killed_200_times(scene: Scene) -> Counts:
    kills, per_kill = (4, 25) if scene.short else (200, 25)
    scene.failure_rate, scene.slowest = 0.1, 0.2
    scene.stack.add_workspace()
    workers = [scene.worker(), scene.worker()]
    for kill in range(kills):
        scene.enqueue(per_kill)
        scene.in_the_midst()
        scene.stack.server.kill()
        scene.stack.server.start()
        scene.allowed += scene.leased()
        scene.tell(f"kill {kill + 1} of {kills}")
        time.sleep(0.2)
    counts = scene.counted(300)
    counts.problems += ["no kill met anything in flight"] * (scene.allowed == 0)
    counts.problems += ["a worker has ended"] * any(worker.process.poll() is not None for worker in workers)
    return counts


@fault(4, "A Celery message is lost with its worker: the waker finds the endpoint again.")
def worker_killed_between_taking_a_hint_and_noting_it(scene: Scene) -> Counts:
    url = scene.stack.add_workspace()

    async def answer(_request: web.Request, number: int) -> web.Response:
        return web.Response(status=503 if number == 1 else 200)

    scene.answer = answer
    first = scene.worker("before_unacked", BACKOFF_BASE_SECONDS="2")
    scene.enqueue()
    wait_until(lambda: scene.recorder.received, 20)
    endpoint = endpoint_id(EndpointName("acme", url.removesuffix("/hooks")))
    send_hint(scene, endpoint)
    first.process.wait(20)
    scene.worker(ready=False)
    return scene.counted()


def send_hint(scene: Scene, endpoint: str) -> None:
    """Sends a hint as a busy worker does."""
    command = [sys.executable, "-m", "celery", "-A", "tasks", "call", "dispatcher.deliver"]
    environment = scene.stack.environment
    subprocess.run(
        [*command, "--args", json.dumps([[endpoint]])],
        cwd=scene.stack.folder,
        env=environment,
        check=True,
        timeout=60,
    )


@fault(5, "TERM with POSTs in flight: they end and are recorded, exit code 0, no duplicate.")
def worker_ended_with_posts_in_flight(scene: Scene) -> Counts:
    async def answer(_request: web.Request, _number: int) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    scene.answer = answer
    scene.stack.add_workspace()
    first = scene.worker()
    scene.enqueue(10)
    wait_until(lambda: scene.recorder.most_at_once, 20)
    code = first.terminate()
    scene.worker(ready=False)
    counts = scene.counted()
    counts.problems += [f"exit code {code}"] * (code != 0)
    return counts


@fault(5, "Workers are replaced one by one under load: nothing lost, nothing repeated.")
def workers_replaced_under_load(scene: Scene) -> Counts:
    scene.stack.add_workspace()
    workers = [scene.worker(), scene.worker()]
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            scene.enqueue(5)
            time.sleep(0.1)

    thread = threading.Thread(target=load)
    thread.start()
    codes = []
    for _ in range(1 if scene.short else 5):
        for number, worker in enumerate(workers):
            workers[number] = scene.worker()
            codes.append(worker.terminate())
    stop.set()
    thread.join()
    counts = scene.counted()
    counts.problems += [f"exit codes {codes}"] * any(codes)
    return counts


@fault(
    6,
    "A worker stalls for two leases and wakes up: its late result is refused, the new owner's stands.",
    duplicates=1,
)
def worker_stopped_and_continued(scene: Scene) -> Counts:
    async def answer(_request: web.Request, number: int) -> web.Response:
        if number == 1:
            freeze(first.process.pid)
        return web.Response(status=500 if number == 1 else 200)

    scene.answer = answer
    scene.stack.add_workspace()
    first = scene.worker()
    (event_id,) = scene.enqueue()
    wait_until(lambda: len(scene.recorder.received) == 1, 20)
    scene.worker()
    wait_until(lambda: scene.stack.state(event_id) == "delivered", 30)
    first.process.send_signal(signal.SIGCONT)
    wait_until(lambda: first.lines("callback.lease_lost"), 20, "the late result to be refused")
    counts = scene.counted()
    errors = [attempt["error"] for attempt in scene.stack.event(event_id)["attempts"]]
    counts.problems += [f"attempts {errors}"] * (errors != ["worker_lost", None])
    return counts


@fault(7, "Redis is killed under load and started again: workers go on by themselves.", duplicates=in_flight)
def redis_killed_under_load(scene: Scene) -> Counts:
    scene.stack.add_workspace()
    workers = [scene.worker(), scene.worker()]
    for _ in range(3):
        scene.enqueue(200)
        scene.in_the_midst()
        scene.stack.server.kill()
        time.sleep(scene.chance.uniform(0.5, 2.0))
        scene.stack.server.start()
        scene.allowed += scene.leased()
    counts = scene.counted()
    counts.problems += ["a worker has ended"] * any(worker.process.poll() is not None for worker in workers)
    return counts


@fault(
    8,
    "Failover to a replica that lags: workers survive READONLY and go on; what the lag held may be gone or repeated.",
    duplicates=in_flight,
)
def failover_to_a_lagging_replica(scene: Scene) -> Counts:
    folder = scene.stack.folder / "replica"
    folder.mkdir()
    primary, socket = scene.stack.redis, scene.stack.server.socket
    primary.config_set("repl-diskless-sync-delay", 0)
    with (
        Proxy(socket) as proxy,
        Proxy(socket) as link,
        RedisServer(folder, "--appendonly", "yes") as server,
        redis.Redis.from_url(server.url) as replica,
    ):
        replica.replicaof("127.0.0.1", link.port)
        wait_until(lambda: replica.info("replication").get("master_link_status") == "up", 30, "the replica")
        scene.stack.add_workspace()
        worker = scene.worker(REDIS_URL=proxy.url)
        scene.enqueue(100)
        wait_until(lambda: len(scene.recorder.received) >= 100, 30, "the first callbacks")
        wait_until(lambda: _offset(primary) == _offset(replica), 10, "the replica to have them")
        link.silent = True  # it lags from here on
        scene.enqueue(100)
        time.sleep(0.3)
        scene.allowed += 100
        scene.stack.server.kill()
        proxy.target = server.socket  # still read-only: the worker is refused
        proxy.cut()
        time.sleep(1.5)
        replica.replicaof("NO", "ONE")
        primary.close()
        scene.stack.server, scene.stack.redis = server, replica
        scene.enqueue(50)
        counts = scene.counted()
        counts.problems += ["the worker has ended"] * (worker.process.poll() is not None)
        counts.problems += ["nothing lagged"] * (not counts.forgotten)
        counts.problems += [f"ends {counts.ends}"] * (counts.ends["delivered"] < 150)
        worker.kill()
        return counts


def _offset(client: "redis.Redis") -> int:
    found = client.info("replication")
    return int(found.get("slave_repl_offset", found["master_repl_offset"]))


@fault(
    9, "Redis forgets the scripts, and refuses writes for a while: retried, no end by it, workers stay up."
)
def scripts_flushed_and_redis_read_only(scene: Scene) -> Counts:
    scene.stack.add_workspace()
    worker = scene.worker()
    client = scene.stack.redis
    for _ in range(4):
        scene.enqueue(50)
        client.script_flush()
        time.sleep(0.2)
    client.replicaof("127.0.0.1", 1)
    time.sleep(2)
    client.replicaof("NO", "ONE")
    scene.enqueue(50)
    counts = scene.counted()
    counts.problems += ["the worker has ended"] * (worker.process.poll() is not None)
    counts.problems += [f"ends {counts.ends}"] * (set(counts.ends) != {"delivered"})
    return counts


@fault(
    10,
    "Redis is full: producers get a clear error, intake waits and says so, what was accepted settles, nothing is lost.",
)
def redis_full(scene: Scene) -> Counts:
    async def answer(_request: web.Request, _number: int) -> web.Response:
        await asyncio.sleep(0.5)
        return web.Response()

    scene.answer = answer
    scene.stack.add_workspace()
    worker = scene.worker()
    client = scene.stack.redis
    accepted = scene.enqueue(30)
    wait_until(lambda: client.xlen("dispatcher:events") == 0, 20)
    freeze(worker.process.pid)
    scene.enqueue(20)
    client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
    worker.process.send_signal(signal.SIGCONT)
    refused = False
    try:
        with Dispatcher.from_url(scene.stack.server.url) as dispatcher:
            dispatcher.enqueue(change(10_000))
    except RedisFull:
        refused = True
    wait_until(
        lambda: all(scene.stack.state(one) == "delivered" for one in accepted), 40, "what was accepted"
    )
    said = len(worker.lines("intake.refused"))
    client.config_set("maxmemory", 0)
    counts = scene.counted()
    counts.problems += ["the producer was not refused"] * (not refused)
    counts.problems += [f"intake said so {said} times"] * (said != 1)
    return counts


@fault(
    12,
    "Connections to Redis are cut again and again: no duplicate, never more at an endpoint than it allows.",
    duplicates=in_flight,
)
def connections_cut(scene: Scene) -> Counts:
    async def answer(_request: web.Request, _number: int) -> web.Response:
        await asyncio.sleep(0.02)
        return web.Response()

    scene.answer = answer
    scene.stack.add_workspace("acme", "zeckta", "", "--max-concurrency", "5")
    workers = [scene.worker(), scene.worker()]
    client = scene.stack.redis
    for _ in range(10 if scene.short else 40):
        scene.enqueue(20)
        time.sleep(scene.chance.uniform(0.05, 0.3))
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    counts = scene.counted()
    counts.problems += ["a worker has ended"] * any(worker.process.poll() is not None for worker in workers)
    counts.problems += [f"{scene.recorder.most_at_once} at once"] * (scene.recorder.most_at_once > 5)
    return counts


@fault(
    13,
    "Redis is slow, up to beyond our time-out: no script takes effect twice, nothing is lost.",
    duplicates=in_flight,
)
def redis_slow(scene: Scene) -> Counts:
    with Proxy(scene.stack.server.socket) as proxy:
        scene.stack.add_workspace()
        worker = scene.worker(REDIS_URL=proxy.url)
        for delay in (0.2, 1.0, 3.0, 6.0):
            scene.enqueue(20)
            proxy.delay_seconds = delay
            time.sleep(min(2 * delay, 7))
            scene.allowed += scene.leased()
        proxy.delay_seconds = 0.0
        counts = scene.counted()
        counts.problems += ["the worker has ended"] * (worker.process.poll() is not None)
        worker.kill()
        return counts


@fault(
    13,
    "Redis goes silent without closing anything: noticed, connected anew, nothing is lost.",
    duplicates=in_flight,
)
def redis_silent(scene: Scene) -> Counts:
    with Proxy(scene.stack.server.socket) as proxy:
        scene.stack.add_workspace()
        worker = scene.worker(REDIS_URL=proxy.url)
        scene.enqueue(20)
        proxy.silent = True
        scene.allowed += 20
        time.sleep(3)
        proxy.silent = False
        proxy.cut()
        scene.enqueue(20)
        counts = scene.counted()
        worker.kill()
        return counts


@fault(
    14,
    "100 producers enqueue the same eventId: delivered once; another body under it is a conflict, in `rejected`.",
)
def duplicates_enqueued(scene: Scene) -> Counts:
    scene.stack.add_workspace()
    scene.worker()
    same = change(1, eventId="same")
    other = change(2, eventId="same")
    scene.event_ids.append(("acme", "same"))

    def produce(number: int) -> None:
        with Dispatcher.from_url(scene.stack.server.url) as dispatcher:
            dispatcher.enqueue(same if number else other)

    with Dispatcher.from_url(scene.stack.server.url) as dispatcher:
        dispatcher.enqueue(same)
    threads = [threading.Thread(target=produce, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: scene.stack.redis.xlen("dispatcher:rejected") == 1, 20, "the conflict")
    counts = scene.counted()
    counts.problems += [f"{counts.posts} POSTs"] * (counts.posts != 1)
    return counts


@fault(
    16,
    "A worker's clock is two hours wrong and jumps: due times, leases and expiries are Redis's, timestamps too.",
)
def clock_skewed(scene: Scene) -> Counts:
    async def answer(_request: web.Request, number: int) -> web.Response:
        return web.Response(status=503 if number == 1 else 200)

    scene.answer = answer
    scene.stack.add_workspace()
    worker = scene.worker("skewed", "7200")
    for _ in range(12):
        scene.enqueue(5, ttlSeconds=60)
        time.sleep(1)
    counts = scene.counted()
    counts.problems += [f"ends {counts.ends}"] * (set(counts.ends) != {"delivered"})
    counts.problems += ["the worker has ended"] * (worker.process.poll() is not None)
    return counts


@fault(17, "The expiry passes while Redis is down: no attempt after it, exactly one `expired`.")
def expiry_while_redis_is_down(scene: Scene) -> Counts:
    async def answer(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=503)

    scene.answer = answer
    scene.stack.add_workspace()
    scene.worker(BACKOFF_BASE_SECONDS="2")
    scene.enqueue(5, ttlSeconds=3)
    wait_until(lambda: len(scene.recorder.received) >= 5, 20)
    scene.stack.server.stop()
    time.sleep(4)
    posts = len(scene.recorder.received)
    scene.stack.server.start()
    counts = scene.counted()
    counts.problems += [f"ends {counts.ends}"] * (dict(counts.ends) != {"expired": 5})
    counts.problems += ["attempts after the expiry"] * (counts.posts != posts)
    return counts


@fault(27, "The secret is rotated while callbacks are in flight: each verifies with the old or the new one.")
def secret_rotated(scene: Scene) -> Counts:
    scene.stack.add_workspace()
    scene.worker()
    old = scene.stack.secrets["acme"]
    for _ in range(2):
        scene.enqueue(40)
        rotated = scene.stack.cli_json("workspace", "rotate-secret", "acme")
        scene.stack.secrets["acme-new"] = rotated["secret"]
        scene.enqueue(40)
    counts = scene.counted()
    counts.problems += ["nothing changed"] * (old == rotated["secret"])
    return counts


@fault(
    32,
    "TERM or Ctrl-C while Redis or the broker, or both, are silent or refuse: ends within REQUEST_TIMEOUT_SECONDS + 5 s, exit code "
    "0 or 130; nothing is lost, repeated at most what was in flight.",
    duplicates=in_flight,
)
def term_while_redis_is_silent(scene: Scene) -> Counts:
    async def answer(_request: web.Request, _number: int) -> web.Response:
        await asyncio.sleep(0.5)
        return web.Response()

    scene.answer = answer
    scene.stack.add_workspace()
    signals = [[signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]][: 1 if scene.short else 2]
    cases = list(product([(True, False), (False, True), (True, True)], [False, True], signals))
    codes = [_end_while_away(scene, *case) for case in cases]
    scene.worker(ready=False)
    counts = scene.counted()
    expected = [130 if sent[0] is signal.SIGINT else 0 for _, _, sent in cases]
    counts.problems += [
        f"{case}: {code}" for case, code, right in zip(cases, codes, expected, strict=True) if code != right
    ]
    return counts


def _end_while_away(
    scene: Scene, away: tuple[bool, bool], refuses: bool, signals: Sequence[signal.Signals]
) -> int | str:
    """Ends a worker with POSTs in flight while the ledger's Redis, the broker's, or both, are away; its exit code."""
    socket = scene.stack.server.socket
    with Proxy(socket) as ledger, Proxy(socket) as broker:
        worker = scene.worker(REDIS_URL=ledger.url, BROKER_URL=broker.url)
        posts = len(scene.recorder.received)
        scene.enqueue(8)
        wait_until(lambda: len(scene.recorder.received) > posts, 20, "POSTs")
        for proxy, is_away in zip((ledger, broker), away, strict=True):
            proxy.silent = is_away and not refuses
            if is_away and refuses:
                proxy.target = scene.stack.folder / "nobody"
                proxy.cut()
        scene.allowed += 8
        for number in signals:
            worker.process.send_signal(number)
        try:
            return worker.process.wait(REQUEST_TIMEOUT_SECONDS + 5)
        except subprocess.TimeoutExpired:
            worker.kill()
            return "does not end"


@fault(
    30,
    "The log cannot be written (a full disk, its reader gone, a pipe nobody reads): lines are lost, nothing else; a worker "
    "whose engine dies ends with 70.",
    duplicates=in_flight,
)
def log_not_writable(scene: Scene) -> Counts:
    scene.stack.add_workspace()
    problems: list[str] = []
    for bad_output in BAD_OUTPUTS:
        with bad_output() as output:
            scene.worker(ready=False, output=output)
            scene.stack.wait_ended(scene.enqueue(10))
            codes = [scene.stack.workers[-1].terminate()]
            scene.worker("loop_dies", "4", ready=False, output=output)
            scene.enqueue(10)
            codes.append(scene.stack.workers[-1].process.wait(30))
            scene.allowed += scene.leased()
        problems += [f"{bad_output.__name__}: exit codes {codes}"] * (codes != [0, 70])
    scene.worker(ready=False)
    counts = scene.counted()
    counts.problems += problems
    return counts


@dataclass(frozen=True)
class Elsewhere:
    """A fault that another test does; named here so that the catalogue is whole."""

    number: int
    promise: str
    test: str


ELSEWHERE = (
    Elsewhere(11, "`check` says what loses data, a worker warns", "tests/redis/test_checks.py"),
    Elsewhere(
        15,
        "What cannot be used is in `rejected`; an entry that kills its reader too",
        "tests/acceptance/test_crashes.py",
    ),
    Elsewhere(18, "A dripped or endless answer ends at the deadline", "tests/http/test_transport.py"),
    Elsewhere(19, "An answer is read up to its bounds", "tests/http/test_transport.py"),
    Elsewhere(20, "No head, no delivery; a whole 2xx head is one", "tests/http/test_transport.py"),
    Elsewhere(21, "TLS errors have words; nothing goes out in clear", "tests/http/test_transport.py"),
    Elsewhere(22, "DNS errors and hanging names cost only their own endpoint", "tests/http/test_names.py"),
    Elsewhere(23, "Not one byte to an address that is not allowed", "tests/http/test_ssrf.py"),
    Elsewhere(24, "A redirect is not followed", "tests/http/test_sender.py"),
    Elsewhere(25, "What each status means", "tests/http/test_sender.py"),
    Elsewhere(26, "A dead endpoint with a backlog is nobody else's problem", "tests/redis/test_outage.py"),
    Elsewhere(
        28,
        "A script that breaks off at any write is completed by its repetition",
        "tests/redis/test_broken_off.py",
    ),
    Elsewhere(
        28, "A key of a wrong type harms nobody else, and is mended", "tests/redis/test_wrong_types.py"
    ),
    Elsewhere(33, "Data of the format before is taken over", "tests/redis/test_format.py"),
    Elsewhere(
        34, "One workspace's many endpoints have its turn, not everybody's", "tests/redis/test_fairness.py"
    ),
    Elsewhere(
        37,
        "Workers, Redis and PostgreSQL killed: each callback is archived once, and known when it comes again",
        "tests/acceptance/test_archive_kills.py",
    ),
    Elsewhere(
        37,
        "An archive that is away holds up only what it alone knows; an older backup of Redis",
        "tests/acceptance/test_retired.py",
    ),
)
