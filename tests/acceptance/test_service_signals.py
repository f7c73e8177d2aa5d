"""What signals, Celery's options and the form of the logs do to a worker, the API and the exporter."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from aiohttp import web

from tests.acceptance.stack import CELERY, CLI, Stack, Worker, free_port, wait_until

WORKER = (*CLI, "worker")


def start(stack: Stack, what: str, **settings: str) -> Worker:
    """A worker, the API, the exporter or the archiver, once it runs."""
    match what:
        case "worker":
            return stack.start_worker(*WORKER, **settings).wait_ready()
        case "celery":
            return stack.start_worker(*CELERY, **settings).wait_ready()
        case "exporter":
            service, says = stack.start_worker(*CLI, "exporter", "--port", "0", **settings), "metrics at"
        case "archiver":
            url = f"sqlite:///{stack.folder}/archive.db"
            service = stack.start_worker(*CLI, "archiver", DISPATCHER_ARCHIVE_URL=url, **settings)
            says = "taking what ends"
        case _:
            service = stack.start_worker(*CLI, *what.split(), "--port", str(free_port()), **settings)
            says = "startup complete"
    wait_until(lambda: says in service.log, what=what)
    return service


@pytest.mark.parametrize("what", ["worker", "exporter", "api"])
def test_a_redis_that_refuses_us(stack: Stack, what: str) -> None:
    """A service that Redis refuses logs the reason when it starts, and that it goes on."""
    stack.redis.config_set("requirepass", "hush")
    try:
        ports = [] if what == "worker" else ["--port", str(free_port())]
        service = stack.start_worker(*CLI, what, *ports)
        wait_until(lambda: service.lines("redis.away"))
        [line] = service.lines("redis.away")
        assert "refuses us: Authentication required. Check user and password" in line["problem"]
    finally:
        stack.redis.config_set("requirepass", "")
    wait_until(lambda: service.lines("redis.back"))
    assert 1 == len(service.lines("redis.away"))


@pytest.mark.parametrize("what", ["worker", "celery", "exporter", "archiver", "api", "api --workers 2"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_exit_codes(stack: Stack, what: str, number: signal.Signals, code: int) -> None:
    """TERM ends every service with exit code 0, Ctrl-C with 130; and no traceback is told."""
    service = start(stack, what)
    os.killpg(service.process.pid, number) if number == signal.SIGINT else service.process.send_signal(number)
    assert code == service.process.wait(30)
    assert "Traceback" not in service.log


SIGNAL_AT = """
import os, runpy, sys
from importlib import import_module
number, place, mark, *words = sys.argv[1:]
module, _, path = place.partition(":")
owner, (*outer, name) = import_module(module), path.split(".")
for one in outer:
    owner = getattr(owner, one)
real = getattr(owner, name)
def hooked(*args, **named):
    if not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), int(number))
    return real(*args, **named)
