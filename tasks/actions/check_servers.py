"""What `check` finds in the servers of an installation, one or several."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

import redis.asyncio

from dispatcher.errors import RedisUnavailable
from dispatcher.store.check_finding import Finding, Verdict
from dispatcher.store.checks import look_at_redis, run_id
from dispatcher.store.connection import safe_url
from dispatcher.store.installation import Unread
from dispatcher.store.redis_url import RedisUrl
from tasks import tables, wiring

NAMED = 5
"""How many workspaces a finding names."""


async def look_at_servers(store: wiring.Store) -> list[Finding]:
    """The findings of each server; with several servers, each finding names its own. One that is known to be away is not asked.

    Raises RedisUnavailable if the only server does not answer.
    """
    if len(store.nodes) == 1:
        return await look_at_redis(*store.nodes[0])
    away = store.away()

    async def look(client: "redis.asyncio.Redis", url: str) -> list[Finding]:
        if problem := away.get(url):
            raise problem
        return await look_at_redis(client, url)

    found = await asyncio.gather(*(look(*one) for one in store.nodes), return_exceptions=True)
    named = [
        one for (_, url), of in zip(store.nodes, found, strict=True) for one in _named(safe_url(url), of)
    ]
    answer = [one for one, of in zip(store.nodes, found, strict=True) if not isinstance(of, BaseException)]
    ids = await asyncio.gather(*(run_id(*one) for one in answer), return_exceptions=True)
    return [*named, *_twice([url for _, url in answer], ids)]


def _named(server: str, found: Sequence[Finding] | BaseException) -> Iterator[Finding]:
    if isinstance(found, RedisUnavailable):
        yield Finding("redis", Verdict.BAD, str(found), "bring it back: its partitions stand still")
    elif isinstance(found, BaseException):
        raise found
    else:
        yield from (replace(one, detail=f"{server}: {one.detail}") for one in found)


def _twice(urls: Sequence[str], ids: Sequence[str | BaseException]) -> Iterator[Finding]:
    """Servers that are named twice, by different names; `ids` is what each calls itself, empty if it is not known."""
    first: dict[tuple[str, int], str] = {}
    for url, id_ in zip(urls, ids, strict=True):
        if isinstance(id_, str) and id_:
            same = first.setdefault((id_, RedisUrl.parse(url).db), url)
            if same != url:
                yield Finding(
                    "servers",
                    Verdict.WARNING,
                    f"{safe_url(same)} and {safe_url(url)} are one server: their partitions share it",
                    "name each server once, unless the list is in use: then it must stay",
                )


def partitions(store: wiring.Store) -> list[Finding]:
    """Whether all partitions answered what was read before; nothing for an installation with one."""
    if store.partitions == 1:
        return []
    if line := store.absent.named():
        return [Finding("partitions", Verdict.BAD, line, "see what is wrong with their servers")]
    servers = tables.counted(len(store.nodes), "server", "servers")
    return [Finding("partitions", Verdict.OK, f"all {store.partitions} answer, on {servers}")]


async def copies(store: wiring.Store) -> list[Finding]:
    """Which workspaces' records are not in all of their partitions; nothing if all are."""
    found = await store.workspaces.not_copied()
    if not found:
        return []
    shown = [f"{name} (partition {', '.join(map(str, parts))})" for name, parts in [*found.items()][:NAMED]]
    count = tables.counted(len(found), "workspace has", "workspaces have")
    first = next(iter(found))
    known = await store.workspaces.find(first)
    width = known.width if known else 1
    return [
        Finding(
            "copies",
            Verdict.BAD,
            f"{count} partitions that lack the record as it is at home: {', '.join(shown)}{', …' * (len(found) > NAMED)}; "
            "what belongs there waits, or is sent as it was before",
            f"dispatcher workspace update {first} --width {width}",
        )
    ]


def unread(found: Unread, prefix: str, now_ms: int) -> list[Finding]:
    """What a producer that was not told of partitions has put where nobody reads it; nothing if there is none."""
    findings: list[Finding] = []
    if found.problem:
        detail = f"whether any status changes lie on {prefix}:events cannot be seen: {found.problem}"
        findings.append(
            Finding("unread queue", Verdict.UNKNOWN, detail, "see what is wrong with the key, or its server")
        )
    if found.count:
        count = tables.counted(found.count, "status change lies", "status changes lie")
        age = tables.duration(max(0, now_ms - (found.oldest_ms or now_ms)) / 1000)
        detail = (
            f"{count} on {prefix}:events, which nobody reads with several partitions; the oldest for {age}"
        )
        advice = (
            "set partitions= in the producer that puts them there, then bring them over (docs/partitions.md, A queue that "
            "nobody reads)"
        )
        findings.append(Finding("unread queue", Verdict.BAD, detail, advice))
    return findings
