"""A list of several plain servers that is not as it was is refused: nothing would be found, and nothing read."""

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis

from dispatcher.store.format import FORMAT
from tasks.actions import workspaces
from tasks.actions.workspaces import Wanted
from tasks.redis_server import RedisServer
from tests.command import command
from tests.divided import installed, stop, two_servers

P = 8
TOLD = "server number 2 of DISPATCHER_REDIS_URL holds an installation with one partition"


@pytest.fixture
def servers(server_program: str, tmp_path: Path) -> Iterator[list[RedisServer]]:
    """Two servers."""
    with two_servers(server_program, tmp_path) as started:
        yield started


def run(urls: Sequence[str], *args: str) -> "subprocess.CompletedProcess[str]":
    """A command on a list of servers; raises TimeoutExpired if it hangs."""
    return command(" ".join(urls), *args, PARTITIONS=str(P), BROKER_URL=urls[0])


def test_another_order_is_refused(servers: list[RedisServer]) -> None:
    """By commands and workers, and nothing is written; the order that it had goes on, also while a server is silent."""
    one, two = urls = [server.url for server in servers]
    with installed(urls, P) as many:
        many.do(workspaces.add, "acme", "zeckta", Wanted("https://a.example/hooks"), None)
    for args in (["stats"], ["workspace", "list"], ["check"]):
        found = run([two, one], *args)
        assert (1, True) == (found.returncode, "the list must stay" in found.stderr), found
        assert "server number 1 of" in found.stderr
        assert one not in found.stderr, "an API says it to whoever asks for its readiness"
    worker = run([two, one], "worker")
    assert 78 == worker.returncode, worker
    assert "the list must stay" in worker.stdout + worker.stderr
    assert 0 == run(urls, "stats").returncode
    stop(servers[1])
    assert "4 of 8 partitions did not answer" in run(urls, "stats").stderr
    refused = run([two, one], "stats")
    assert (1, True) == (refused.returncode, "the list must stay" in refused.stderr), refused


def test_one_server_by_two_names_goes_on(servers: list[RedisServer], tmp_path: Path) -> None:
    """`check` warns of it, and what is in use is neither taken for another order nor refused; in another order nothing moves."""
    other = tmp_path / "other.socket"
    other.symlink_to(servers[0].url.removeprefix("unix://"))
    urls = [servers[0].url, f"unix://{other}"]
    with installed(urls, P) as many:
        many.do(workspaces.add, "acme", "zeckta", Wanted("https://a.example/hooks"), None)
    for list_ in (urls, urls[::-1]):
        found = run(list_, "stats")
        assert (0, "") == (found.returncode, found.stderr), found
    assert "are one server" in run(urls, "check").stdout


def test_growth_into_another_order_is_refused(servers: list[RedisServer], redis_url: str) -> None:
    """`grow`, which writes the most, writes nothing then."""
    one, two = (server.url for server in servers)
    assert 0 == command(redis_url, "workspace", "add", "acme", "--dialect", "zeckta", "--no-check").returncode

    def grow(*urls: str) -> "subprocess.CompletedProcess[str]":
        return command(
            " ".join(urls), "grow", PARTITIONS=str(P), PREVIOUS_REDIS_URL=redis_url, BROKER_URL=redis_url
        )

    assert 0 == grow(one, two).returncode
    with redis.Redis.from_url(one) as client:
        before = sorted(client.scan_iter("dispatcher:*"))
        refused = grow(two, one)
        assert (1, True) == (refused.returncode, "the list must stay" in refused.stderr), refused
        assert before == sorted(client.scan_iter("dispatcher:*"))
    assert 0 == grow(one, two).returncode


def test_another_installation_on_a_later_server_is_refused(
    servers: list[RedisServer], tmp_path_factory: pytest.TempPathFactory, server_program: str
) -> None:
    """Where a server behind the first one holds an installation with one partition, none begins there, nor grows into it."""
    urls = [server.url for server in servers]
    with redis.Redis.from_url(urls[1]) as other, installed([urls[1]], 1) as alone:
        alone.do(workspaces.add, "other", "zeckta", Wanted("https://a.example/hooks"), None)
        other.set("dispatcher:format", FORMAT)
        before = sorted(other.keys())
        refused = run(urls, "worker")
        assert (78, True) == (refused.returncode, TOLD in refused.stderr), refused
        with RedisServer(tmp_path_factory.mktemp("previous"), executable=server_program) as previous:
            with redis.Redis.from_url(previous.url) as client:
                client.set("dispatcher:format", FORMAT)
            grown = {"PARTITIONS": str(P), "BROKER_URL": urls[0], "PREVIOUS_REDIS_URL": previous.url}
            found = command(" ".join(urls), "grow", "--replace", **grown)
        assert (1, True) == (found.returncode, TOLD in found.stderr), found
        assert before == sorted(other.keys())
