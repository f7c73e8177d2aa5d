"""Checks a node of a cluster: can its slots be moved at once, and does it answer while another node is away? No I/O."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dispatcher.store.check_finding import Finding, Verdict

FULL_COVERAGE = "cluster-require-full-coverage"
ATOMIC_SINCE = {"Valkey": (9, 0), "Redis": (8, 4)}
"""The version from which on a slot moves when the target has all of its keys, not key by key."""


def is_cluster(info: Mapping[str, Any]) -> bool:
    """Whether INFO is that of a node of a cluster."""
    return bool(info.get("cluster_enabled"))


def server_of(info: Mapping[str, Any]) -> tuple[str, str]:
    """Name and version of a server, by its INFO; what Valkey gives as `redis_version` is a Redis that it is compatible with."""
    if version := info.get("valkey_version"):
        return "Valkey", str(version)
    return "Redis", str(info.get("redis_version", ""))


def look_at_cluster(info: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Finding]:
    """The findings of a node, by INFO and CONFIG GET, which is empty if forbidden; none of a server that is no node."""
    if is_cluster(info):
        yield _slots(*server_of(info))
        yield _coverage(config.get(FULL_COVERAGE))


def _slots(name: str, version: str) -> Finding:
    """How slots are moved to another node."""
    numbers = tuple(int(digits) for digits in re.findall(r"\d+", version)[:2])
    if numbers >= ATOMIC_SINCE[name]:
        return Finding("slots", Verdict.OK, f"{name} {version} moves a slot with all its keys at once")
    return Finding(
        "slots",
        Verdict.WARNING,
        f"{name} {version} moves a slot key by key: its partition pauses until the move has ended",
        "use Valkey 9 or Redis 8.4 or newer, or move slots while little is sent",
    )


def _coverage(required: object) -> Finding:
    """Whether the nodes refuse everything while some slot has no node."""
    if required is None:
        return Finding(
            "coverage",
            Verdict.UNKNOWN,
            f"{FULL_COVERAGE} unknown (CONFIG is forbidden)",
            "make sure that it is no",
        )
    if required == "no":
        return Finding("coverage", Verdict.OK, "while a node is away, the others answer")
    return Finding(
        "coverage",
        Verdict.WARNING,
        f"{FULL_COVERAGE} {required}: while one slot has no node, all nodes refuse everything",
        f"set {FULL_COVERAGE} no on every node",
    )