setattr(owner, name, hooked)
sys.argv = ["dispatcher", *words]
runpy.run_module("tasks", run_name="__main__", alter_sys=True)
"""
"""Runs `dispatcher`, which gets a signal when it calls a function for the first time, of this process or the one it becomes."""
PLACES = {
    "api": (
        *("fastapi:FastAPI.__init__", "socket:create_server", "uvicorn:Config.__init__"),
        *("uvicorn:Server.__init__", "uvicorn:Config.get_loop_factory", "uvicorn:Server.capture_signals"),
        *("uvicorn:Server.startup", "uvicorn:Server.main_loop"),
    ),
    "api --workers 2": (
        *("socket:create_server", "uvicorn:Config.__init__", "uvicorn:Config.bind_socket"),
        *("uvicorn.supervisors:Multiprocess.init_processes", "uvicorn.supervisors:Multiprocess.run"),
        "uvicorn.supervisors:Multiprocess.keep_subprocess_alive",
    ),
    "exporter": ("config.logs:guard_standard_streams", "asyncio:run", "tasks.metrics_server:make_server"),
    "worker": (
        *("config.logs:guard_standard_streams", "celery.apps.worker:Worker.on_start"),
        *("celery.apps.worker:install_rdb_handler", "tasks.worker:EngineStep.start"),
        *("celery.worker.consumer:Consumer.start", "celery.apps.worker:Worker.on_consumer_ready"),
    ),
}
"""Functions that a service calls while it starts: before its handlers are set, between, and after."""


@pytest.mark.parametrize(
    ("what", "place"), [(what, one) for what, places in PLACES.items() for one in places]
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_it_starts(stack: Stack, what: str, place: str, number: signal.Signals) -> None:
    """Wherever in its start a service is: TERM ends it with exit code 0, Ctrl-C with 130, HUP ends it or starts it anew."""
    mark = stack.folder / "signal-sent"
    options = ("--port", str(free_port())) if what != "worker" else ()
    service = stack.start_worker(
        CLI[0], "-c", SIGNAL_AT, str(int(number)), place, str(mark), *what.split(), *options
    )
    if number == signal.SIGHUP and what in ("worker", "api --workers 2"):
        says = "ready." if what == "worker" else "startup complete"
        before = 1 if place.endswith("on_consumer_ready") else 0  # it says so, and starts anew
        ended = lambda: service.process.poll() is not None  # noqa: E731
        anew = lambda: mark.exists() and service.log.count(says) > before  # noqa: E731
        wait_until(lambda: ended() or anew(), what="ended, or started anew")
        if not ended():
            assert 0 == service.terminate()
        else:
            assert -signal.SIGHUP == service.process.returncode
    else:
        expected = {signal.SIGTERM: 0, signal.SIGINT: 130, signal.SIGHUP: -signal.SIGHUP}[number]
        assert expected == service.process.wait(30)
    assert mark.exists()
    assert "Traceback" not in service.log


@pytest.mark.parametrize("what", ["worker", "exporter", "api", "api --workers 2"])
def test_a_signal_at_any_moment(stack: Stack, what: str) -> None:
    """TERM and Ctrl-C end a service however soon they come; before Python runs our code, by the signal itself."""
    options = ("--port", str(free_port())) if what != "worker" else ()
    for step in range(12):
        number = (signal.SIGTERM, signal.SIGINT)[step % 2]
        service = stack.start_worker(*CLI, *what.split(), *options)
        time.sleep(step * 0.15)
        service.process.send_signal(number)
        assert service.process.wait(30) in ((0, -number) if number == signal.SIGTERM else (130, -number))


def test_hangup_starts_a_worker_anew(stack: Stack) -> None:
    """HUP: what is in flight ends and is recorded, then the same process goes on with the settings of .env as they are now."""
    asked: list[int] = []

    async def answer(_request: web.Request, _number: int) -> web.Response:
        asked.append(1)
        await asyncio.sleep(0.5)
        return web.Response(text="ok")

    stack.answer = answer
    stack.add_workspace()
    env_file = stack.folder / ".env"
    env_file.write_text("DISPATCHER_LOG_LEVEL=INFO\n")
    worker = start(stack, "worker")
    event_ids = stack.enqueue(40)
    wait_until(lambda: len(asked) > 1, what="callbacks in flight")
    env_file.write_text("DISPATCHER_LOG_LEVEL=DEBUG\n")
    worker.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(worker.lines("engine.started")) == 2, what="the worker anew")
    assert {"delivered": 40} == stack.wait_ended(event_ids)
    assert len(asked) == 40, "none was sent twice"
    (restarts,) = worker.lines("worker.restarts")
    assert "SIGHUP" == restarts["reason"]
    assert worker.process.poll() is None
    wait_until(lambda: '"level":"debug"' in worker.log, what="the new LOG_LEVEL")
    worker.process.send_signal(signal.SIGHUP)  # and once more: what was started anew is no different
    wait_until(lambda: len(worker.lines("engine.started")) == 3, what="the worker anew")
    wait_until(lambda: worker.log.count(" ready.") == 3)
    assert 0 == worker.terminate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_end_after_hangup(stack: Stack, number: int, code: int) -> None:
    """Who is told to start anew, and then to end before it has, ends."""
    asked: list[int] = []

    async def answer(_request: web.Request, _number: int) -> web.Response:
        asked.append(1)
        await asyncio.sleep(1)
        return web.Response(text="ok")

    stack.answer = answer
    stack.add_workspace()
    worker = start(stack, "worker")
    event_ids = stack.enqueue(1)
    wait_until(lambda: asked, what="a callback in flight")
    worker.process.send_signal(signal.SIGHUP)
    worker.process.send_signal(number)  # of those that wait Python takes the lower number first: HUP
    assert code == worker.process.wait(30)
    assert [] == worker.lines("worker.restarts")
    assert "delivered" == stack.state(event_ids[0])


def test_hangup_that_is_ignored(stack: Stack) -> None:
    """Behind nohup a worker neither ends nor starts anew."""
    worker = stack.start_worker("nohup", *WORKER).wait_ready()
    worker.process.send_signal(signal.SIGHUP)
    stack.add_workspace()
    assert {"delivered": 3} == stack.wait_ended(stack.enqueue(3))
    assert 1 == len(worker.lines("engine.started"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--loglevel=INFO"], "DISPATCHER_LOG_LEVEL"),
        (["-l", "INFO"], "DISPATCHER_LOG_LEVEL"),
        (["-lINFO"], "DISPATCHER_LOG_LEVEL"),
        (["--logfile", "x.log"], "standard error"),
        (["-f", "x.log"], "standard error"),
        (["-D"], "systemd"),
        (["-P", "prefork"], "pool `threads`"),
        (["--pool=solo"], "pool `threads`"),
        (["--concurrency", "8"], "DISPATCHER_MAX_IN_FLIGHT"),
        (["-c8"], "DISPATCHER_MAX_IN_FLIGHT"),
        (["--autoscale=10,1"], "DISPATCHER_MAX_IN_FLIGHT"),
        (["-Q", "mine"], "DISPATCHER_KEY_PREFIX"),
        (["-B"], "nothing is scheduled"),
        (["--purge"], "`dispatcher purge`"),
        (["--max-tasks-per-child=1"], "prefork"),
        (["--pidfile", "w.pid", "--time-limit", "3"], "DISPATCHER_REQUEST_TIMEOUT_SECONDS"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_celerys_options_that_are_refused(stack: Stack, options: list[str], says: str) -> None:
    """Celery's options that would not do what they say are refused in one line that names what does."""
    done = stack.cli("worker", *options)
    assert (2, 1, True) == (done.returncode, len(done.stderr.splitlines()), says in done.stderr)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (["--nosuch"], "--nosuch"),
        (["stray"], "takes options only"),
        (["-n"], "-n"),
        (["--log", "x"], "--log"),
    ],
)
def test_what_celery_does_not_know(stack: Stack, option: list[str], says: str) -> None:
    """One line says what is wrong with an argument of a worker."""
    done = stack.cli("worker", *option)
    assert (2, 1) == (done.returncode, len(done.stderr.splitlines())), done.stderr
    assert says in done.stderr


