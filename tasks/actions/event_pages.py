"""A page of a list of events, and where the next one begins."""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass

import msgspec

from dispatcher.errors import ArchiveUnavailable, InvalidInput
from dispatcher.model import is_time
from dispatcher.rules.outcomes import State
from dispatcher.store.archive.archive import After
from dispatcher.store.stored_callback import StoredCallback
from tasks import wiring
from tasks.actions.events import Filter, steps

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
    most_looks: int | None = None,
) -> Page:
    """At most `limit` of the matching events after a cursor and then `offset` others.

    most_looks: how often it looks, in place of MOST_LOOKS
    Of Redis and the archive, so far as that answers: else `away` is called. Raises NotFound, InvalidInput.
    """
    begin = place_of(after, asked) if after else None
    if asked.state == State.DELIVERED and not asked.message and not store.archive:
        raise InvalidInput(
            "without an archive delivered events are not listed: give --message, or `dispatcher stats` for their number"
        )
    found = steps(store, asked, archive=store.archive, after=begin, away=away)
    events, last, looks, matched = list[StoredCallback](), begin, 0, 0
    async for place, event in found:
        if event is None:
            looks += 1
            if looks - matched // EVENTS_A_LOOK >= (most_looks or MOST_LOOKS):
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
