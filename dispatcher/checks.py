"""What about a Redis would lose data, in words. Reads only."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import redis.asyncio
from redis.exceptions import NoPermissionError, ResponseError

from dispatcher.connection import translated

MIN_VERSION = (6, 2)


class Verdict(StrEnum):
    """What a check found."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `advice` says what to do."""

    subject: str
    verdict: Verdict
    detail: str
    advice: str = ""


async def look_at_redis(client: "redis.asyncio.Redis", url: str = "") -> list[Finding]:
    """Version, persistence and eviction of a Redis. Raises RedisUnavailable."""
    with translated(url):
        info = await _allowed(client.info("everything"))
        fsync = await _allowed(client.config_get("appendfsync"))
    return [_version(info), _persistence(info, fsync), _eviction(info)]


async def _allowed(call: Any) -> dict[str, Any]:
    """The reply, or nothing where this user or service may not ask."""
    try:
        return dict(await call)
    except (NoPermissionError, ResponseError) as error:
        if isinstance(error, NoPermissionError) or "unknown command" in str(error).lower():
            return {}
        raise


def _version(info: dict[str, Any]) -> Finding:
    version = str(info.get("redis_version", ""))
    if not version:
        return Finding(
            "version",
            Verdict.UNKNOWN,
            "INFO is forbidden",
            f"make sure it is {_dotted(MIN_VERSION)} or newer",
        )
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < MIN_VERSION:
        return Finding(
            "version", Verdict.BAD, version, f"use Redis {_dotted(MIN_VERSION)} or newer, or Valkey"
        )
    return Finding("version", Verdict.OK, version)


def _persistence(info: dict[str, Any], fsync: dict[str, Any]) -> Finding:
    if "aof_enabled" not in info:
        return Finding(
            "persistence", Verdict.UNKNOWN, "INFO is forbidden", "set appendonly yes, appendfsync everysec"
        )
    if not info["aof_enabled"]:
        return Finding(
            "persistence",
            Verdict.BAD,
            "no append-only file: a restart of Redis loses accepted callbacks",
            "set appendonly yes, appendfsync everysec",
        )
    how = fsync.get("appendfsync")
    if how is None:
        return Finding(
            "persistence", Verdict.UNKNOWN, "append-only file, appendfsync unknown (CONFIG is forbidden)"
        )
    if how == "no":
        return Finding(
            "persistence", Verdict.BAD, "append-only file, but appendfsync no", "set appendfsync everysec"
        )
    return Finding("persistence", Verdict.OK, f"append-only file, fsync {how}")


def _eviction(info: dict[str, Any]) -> Finding:
    policy = info.get("maxmemory_policy")
    if policy is None:
        return Finding("eviction", Verdict.UNKNOWN, "INFO is forbidden", "set maxmemory-policy noeviction")
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
