"""What a producer refuses when it is made."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import AuthenticationError, NoPermissionError

from config.settings import Settings
from dispatcher import AsyncDispatcher, Dispatcher, EnqueueInterrupted, InvalidInput
from dispatcher.given import looked_at
from dispatcher.store.connection import connect, connect_async, translate

URL = "redis://127.0.0.1:1/0"
MAKERS: list[Callable[[Any], object]] = [
    lambda prefix: Dispatcher.from_url(URL, key_prefix=prefix),
    lambda prefix: AsyncDispatcher.from_url(URL, key_prefix=prefix),
    lambda prefix: Dispatcher(connect(URL), URL, prefix),
    lambda prefix: AsyncDispatcher(connect_async(URL), URL, prefix),
]
WRONG_PREFIXES = ["", None, " ", "a b", "{a}", "a:b", "a\n", "a" * 33, b"dispatcher", 7]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("prefix", WRONG_PREFIXES)
def test_prefixes_that_no_worker_has(make: Callable[[Any], object], prefix: object) -> None:
    """A prefix that the setting refuses is refused by both producers: what is enqueued with it would go nowhere."""
    with pytest.raises(
        InvalidInput, match="give the workers' DISPATCHER_KEY_PREFIX, which is 1 to 32 letters"
    ):
        make(prefix)
    if isinstance(prefix, str):
        with pytest.raises(ValueError, match="key_prefix"):
            Settings(key_prefix=prefix, _env_file=None)


@pytest.mark.parametrize("prefix", ["dispatcher", "a", "A-b_c.9", "a" * 32])
def test_prefixes_that_workers_have(prefix: str) -> None:
    """A prefix that the setting takes is taken."""
    for make in MAKERS:
        make(prefix)
    assert prefix == Settings(key_prefix=prefix, _env_file=None).key_prefix


@pytest.mark.parametrize("given", [URL, URL.encode(), None])
def test_a_url_is_no_client(given: Any) -> None:
    """Who gives the constructor a URL is told of from_url; so is who mixes up the two kinds of client."""
    with pytest.raises(
        InvalidInput, match=r"^Dispatcher takes a redis\.Redis; Dispatcher\.from_url takes a URL"
    ):
        Dispatcher(given)
    with pytest.raises(
        InvalidInput, match=r"^AsyncDispatcher takes a redis\.asyncio\.Redis; AsyncDispatcher\."
    ):
        AsyncDispatcher(given)
    with pytest.raises(InvalidInput, match=r"^Dispatcher takes"):
        Dispatcher(connect_async(URL))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"^AsyncDispatcher takes"):
        AsyncDispatcher(connect(URL))  # type: ignore[arg-type]


def test_text_of_no_connection() -> None:
    """Without Redis the text is whole sentences, and says that nothing is on the queue for certain."""
    change = {"workspace": "a", "status": "SENT", "timestamp": "2026-06-09T13:00:00Z"}
    change |= {"message": {"uuid": "m", "src": "a", "dest": "b"}}  # type: ignore[dict-item]
    text = "is DISPATCHER_REDIS_URL right? Of what was to be enqueued none is confirmed"
    with pytest.raises(EnqueueInterrupted, match=text.replace("?", r"\?")):
        Dispatcher.from_url(URL).enqueue(change)
    with pytest.raises(EnqueueInterrupted, match=text.replace("?", r"\?")):
        asyncio.run(AsyncDispatcher.from_url(URL).enqueue(change))


def test_a_right_that_lacks_is_no_wrong_password() -> None:
    """The user and the password are right: what helps is the user of the process's role."""
    said = str(
        translate(NoPermissionError("NOPERM this user has no permissions to run the 'get' command"), URL)
    )
    assert "password in the URL" not in said
    assert "docs/operations.md has a user for each role" in said


def test_very_many_unknown_workspaces() -> None:
    """Each status change is looked up among them at once, and not by going through a list."""

    class Names(list[str]):
        def __contains__(self, name: object) -> bool:
            raise AssertionError(name)

    change = {"status": "SENT", "timestamp": "2026-06-09T13:00:00Z"}
    change |= {"message": {"uuid": "m", "src": "a", "dest": "b"}}  # type: ignore[dict-item]
    given = looked_at([change | {"workspace": name} for name in ("a", "b", "c")])
    given.take_out(Names(["b", "d"]))
    assert ["a", "c"] == list(given.workspaces)


def test_a_client_without_a_url() -> None:
    """An error text says that the client alone knows where Redis is."""
    change = {"workspace": "a", "status": "SENT", "timestamp": "2026-06-09T13:00:00Z"}
    change |= {"message": {"uuid": "m", "src": "a", "dest": "b"}}  # type: ignore[dict-item]
    with pytest.raises(EnqueueInterrupted, match=r"^Redis at its client's address is not reachable"):
        Dispatcher(connect(URL)).enqueue(change)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("invalid username-password pair or user is disabled.", "user is disabled. Check user and password"),
        ("Is the password correct?.", "Is the password correct? Check user and password"),
        ("NOAUTH Authentication required", "NOAUTH Authentication required. Check user and password"),
    ],
)
def test_redis_ends_its_own_sentences(said: str, shown: str) -> None:
    """What Redis says is followed by one full stop, whether it has one or not."""
    assert shown in str(translate(AuthenticationError(said), URL))
