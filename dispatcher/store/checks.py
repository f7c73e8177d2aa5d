"""Checks a Redis: could it lose or refuse data, and who could read it? Writes nothing."""

import re
import time
from statistics import median
from typing import Any

import redis.asyncio
from redis.exceptions import NoPermissionError, ResponseError

from dispatcher.store.check_finding import Finding, Verdict, not_allowed
from dispatcher.store.cluster_checks import FULL_COVERAGE, is_cluster, look_at_cluster, server_of
from dispatcher.store.connection import translated
from dispatcher.store.connection_security import access, encryption
from dispatcher.store.redis_url import RedisUrl
from dispatcher.store.topology import Topology

MIN_VERSION = (6, 2)
LOOKS = 9
MAX_SKEW_SECONDS = 2.0
SLOW_CALL_SECONDS = 0.005


async def look_at_redis(client: "redis.asyncio.Redis", url: str = "") -> list[Finding]:
    """Checks version, persistence, disk, eviction, access, clock, latency and memory, and what a cluster's node needs.

    Raises RedisUnavailable.
    """
    config: dict[str, Any] = {}
    with translated(url):
        info = await _allowed(client.info("everything"))
        names = ["appendfsync", "bind", "protected-mode", "requirepass", *[FULL_COVERAGE] * is_cluster(info)]
        for name in names:  # Redis 6.2 takes one at a time
            config |= await _allowed(client.config_get(name))
        user = await _allowed(client.acl_getuser("default"))
        clock, latency = await _clock_and_latency(client)
    return [
        _version(info),
        _persistence(info, config),
        _disk(info),
        _loaded(info),
        _eviction(info),
        access(config, user),
        *_own_encryption(url),
        clock,
        latency,
        _memory(info),
        *look_at_cluster(info, config),
    ]


async def run_id(client: "redis.asyncio.Redis", url: str = "") -> str:
    """What a server calls itself, as no other does; empty if this user may not ask. Raises RedisUnavailable."""
    with translated(url):
        return str((await _allowed(client.info("server"))).get("run_id", ""))


async def _clock_and_latency(client: Any) -> tuple[Finding, Finding]:
    """Redis's clock against this machine's, and the duration of a call: medians of LOOKS calls."""
    took, ahead = [], []
    for _ in range(LOOKS):
        began, here = time.monotonic(), time.time()
        try:
            seconds, microseconds = await client.time()
        except NoPermissionError:
            advice = "let this user run TIME"
            return not_allowed("clock", advice, "TIME is"), not_allowed("latency", advice, "TIME is")
        took.append(time.monotonic() - began)
        ahead.append(seconds + microseconds / 1e6 - here - took[-1] / 2)
    return _clock(median(ahead)), _latency(median(took))


def _clock(ahead: float) -> Finding:
    shown = f"Redis's clock is {abs(ahead):.2f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    if abs(ahead) < MAX_SKEW_SECONDS:
        return Finding("clock", Verdict.OK, shown)
    advice = "have both follow NTP: callbacks carry Redis's time, and receivers refuse what is 5 minutes off"
    return Finding("clock", Verdict.BAD if abs(ahead) > 60 else Verdict.WARNING, shown, advice)


def _latency(seconds: float) -> Finding:
    shown = f"a call takes {seconds * 1000:.1f} ms"
    if seconds < SLOW_CALL_SECONDS:
        return Finding("latency", Verdict.OK, shown)
    advice = "bring workers and Redis nearer together: each callback waits for some three calls"
    return Finding("latency", Verdict.WARNING, shown, advice)


def _memory(info: dict[str, Any]) -> Finding:
    databases = [db for name, db in info.items() if re.fullmatch(r"db\d+", name)]  # 8.2 has db0_distrib_…
    keys = sum(db["keys"] for db in databases if isinstance(db, dict))
    used, most = info.get("used_memory"), info.get("maxmemory")
    if used is None or most is None:
        return not_allowed("memory", "set a maxmemory")
    shown = f"{keys:,} key{'' if keys == 1 else 's'}, {used / 2**20:,.0f} MiB used"
    if not most:
        advice = "set maxmemory: without it the machine's memory ends first, and with it Redis"
        return Finding("memory", Verdict.WARNING, f"{shown}, no maxmemory", advice)
    shown += f" of {most / 2**20:,.0f}"
    if used < 0.85 * most:
        return Finding("memory", Verdict.OK, shown)
    advice = "raise maxmemory, or see what waits: dispatcher endpoint list"
    return Finding("memory", Verdict.WARNING, shown, advice)


async def _allowed(call: Any) -> dict[str, Any]:
    """The reply; empty if this user or service may not ask."""
    try:
        return dict(await call)
    except (NoPermissionError, ResponseError) as error:
        if isinstance(error, NoPermissionError) or "unknown command" in str(error).lower():
            return {}
        raise


