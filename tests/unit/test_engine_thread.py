"""How a thread of the Celery pool waits for the engine's thread."""

import threading
from concurrent.futures import Future

import pytest

from tasks.engine_thread import wait_for


def test_an_error_of_the_engine() -> None:
    """What the engine raises is raised where the hints were handed over: Celery logs it."""
    future: Future[None] = Future()
    future.set_exception(KeyError("bug"))
    with pytest.raises(KeyError, match="bug"):
        wait_for(future, threading.current_thread())


def test_an_engine_that_ends() -> None:
    """Hints that an engine dropped at its end are no error, whether it had begun with them or not."""
    ended = threading.Thread(target=str)
    ended.start()
    ended.join()
    wait_for(Future(), ended)
    cancelled: Future[None] = Future()
    cancelled.cancel()
    wait_for(cancelled, threading.current_thread())
