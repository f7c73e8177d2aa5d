"""A page of a list of events, and where the next one begins."""

import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass

import msgspec

from dispatcher.errors import ArchiveUnavailable, InvalidInput, RedisUnavailable
from dispatcher.model import is_time
from dispatcher.rules.outcomes import State
from dispatcher.store.archive.archive import After
from dispatcher.store.archive.ends import Step
from dispatcher.store.archive.history import History
from dispatcher.store.stored_callback import StoredCallback
from tasks import wiring
from tasks.actions.events import ANY_END, WAITING, Filter, steps, which

MOST_LOOKS, EVENTS_A_LOOK = 20, 100
"""A page that is not full ends after so many looks, of LOOK events or fewer, and one more for so many events that match."""
DIGEST_BYTES = 6
WITHOUT_HYPHEN = b"._"
"""For base64: a cursor must not look like an option."""


@dataclass(frozen=True)
class Page:
    """Events, and a cursor for what follows."""

    events: list[StoredCallback]
    cursor: str | None
    """None: there is nothing more."""
    whole: bool = True
    """Not if it ended because it had looked at so many: what matches may follow all the same."""


async def page(
    store: wiring.Store,
    asked: Filter,
    after: str | None,
    offset: int,
    limit: int,
    away: Callable[[ArchiveUnavailable], None],
) -> Page:
    """At most `limit` of the matching events after a cursor and then `offset` others.

    Of Redis and the archive, so far as that answers: else `away` is called. Raises NotFound, InvalidInput.
    """
    begin = place_of(after, asked) if after else None
    if asked.message:
        found = _of_message(store, asked, begin, store.history_so_far(away))
    else:
        if asked.state == State.DELIVERED and not store.archive:
            raise InvalidInput(
                "without an archive delivered events are not listed: give --message, or `dispatcher stats` for their number"
            )
        found = steps(store, asked, archive=store.archive, after=begin, away=away)
    events, last, looks, matched = list[StoredCallback](), begin, 0, 0
    async for place, event in found:
        if event is None:
            looks += 1
            if looks - matched // EVENTS_A_LOOK >= MOST_LOOKS:
                return Page(events, cursor_of(place, asked), whole=False)
        elif matched < offset:
            matched += 1
        elif len(events) == limit and last:
            return Page(events, cursor_of(last, asked))
        else:
            events.append(event)
            matched += 1
        last = place
    return Page(events, None)


def cursor_of(place: After, asked: Filter) -> str:
    """A place as text, which fits the list that is asked for and no other."""
    payload = msgspec.json.encode(place)
    of = msgspec.json.encode(asdict(asked))
    digest = hashlib.blake2b(of + b"\n" + payload, digest_size=DIGEST_BYTES).digest()
    return base64.b64encode(digest + payload, WITHOUT_HYPHEN).decode().rstrip("=")


def place_of(cursor: str, asked: Filter) -> After:
    """The place of a cursor. Raises InvalidInput if it was changed or is that of another list."""
    try:
        found = base64.b64decode(cursor + "=" * (-len(cursor) % 4), WITHOUT_HYPHEN, validate=True)
        place = msgspec.json.decode(found[DIGEST_BYTES:], type=tuple[int, str, str])
        if is_time(place[0]) and cursor == cursor_of(place, asked):
            return place
    except ValueError:
        pass
    raise InvalidInput(
        "--after is not a cursor of this list: give it as the page before printed it, and the same filters"
    )


async def _of_message(
    store: wiring.Store, asked: Filter, begin: After | None, history: History
) -> AsyncIterator[Step]:
    """A message's events in order of acceptance. A message has few: all are read."""
    narrow = which(asked, await store.installation.now_ms())
    found = await of_message(store, asked.message or "", asked.workspace, history)
    for event in _after(begin, found):
        has_state = asked.state in ("", event.state) or asked.state == (ANY_END if event.ended else WAITING)
        if asked.since or asked.until:
            has_state = has_state and narrow.since_ms <= (event.ended_ms or -1) <= narrow.until_ms
        if has_state and narrow.narrows(event):
            yield (event.accepted_ms, event.workspace, event.event_id), event


def _after(begin: After | None, found: list[StoredCallback]) -> list[StoredCallback]:
    """What comes after the place of an event; if that is gone, what was accepted later."""
    if begin is None:
        return found
    at = [n for n, one in enumerate(found) if (one.workspace, one.event_id) == begin[1:]]
    return found[at[0] + 1 :] if at else [one for one in found if one.accepted_ms > begin[0]]


async def of_message(
    store: wiring.Store, message: str, workspace: str | None, history: History
) -> list[StoredCallback]:
    """A message's events in order of acceptance, in one workspace or in all. Raises NotFound for an unknown one.

    Raises RedisUnavailable if none is found, and partitions did not answer.
    """
    if workspace:
        await store.workspaces.require(workspace)
    names = [workspace] if workspace else await store.workspaces.names()
    found, problem = list[StoredCallback](), None
    for name in names:
        try:
            found += await history.of_message(name, message)
        except RedisUnavailable as error:
            problem = error
    if problem and not (found and store.absent.partitions):  # else the command says what may be missing
        raise problem
    return found