def _version(info: dict[str, Any]) -> Finding:
    name, version = server_of(info)
    if not version:
        return not_allowed("version", f"make sure it is {_dotted(MIN_VERSION)} or newer")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < MIN_VERSION:
        advice = f"use Redis {_dotted(MIN_VERSION)} or newer, or Valkey"
        return Finding("version", Verdict.BAD, f"{name} {version}", advice)
    return Finding("version", Verdict.OK, f"{name} {version}")


def _persistence(info: dict[str, Any], config: dict[str, Any]) -> Finding:
    if "aof_enabled" not in info:
        return not_allowed("persistence", "set appendonly yes, appendfsync everysec")
    if not info["aof_enabled"]:
        return Finding(
            "persistence",
            Verdict.BAD,
            "no append-only file: a restart of Redis loses accepted callbacks",
            "set appendonly yes, appendfsync everysec",
        )
    how = config.get("appendfsync")
    if how is None:
        return Finding(
            "persistence",
            Verdict.UNKNOWN,
            "append-only file, appendfsync unknown (CONFIG is forbidden)",
            "make sure that it is everysec or always",
        )
    if how == "no":
        return Finding(
            "persistence", Verdict.BAD, "append-only file, but appendfsync no", "set appendfsync everysec"
        )
    return Finding("persistence", Verdict.OK, f"append-only file, fsync {how}")


_DISK_PROBLEMS = (
    (
        "aof_last_write_status",
        Verdict.BAD,
        "Redis cannot write its append-only file, most often because its disk is full: it refuses all writes",
        "make room on Redis's disk (its log names the error); it goes on by itself within a second",
    ),
    (
        "rdb_last_bgsave_status",
        Verdict.BAD,
        "Redis could not save its last snapshot (RDB), most often because its disk is full: unless "
        "stop-writes-on-bgsave-error is no, it refuses all writes",
        "make room on Redis's disk (its log names the error), then redis-cli BGSAVE; without a need for snapshots: "
        'CONFIG SET save ""',
    ),
    (
        "aof_last_bgrewrite_status",
        Verdict.WARNING,
        "Redis could not rewrite its append-only file, which grows until it can",
        "make room on Redis's disk and in its memory (its log names the error), then redis-cli BGREWRITEAOF",
    ),
)
"""Worst first: a field of INFO and the finding if it is not `ok`. `aof` fields count only with an append-only file."""


def _disk(info: dict[str, Any]) -> Finding:
    """Whether Redis can write its files. If not, it refuses every write (MISCONF): nothing is accepted or sent."""
    if "aof_last_write_status" not in info and "rdb_last_bgsave_status" not in info:
        return not_allowed("disk", "watch Redis's disk: a full one stops all")
    for name, verdict, detail, advice in _DISK_PROBLEMS:
        if info.get(name, "ok") != "ok" and (info.get("aof_enabled") or not name.startswith("aof")):
            return Finding("disk", verdict, detail, advice)
    return Finding("disk", Verdict.OK, "Redis writes its files")


def _loaded(info: dict[str, Any]) -> Finding:
    """Whether Redis runs on an append-only file that it loaded and has not rewritten since.

    After a power cut in the middle of a transaction, Redis truncates the file inside that transaction. What it appends
    then counts as part of the transaction at the next load (redis-server's loadAppendOnlyFile). A rewrite ends that.
    """
    if "aof_enabled" not in info or "aof_base_size" not in info:
        advice = "after a power cut: redis-cli BGREWRITEAOF"
        return Finding("load", Verdict.UNKNOWN, "INFO is forbidden, or there is no append-only file", advice)
    if not info["aof_base_size"] or info.get("aof_last_rewrite_time_sec", -1) != -1:
        return Finding("load", Verdict.OK, "the append-only file is whole")
    hours = info.get("uptime_in_seconds", 0) / 3600
    return Finding(
        "load",
        Verdict.WARNING,
        f"Redis loaded its append-only file {hours:.1f} h ago, and has not rewritten it since",
        "if it had lost power: redis-cli BGREWRITEAOF now, before it restarts again",
    )


def _eviction(info: dict[str, Any]) -> Finding:
    policy = info.get("maxmemory_policy")
    if policy is None:
        return not_allowed("eviction", "set maxmemory-policy noeviction")
    if policy != "noeviction":
        return Finding(
            "eviction",
            Verdict.BAD,
            f"maxmemory-policy {policy}: at maxmemory Redis throws callbacks away",
            "set maxmemory-policy noeviction",
        )
    return Finding("eviction", Verdict.OK, "noeviction")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _own_encryption(url: str) -> list[Finding]:
    """How the connection is encrypted; with several hosts in the URL, that of the first that is not as it should be."""
    if not url:
        return []
    hosts = [RedisUrl.parse(one) for one in Topology.parse(url).urls]
    found = [encryption("encryption", where.host, where.tls) for where in hosts]
    return [next((one for one in found if one.verdict is not Verdict.OK), found[0])]