def test_detached_by_celery(stack: Stack) -> None:
    """`celery -A tasks worker --detach` is refused before there is a process that nobody sees."""
    worker = stack.start_worker(*CELERY, "--detach")
    assert 2 == worker.process.wait(30)
    assert "systemd" in worker.log


def test_refused_by_celery_itself(stack: Stack) -> None:
    """The same for `celery -A tasks worker`."""
    worker = stack.start_worker(*CELERY, "--logfile=x.log")
    assert 2 == worker.process.wait(30)
    assert "standard error" in worker.log
    assert not (stack.folder / "x.log").exists()


def test_celerys_options_that_work(stack: Stack) -> None:
    """A name, a file with the process's number, the one pool that there is."""
    stack.add_workspace()
    worker = stack.start_worker(
        *WORKER, "-n", "one@%h", "--pidfile", "w.pid", "--pool", "threads"
    ).wait_ready()
    assert worker.process.pid == int((stack.folder / "w.pid").read_text())
    worker.process.send_signal(signal.SIGHUP)
    wait_until(lambda: worker.log.count(" ready.") == 2, what="the worker anew")
    assert worker.process.pid == int((stack.folder / "w.pid").read_text())
    assert {"delivered": 2} == stack.wait_ended(stack.enqueue(2))
    assert 0 == worker.terminate()
    assert not (stack.folder / "w.pid").exists()


def all_json(service: Worker) -> list[dict[str, object]]:
    """Its lines, each of which is JSON with an event and a level."""
    lines = [json.loads(line) for line in service.log.splitlines()]
    assert lines
    assert [] == [line for line in lines if not {"event", "level"} <= line.keys()]
    return lines


