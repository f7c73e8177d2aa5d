"""Faults that damage what is in Redis, or what our code stands on, and not our processes."""

import asyncio
import os
import resource
import shutil
import time
from functools import partial
from pathlib import Path

import redis
from aiohttp import web

from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.format import FORMATS
from dispatcher.store.keys import Keys, endpoint_id
from tests.acceptance.stack import wait_until
from tests.faults.catalogue import fault, in_flight
from tests.faults.checker import Counts
from tests.faults.scene import Scene

ROOT = Path(__file__).resolve().parents[2]
KEYS = Keys()
COMMANDS = (
    *("set", "mset", "zadd", "zrem", "hset", "hdel", "hincrby", "xack", "xdel", "xadd"),
    *("pexpire", "append", "rpush", "lrem", "del", "zremrangebyscore", "exists", "lindex"),
)
"""What scripts call; each is taken away in turn."""
MULTI, EXEC = b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$4\r\nEXEC\r\n"


@fault(
    28,
    "Each command of the scripts is forbidden for a while: what they began is completed, nothing is lost or stuck.",
    duplicates=in_flight,
)
def commands_forbidden(scene: Scene) -> Counts:
    scene.failure_rate = 0.1
    scene.stack.add_workspace()
    urls = [f"{scene.stack.listen()}/hooks" for _ in range(3)]
    worker = scene.worker()
    seconds = 0.4 if scene.short else 4.0
    for command in COMMANDS:
        scene.stack.redis.execute_command("ACL", "SETUSER", "default", f"-{command}")
        if command != "xadd":  # by which backends enqueue
            for url in urls:
                scene.enqueue(4, callbackUrl=url)
        time.sleep(seconds)
        scene.allowed += scene.leased() if command not in ("exists",) else 0
        scene.stack.redis.execute_command("ACL", "SETUSER", "default", "+@all")
        scene.enqueue(4)
        scene.tell(f"without {command}")
    counts = scene.counted()
    counts.problems += ["the worker has ended"] * (worker.process.poll() is not None)
    counts.problems += ["entries were rejected"] * bool(scene.stack.redis.exists(KEYS.rejected))
    return counts


@fault(
    28,
    "Each shared key, and each key of one endpoint, is written over with another type: mended, nothing is lost or stuck.",
)
def keys_of_another_type(scene: Scene) -> Counts:
    url = scene.stack.add_workspace()
    other = f"{scene.stack.listen()}/hooks"
    worker = scene.worker()
    scene.stack.wait_ended(scene.enqueue(3) + scene.enqueue(3, callbackUrl=other))
    endpoint = endpoint_id(EndpointName("acme", url.removesuffix("/hooks")))
    for key in _shared_keys() + [kind(endpoint) for kind in (KEYS.lane, KEYS.leased, KEYS.endpoint)]:
        scene.stack.redis.delete(key)
        scene.stack.redis.set(key, "by hand")
        scene.enqueue(5)
        scene.stack.wait_ended(scene.enqueue(5, callbackUrl=other))
        wait_until(lambda key=key: _is_mended(scene, key), 20, key)
        scene.tell(key)
    counts = scene.counted()
    counts.problems += ["the worker has ended"] * (worker.process.poll() is not None)
    counts.problems += ["nothing was said"] * (not worker.lines("redis.key_set_aside"))
    return counts


