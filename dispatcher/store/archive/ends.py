"""Lists what has ended, of Redis and of the archive, in one order: latest end first."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

import structlog
from msgspec.structs import replace

from dispatcher.errors import ArchiveUnavailable, InvalidInput, RedisUnavailable
from dispatcher.rules.outcomes import State
from dispatcher.store.archive.archive import After, Archive
from dispatcher.store.archive.archived_callback import ArchivedCallback
from dispatcher.store.archive.which import Which
from dispatcher.store.callbacks import LISTED, Callbacks, stored
from dispatcher.store.entry import read_entry
from dispatcher.store.stored_callback import StoredCallback

FIRST_LOOK, LOOK = 100, 500
"""Callbacks of the archive that are looked at in one query: the first, and at most; each looks at twice as many as the one before."""

log = structlog.get_logger()

T = TypeVar("T")
Step = tuple[After, StoredCallback | None]
"""A callback and its place; or a place without one: up to there, LOOK or fewer were looked at since the last step of that kind."""


async def ends(
    in_redis: Callbacks,
    archive: Archive | None,
    names: Sequence[str],
    which: Which,
    after: After | None = None,
    away: Callable[[ArchiveUnavailable], None] | None = None,
) -> AsyncIterator[Step]:
    """The callbacks that have ended, each once: those that Redis lists (LISTED), and those of the archive.

    names: the workspaces that `which` means
    after: where to begin
    away: called if the archive does not answer; the list goes on without it. Without `away`, that raises ArchiveUnavailable.
    """
    wanted = which.states or LISTED
    listed = _merged([_listed(in_redis, names, one, which, after) for one in LISTED if one in wanted])
    found = _with_archive(in_redis, listed, archive, which, after, away) if archive else listed
    shown: After | None = None
    async for place, one in found:
        if one is None:
            yield place, None
        elif place != shown:
            shown = place
            yield place, one


async def archived(archive: Archive, which: Which, after: After | None = None) -> AsyncIterator[Step]:
    """What the archive has, latest end first. Raises ArchiveUnavailable."""
    async for some, end in _pages(archive, which, after):
        for one in some:
            if shown := read(one):
                yield (one.ended_ms, *one.key), shown
        if end:
            yield end, None


def read(one: ArchivedCallback) -> StoredCallback | None:
    """A callback of the archive, for display. A damaged one is logged and gives None, so that it does not hide others."""
    try:
        entry = read_entry(one.entry())
    except InvalidInput as error:
        log.error("archive.unreadable", workspace=one.workspace, event_id=one.id, problem=str(error))
        return None
    return stored(one.key, entry, one.endpoint_name.encode() or None, None, None, one.answer)


async def in_order(
    found: AsyncIterator[T], place: Callable[[T], After], *, latest_first: bool
) -> AsyncIterator[T]:
    """What comes in the order of its times, in the order of its places: of the same time too, which partitions give as they come."""
    same: list[T] = []
    async for one in found:
        if same and place(one)[0] != place(same[0])[0]:
            for callback in sorted(same, key=place, reverse=latest_first):
                yield callback
            same = []
        same.append(one)
    for callback in sorted(same, key=place, reverse=latest_first):
        yield callback


def ended_at(one: StoredCallback) -> After:
    """The place of a callback that has ended."""
    return one.ended_ms or 0, one.workspace, one.event_id


async def _listed(
    in_redis: Callbacks, names: Sequence[str], state: State, which: Which, after: After | None
) -> AsyncIterator[Step]:
    until_ms = min(which.until_ms, after[0]) if after else which.until_ms
    passed = 0
    found = in_redis.ended(names, state, which.since_ms, until_ms)
    async for one in in_order(found, ended_at, latest_first=True):
        place = ended_at(one)
        if after and place >= after:
            continue
        if which.narrows(one):
            yield place, one
            continue
        passed += 1
        if passed % LOOK == 0:
            yield place, None


async def _with_archive(
    in_redis: Callbacks,
    listed: AsyncIterator[Step],
    archive: Archive,
    which: Which,
    after: After | None,
    away: Callable[[ArchiveUnavailable], None] | None,
) -> AsyncIterator[Step]:
    """What Redis lists, and between it what the archive has.

    A stretch of the list is read from Redis before the archive is asked for it: what leaves Redis meanwhile is in the archive by then.
    """
    is_away = False

    async def archived_to(last: After | None) -> AsyncIterator[Step]:
        nonlocal is_away
        try:
            if not is_away:
                async for step in _only_archived(in_redis, archive, which, after, last):
                    yield step
        except ArchiveUnavailable as error:
            if away is None:
                raise
            is_away = True
            away(error)

    async for some in _stretches(listed):
        last, _ = some[-1]
        async for step in _merged([_each(some), archived_to(last)]):
            yield step
        after = last
    async for step in archived_to(None):
        yield step


async def _only_archived(
    in_redis: Callbacks, archive: Archive, which: Which, after: After | None, last: After | None
) -> AsyncIterator[Step]:
    """What the archive has up to a place (None: to the end), without what Redis has otherwise: it was replayed, and waits, or ended again."""
    if last:
        which = replace(which, since_ms=max(which.since_ms, last[0]))
    async for some, end in _pages(archive, which, after):
        ended = await _ended(in_redis, some)
        for one in some:
            place = (one.ended_ms, *one.key)
            if last and place < last:
                return
            if ended.get(one.key, one.ended_ms) == one.ended_ms and (shown := read(one)):
                yield place, shown
        if end is None or (last and end < last):
            return
        yield end, None


async def _stretches(listed: AsyncIterator[Step]) -> AsyncIterator[list[Step]]:
    """Steps in lists that are not empty. After a place without a callback none is waited for: whoever reads may stop there."""
    some: list[Step] = []
    size = FIRST_LOOK
    async for step in listed:
        some.append(step)
        if len(some) == size or step[1] is None:
            yield some
            some, size = [], min(2 * size, LOOK)
    if some:
        yield some


async def _each(steps: Sequence[Step]) -> AsyncIterator[Step]:
    for step in steps:
        yield step


async def _ended(in_redis: Callbacks, some: Sequence[ArchivedCallback]) -> dict[tuple[str, str], int | None]:
    """When those of the callbacks ended that Redis knows; None: they have not. Empty if it does not answer."""
    try:
        return {
            (one.workspace, one.event_id): one.ended_ms
            for one in await in_redis.known([one.key for one in some])
        }
    except RedisUnavailable:
        return {}  # its own lists say that they are not whole


async def _pages(
    archive: Archive, which: Which, after: After | None
) -> AsyncIterator[tuple[list[ArchivedCallback], After | None]]:
    look = FIRST_LOOK
    while True:
        found, after = await archive.ended(which, after, look)
        yield found, after
        if after is None:
            return
        look = min(2 * look, LOOK)


async def _merged(streams: Sequence[AsyncIterator[Step]]) -> AsyncIterator[Step]:
    """The steps of all, the latest place first; of the same place, that of the first stream."""
    heads = {stream: head for stream in streams if (head := await anext(stream, None))}
    while heads:
        newest = max(heads, key=lambda one: heads[one][0])
        yield heads[newest]
        if head := await anext(newest, None):
            heads[newest] = head
        else:
            del heads[newest]
