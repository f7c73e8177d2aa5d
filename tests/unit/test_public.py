"""What users of the package rely on."""

import subprocess
import sys

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


def test_a_producer_loads_little() -> None:
    """Importing `dispatcher` loads neither Celery nor an HTTP client nor the other two packages."""
    code = "import dispatcher, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert set() == {"celery", "kombu", "tasks", "config", "aiohttp", "httpx", "uvloop", "typer"} & set(
        loaded
    )


def test_error_tree() -> None:
    """Every error is a DispatcherError, and is drawn in the tree at the top of its file."""
    found = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)]
    assert all(issubclass(one, errors.DispatcherError) for one in found)
    assert [] == [one.__name__ for one in found if one.__name__ not in (errors.__doc__ or "")]


def test_without_the_extra_api() -> None:
    """Without FastAPI everything but `dispatcher api` works, and that says in one line what to install."""
    code = (
        "import sys; sys.modules |= {'fastapi': None, 'uvicorn': None, 'starlette': None}; "
        "sys.argv = ['dispatcher', 'api']; import tasks.worker, tasks.wiring; from tasks.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (2, 1, "") == (done.returncode, len(done.stderr.splitlines()), done.stdout)
    assert (
        "`dispatcher api` needs the extra `api` of this package: pip install '.[api]' in a checkout"
        in done.stderr
    )