def _shared_keys() -> list[str]:
    now_ms = round(time.time() * 1000)
    stats = [KEYS.stats(unit, now_ms // ms) for unit, ms in (("hour", 3_600_000), ("day", 86_400_000))]
    return [KEYS.expiries, KEYS.schedule, KEYS.endpoints, KEYS.rejected, KEYS.rejected_counts, *stats]


def _is_mended(scene: Scene, key: str) -> bool:
    """Whether it is of another type by now, or is one that nobody has needed yet."""
    if scene.stack.redis.type(key) != b"string":
        return True
    kind = key.removeprefix(KEYS.root)
    return kind in ("rejected", "rejected-counts", "endpoints") or kind.startswith("stats:")


@fault(
    29,
    "Redis loses power within a transaction, and is restarted twice: chains heal, nothing waits behind what has ended; lost is "
    "what Redis lost.",
    duplicates=in_flight,
)
def transaction_torn(scene: Scene) -> Counts:
    async def answer(request: web.Request, _number: int) -> web.Response:
        if request.headers["webhook-id"].startswith("slow"):
            await asyncio.sleep(1.5)
            return web.Response()
        await asyncio.sleep(scene.chance.uniform(0, 0.1))
        return web.Response(status=503 if scene.chance.random() < 0.2 else 200)

    scene.answer = answer
    scene.stack.add_workspace()
    scene.worker()
    tears = 0
    for number in range(3 if scene.short else 20):
        for status in ("SENT", "DELIVERED"):
            message = {"uuid": f"m{scene.chance.random()}", "src": "A", "dest": "+1"}
            for _ in range(3):
                scene.enqueue(1, status=status, message=message)
        time.sleep(scene.chance.uniform(0.1, 0.4))
        if number % 2 == 0:  # what is torn is the claim of a callback whose POST is under way
            scene.enqueue(1, eventId=f"slow{number}")
            wait_until(partial(scene.recorder.is_under_way, f"slow{number}"), 30, "its POST")
        scene.stack.server.kill()
        tears += _tear(scene)
        scene.stack.server.start()
        scene.allowed += scene.leased()
        scene.enqueue(5)
        time.sleep(0.3)
        scene.stack.server.stop()
        scene.stack.server.start()
        scene.allowed += scene.leased() + 10  # whose ends are in what was cut off, or came between
        scene.tell(f"{tears} transactions torn")
    counts = scene.counted()
    counts.problems += ["no transaction was torn"] * (not tears)
    return counts


def _tear(scene: Scene) -> bool:
    """Cuts the append-only file off within its last transaction, at any byte."""
    file = max(scene.stack.folder.rglob("*.aof"), key=lambda path: path.stat().st_mtime)
    content = file.read_bytes()
    began = content.rfind(MULTI)
    ended = content.find(EXEC, began)
    if began < 0 or ended < 0:
        return False
    file.write_bytes(content[: scene.chance.randrange(began + len(MULTI), ended + len(EXEC))])
    return True


@fault(
    31,
    "Our code is away while a new version is installed, and there are no descriptors: no entry is rejected, all go out.",
)
def code_and_descriptors_away(scene: Scene) -> Counts:
    copy = scene.stack.folder / "copy"
    for package in ("dispatcher", "config", "tasks"):
        shutil.copytree(ROOT / package, copy / package)
    scene.stack.add_workspace()
    worker = scene.stack.start_worker(PYTHONPATH=str(copy)).wait_ready()
    for part in (Path("rules/dialects"), Path("store/lua")):
        (copy / "dispatcher" / part).rename(copy / part.name)
        scene.enqueue(10)
        time.sleep(0.3)
        (copy / part.name).rename(copy / "dispatcher" / part)
    scene.stack.redis.script_flush()
    limits = resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{worker.process.pid}/fd"))
    scene.enqueue(10, workspace="acme")
    resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE, (used - 2, limits[1]))
    for _ in range(5):
        scene.enqueue(5, callbackUrl=f"{scene.stack.listen()}/hooks")
    time.sleep(2.0 if scene.short else 10.0)
    resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE, limits)
    counts = scene.counted()
    counts.problems += ["the worker has ended"] * (worker.process.poll() is not None)
    counts.problems += ["entries were rejected"] * bool(scene.stack.redis.exists(KEYS.rejected))
    return counts


@fault(
    33, "A process of another format refuses with one line and changes nothing; those of the right one go on."
)
def another_format(scene: Scene) -> Counts:
    scene.stack.add_workspace()
    worker = scene.worker()
    scene.stack.wait_ended(scene.enqueue(5))
    worker.terminate()
    right = scene.stack.redis.get(KEYS.format)
    scene.enqueue(5)
    scene.stack.redis.set(KEYS.format, max(FORMATS) + 1)
    before = _dump(scene.stack.redis)
    stranger = scene.worker(ready=False)
    code = stranger.process.wait(30)
    refused = scene.stack.cli("workspace", "list")
    problems = [f"exit code {code}"] * (code != 78)
    problems += ["no line"] * (len(stranger.lines("worker.refused")) != 1)
    problems += [f"said {refused.stderr!r}"] * (
        refused.returncode != 1 or len(refused.stderr.splitlines()) != 1
    )
    problems += ["something was changed"] * (before != _dump(scene.stack.redis))
    scene.stack.redis.set(KEYS.format, right)
    scene.worker()
    counts = scene.counted()
    counts.problems += problems
    return counts


def _dump(client: "redis.Redis") -> dict[bytes, bytes]:
    return {key: client.dump(key) for key in client.scan_iter("dispatcher:*") if b"celery" not in key}