@pytest.mark.parametrize("what", ["worker", "celery", "exporter", "api", "api --workers 2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_json_logs(stack: Stack, what: str, number: signal.Signals) -> None:
    """Each line of a service's life is JSON: its start, an outage of Redis, a stack dump, its end."""
    if number == signal.SIGQUIT and what in ("exporter", "api", "api --workers 2"):
        pytest.skip("it has no handler for QUIT")
    stack.add_workspace()
    service = start(stack, what)
    stack.enqueue(2)
    redis = stack.redis_pid
    os.kill(redis, signal.SIGSTOP)
    try:
        if what in ("worker", "celery"):
            wait_until(lambda: service.lines("redis.away"), what="Redis away")
            service.process.send_signal(signal.SIGUSR1)  # Celery prints all stacks
    finally:
        os.kill(redis, signal.SIGCONT)
    service.process.send_signal(number)
    service.process.wait(40)
    all_json(service)


@pytest.mark.parametrize(
    "what", [WORKER, CELERY, (*CLI, "api"), (*CLI, "exporter")], ids=lambda what: " ".join(what[1:])
)
@pytest.mark.parametrize(
    "settings",
    [
        {"DISPATCHER_MAX_ATTEMPTS": "many"},
        {"DISPATCHER_MAX_ATEMPTS": "5"},
        {"DISPATCHER_BROKER_URL": "foo://x"},
    ],
)
def test_a_wrong_setting_is_json_too(stack: Stack, what: tuple[str, ...], settings: dict[str, str]) -> None:
    """What is wrong with the settings is one line of JSON, where logs are JSON."""
    service = stack.start_worker(*what, **settings)
    assert service.process.wait(30) > 0
    (line,) = all_json(service)
    assert next(iter(settings)) in json.dumps(line)


CRASH = """
import threading, warnings
def broken():
    raise RuntimeError("hush")
from config import logs
logs.configure("INFO", "json")
logs.guard_standard_streams()
warnings.warn("careful\\nnow")
thread = threading.Thread(target=broken, name="poor")
thread.start()
thread.join()
print("printed\\nin two")
raise RuntimeError("the end")
"""


def test_exceptions_and_warnings_are_json(tmp_path: Path) -> None:
    """An exception that nobody caught, in a thread or not, is one line; so is a warning."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [CLI[0], "-c", CRASH], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert 1 == done.returncode
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert ["thread.died", "process.died"] == [line["event"] for line in lines[1:]]
    assert "careful\nnow" in lines[0]["event"]
    assert "RuntimeError: the end" in lines[2]["exception"]
    assert ["printed", "in two"] == [json.loads(line)["event"] for line in done.stdout.splitlines()]


def status(port: int, path: str) -> int:
    """What a health path answers, which nobody may keep; 0 where nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
    except OSError:
        return 0
    finally:
        connection.close()
    assert "no-store" == answer.headers["Cache-Control"]
    return answer.status


@pytest.mark.parametrize("what", ["worker", "exporter", "api"])
def test_health(stack: Stack, what: str) -> None:
    """A service lives while Redis hangs, is not ready then, and is ready again when Redis is back."""
    port = free_port()
    command = (*WORKER,) if what == "worker" else (*CLI, what, "--port", str(port))
    service = stack.start_worker(*command, DISPATCHER_METRICS_PORT=str(port))
    wait_until(lambda: status(port, "/readyz") == 200, what="ready")
    redis = stack.redis_pid
    os.kill(redis, signal.SIGSTOP)
    try:
        wait_until(lambda: status(port, "/readyz") == 503, what="not ready")
        assert 200 == status(port, "/healthz")
    finally:
        os.kill(redis, signal.SIGCONT)
    wait_until(lambda: status(port, "/readyz") == 200, what="ready again")
    assert 0 == service.terminate()


def test_a_worker_that_ends_is_not_ready(stack: Stack) -> None:
    """From TERM on a worker is not ready, while what is in flight ends."""
    done, asked = asyncio.Event(), threading.Event()

    async def answer(_request: web.Request, _number: int) -> web.Response:
        asked.set()
        await asyncio.wait_for(done.wait(), 20)
        return web.Response(text="ok")

    stack.answer = answer
    stack.add_workspace()
    port = free_port()
    worker = stack.start_worker(
        *WORKER,
        DISPATCHER_METRICS_PORT=str(port),
        DISPATCHER_REQUEST_TIMEOUT_SECONDS="30",
        DISPATCHER_LEASE_SECONDS="35",
    ).wait_ready()
    stack.enqueue(1)
    wait_until(asked.is_set, what="a POST")
    wait_until(lambda: status(port, "/readyz") == 200, what="ready")
    worker.process.terminate()
    wait_until(lambda: status(port, "/readyz") == 503, what="not ready any more")
    assert 200 == status(port, "/healthz")
    assert 0 == worker.process.wait(30)
