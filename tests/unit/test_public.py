"""What users of the package rely on."""

import inspect
import subprocess
import sys
from importlib.metadata import version

import pytest

import dispatcher
from dispatcher import errors


def test_public_names() -> None:
    """The names that can be imported from `dispatcher` are these."""
    assert [
        "AlreadyExists",
        "AsyncDispatcher",
        "Dispatcher",
        "DispatcherError",
        "EnqueueInterrupted",
        "InvalidInput",
        "Message",
        "MessageError",
        "NotFound",
        "RedisFull",
        "RedisUnavailable",
        "SignatureInvalid",
        "Status",
        "StatusChange",
        "StillWaiting",
        "verify",
    ] == dispatcher.__all__
    assert all(hasattr(dispatcher, name) for name in dispatcher.__all__)


HEAVY = {
    *("celery", "kombu", "aiohttp", "httpx", "uvloop", "typer", "rich", "structlog", "tenacity"),
    *("prometheus_client", "redis", "hiredis", "asyncio", "cryptography", "pydantic_settings", "idna", "ssl"),
    *("email", "importlib.metadata", "msgspec", "tasks", "config"),
}
"""What takes tens of milliseconds to import, or is none of a producer's packages."""


def loaded(code: str) -> set[str]:
    """The modules that are there after some code, in a Python of its own."""
    code = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", _PATH + code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


_PATH = f"import sys; sys.path += {sys.path!r}\n"
"""In place of what `site` does, which imports things of its own."""


def test_a_producer_loads_little() -> None:
    """Importing what producers use loads pydantic, whose models are not built yet, and nothing else that takes long."""
    before = loaded("from pydantic import BaseModel")
    names = loaded("from dispatcher import AsyncDispatcher, Dispatcher, Message, MessageError, StatusChange")
    assert set() == HEAVY & names
    ours = {name for name in names - before if name.startswith("dispatcher")}
    assert {"dispatcher.model", "dispatcher.producer"} < ours
    assert not ours & {
        "dispatcher.store.connection",
        "dispatcher.rules.addresses",
        "dispatcher.rules.callback",
    }


def test_the_package_alone_loads_nothing() -> None:
    """`import dispatcher` costs next to nothing; each name comes when it is asked for, and what customers use without pydantic."""
    assert {"dispatcher"} == {name for name in loaded("import dispatcher") if name.startswith("dispatcher")}
    assert "pydantic" not in loaded("from dispatcher import InvalidInput, verify")
    assert set(dispatcher.__all__) | {"__version__"} <= set(dir(dispatcher))


def test_a_producer_needs_redis_pydantic_and_msgspec() -> None:
    """A client is made, and a change checked, without hiredis, idna and whatever else a worker needs."""
    absent = "sys.modules |= dict.fromkeys(('hiredis', 'idna', 'celery', 'httpx', 'aiohttp', 'structlog', 'typer', 'uvloop'))"
    code = f"""
import sys; {absent}
from dispatcher import AsyncDispatcher, Dispatcher, RedisUnavailable
Dispatcher.from_url("redis://127.0.0.1:1"), AsyncDispatcher.from_url("redis://127.0.0.1:1")
change = dict(workspace="a", status="SENT", timestamp="2026-06-09T13:00:00Z", message=dict(uuid="m", src="a", dest="b"))
try:
    Dispatcher.from_url("redis://127.0.0.1:1").enqueue(change, change | {{"callbackUrl": "https://bücher.example/"}})
except RedisUnavailable:
    sys.modules["refused_by_redis_alone"] = None
"""
    assert "refused_by_redis_alone" in loaded(code)


def test_many_threads_may_come_first() -> None:
    """A model is built when it is first used, by one of the threads that do: as in a web server that has just started."""
    code = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from dispatcher import StatusChange
raw = '{"workspace":"a","status":"SENT","timestamp":"2026-06-09T13:00:00Z","message":{"uuid":"m","src":"a","dest":"b"}}'
sys.setswitchinterval(1e-6)
together = Barrier(8)
def make(number):
    together.wait()
    return StatusChange.from_json(raw).replace(ttl_seconds=number).to_json()
with ThreadPoolExecutor(8) as pool:
    assert 8 == len(set(pool.map(make, range(1, 9))))
"""
    assert "pydantic" in loaded(code)


def test_both_dispatchers_are_alike() -> None:
    """Dispatcher and AsyncDispatcher have the same methods with the same parameters and results."""
    for_both = {name for name in vars(dispatcher.Dispatcher) if not name.startswith("_")}
    assert for_both | {"aclose"} == {name for name in vars(dispatcher.AsyncDispatcher) if name[0] != "_"}
    for name in for_both:
        ours, theirs = getattr(dispatcher.Dispatcher, name), getattr(dispatcher.AsyncDispatcher, name)
        assert inspect.signature(ours) == inspect.signature(theirs)
        assert inspect.iscoroutinefunction(theirs) is (name != "from_url")


def test_version() -> None:
    """The version is that of what is installed; another name is missing as it is from any module."""
    assert version("callback-dispatcher") == dispatcher.__version__
    assert not hasattr(dispatcher, "no_such_name")


def test_error_tree() -> None:
    """Every error is a DispatcherError, and is drawn in the tree at the top of its file."""
    found = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)]
    assert all(issubclass(one, errors.DispatcherError) for one in found)
    assert [] == [one.__name__ for one in found if one.__name__ not in (errors.__doc__ or "")]


def test_without_the_extra_api() -> None:
    """Without FastAPI everything but `dispatcher api` works, and that says in one line what to install."""
    code = (
        "import sys; sys.modules |= {'fastapi': None, 'uvicorn': None, 'starlette': None}; "
        "sys.argv = ['dispatcher', 'api']; import tasks.worker, tasks.wiring; from tasks.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (2, 1, "") == (done.returncode, len(done.stderr.splitlines()), done.stdout)
    assert (
        "`dispatcher api` needs the extra `api` of this package: pip install '.[api]' in a checkout"
        in done.stderr
    )


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("listen", "aiohttp"),
        ("demo", "aiohttp"),
        ("listen", "typer"),
        ("demo", "typer"),
        ("api", "typer"),
        ("console", "typer"),
    ],
)
def test_without_an_extra(command: str, missing: str) -> None:
    """A command with an extra of its own names that at once, whatever is missing; workers need neither of these."""
    code = (
        f"import sys; sys.modules[{missing!r}] = None; import tasks.worker, tasks.engine_wiring; "
        f"sys.argv = ['dispatcher', {command!r}]; from dispatcher.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (2, 1, "") == (done.returncode, len(done.stderr.splitlines()), done.stdout)
    assert (
        f"`dispatcher {command}` needs the extra `{command}` of this package: pip install '.[{command}]' in a checkout"
        in done.stderr
    )
