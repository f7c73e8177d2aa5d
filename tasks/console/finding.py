"""Finds what a text may mean, in all workspaces or in one."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dispatcher.errors import ArchiveUnavailable, InvalidInput, NotFound
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.dialects import dialects
from dispatcher.store.archive.history import History
from dispatcher.store.callbacks import LISTS_AT_ONCE, Place
from dispatcher.store.command_parts import in_parts
from dispatcher.store.connection import translated
from dispatcher.store.endpoints import Endpoint
from dispatcher.store.message_record import reference_digest
from dispatcher.store.stored_callback import StoredCallback
from dispatcher.store.traces import bare, written
from dispatcher.values import CHANNELS
from tasks import wiring
from tasks.actions.events import of_message

MOST_KEYS = 200_000
"""Keys that one search may ask for: workspaces times partitions times ways to write it."""
MOST_ARCHIVED = 200
"""Workspaces in which one search asks the archive."""
MOST_HITS = 50
LATEST = 20
"""Messages of one number or reference that are shown."""
LEAST_DIGITS = 6
"""A text with fewer digits is no phone number."""
BY_REFERENCE, BY_NUMBER = ", by reference", ", by number"


_BY_NUMBER = ", ".join(name for name, one in dialects().items() if "phone" in one.LOOKED_UP_BY)
WHERE = (
    "A message is found by its number or its reference only in workspaces of a dialect whose status API looks so: "
    f"{_BY_NUMBER}. Elsewhere, take its id or the eventId."
)


@dataclass(frozen=True)
class Hit:
    """Something that a text may mean, and its page."""

    kind: str
    """Callback, Message, Workspace or Endpoint."""
    title: str
    about: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)


async def find(
    store: wiring.Store,
    text: str,
    workspace: str,
    endpoints: Sequence[Endpoint],
    away: Callable[[ArchiveUnavailable], None],
) -> tuple[list[Hit], list[str]]:
    """What a text may mean, in one workspace or (empty) in all; and sentences about what was not looked at.

    endpoints: those of the workspace
    """
    names = [workspace] if workspace else await store.workspaces.names()
    origin = _origin(text)
    hits = [] if workspace else [_workspace(name) for name in names if name == text]
    hits += [
        _endpoint(one)
        for one in endpoints
        if text in (one.url, one.id) or (len(text) > 5 and text in one.url) or one.url == origin
    ]
    places = await store.callbacks.present_places(workspace or None)
    limits = list[str]()
    if len(names) * len(places) * 8 > MOST_KEYS:
        limits.append(
            f"There are {len(names):,} workspaces: name one to look for events, messages and numbers in it."
        )
        return hits[:MOST_HITS], limits
    events = await _callbacks(places, names, text)
    messages = await _messages(places, names, text)
    if store.archive and len(names) <= MOST_ARCHIVED:
        known = {hit.query["id"] for hit in events}
        archived, more = await _archived(store, names, text, away)
        events += [hit for hit in archived if hit.query["id"] not in known]
        there = {(hit.query["workspace"], hit.query["message"]) for hit in messages}
        messages += [hit for hit in more if (hit.query["workspace"], hit.query["message"]) not in there]
    elif store.archive:
        limits.append(f"There are {len(names):,} workspaces: name one to look into the archive too.")
    if not hits and not events and not messages:
        limits.append(WHERE)
    if any(
        count >= LATEST for count in Counter(hit.about for hit in messages if ", by " in hit.about).values()
    ):
        limits.append(f"Of the messages to a number, or with a reference, the latest {LATEST} are shown.")
    if len(hits) + len(events) + len(messages) > MOST_HITS:
        limits.append(f"There are more: the first {MOST_HITS} are shown.")
    return (hits + events + messages)[:MOST_HITS], limits


def _origin(text: str) -> str:
    """The origin of a URL; empty for another text."""
    try:
        return parse_callback_url(text, allow_http=True).origin
    except InvalidInput:
        return ""


def _workspace(name: str) -> Hit:
    return Hit("Workspace", name, "", "/workspace", {"id": name})


def _endpoint(one: Endpoint) -> Hit:
    return Hit("Endpoint", one.url, one.owner, "/endpoint", {"owner": one.owner, "url": one.url})


def _callback(workspace: str, event_id: str) -> Hit:
    return Hit("Callback", event_id, workspace, "/callback", {"workspace": workspace, "id": event_id})


def _message(workspace: str, uuid: str, about: str) -> Hit:
    return Hit(
        "Message", uuid, f"{workspace}{about}", "/callbacks", {"workspace": workspace, "message": uuid}
    )


async def _callbacks(places: Sequence[Place], names: Sequence[str], text: str) -> list[Hit]:
    """Callbacks with that eventId: Redis is asked for each workspace's key, many in one command."""
    found = dict[str, None]()
    for place in places:
        there = await _existing(place, [place.keys.event(name, text) for name in names])
        found |= dict.fromkeys(name for name, is_there in zip(names, there, strict=True) if is_there)
    return [_callback(name, text) for name in found]


async def _messages(places: Sequence[Place], names: Sequence[str], text: str) -> list[Hit]:
    """Messages with that id, the customer's id, that reference, or to that number."""
    found: dict[tuple[str, str], Hit] = {}
    for place in places:
        keys = place.keys
        own = await _existing(place, [keys.message(name, text) for name in names])
        records = await _existing(place, [keys.status(name, text) for name in names])
        for name, *is_there in zip(names, own, records, strict=True):
            if any(is_there):
                found.setdefault((name, text), _message(name, text, ""))
        customers = [
            (name, keys.status_customer(name, channel, text)) for name in names for channel in CHANNELS
        ]
        for (name, _), raw in zip(
            customers, await _values(place, [key for _, key in customers]), strict=True
        ):
            if raw:
                uuid = raw.decode(errors="replace")
                found.setdefault((name, uuid), _message(name, uuid, f", customer's id {text}"))
        for name, uuid, about in await _listed(place, names, text):
            found.setdefault((name, uuid), _message(name, uuid, about))
    return list(found.values())


def _numbers(text: str) -> list[str]:
    """The ways to write a text that may be a phone number; none for another one."""
    is_number = sum(c.isdigit() for c in text) >= LEAST_DIGITS and bare(text).isdigit()
    return sorted(written(text)) if is_number else []


async def _listed(place: Place, names: Iterable[str], text: str) -> list[tuple[str, str, str]]:
    """Workspace, message and why, of the latest messages with a reference or to a number."""
    keys, asked, numbers = place.keys, list[tuple[str, str, str]](), _numbers(text)
    for name in names:
        asked.append((name, keys.status_reference(name, reference_digest(text)), BY_REFERENCE))
        asked += [(name, keys.status_phone(name, one), BY_NUMBER) for one in numbers]
    replies: list[Any] = []
    for first in range(0, len(asked), LISTS_AT_ONCE):
        pipe = place.client.pipeline(transaction=False)
        for _, key, _ in asked[first : first + LISTS_AT_ONCE]:
            pipe.zrevrange(key, 0, LATEST - 1)
        with translated(place.url):
            replies += await pipe.execute(raise_on_error=False)
    return [
        (name, uuid.decode(errors="replace"), about)
        for (name, _, about), some in zip(asked, replies, strict=True)
        if isinstance(some, list)
        for uuid in some
    ]


async def _values(place: Place, keys: Sequence[str]) -> list[bytes | None]:
    found: list[Any] = []
    with translated(place.url):
        for some in in_parts(keys):
            found += await place.client.mget(some)
    return found


async def _existing(place: Place, keys: Sequence[str]) -> list[bool]:
    return [value is not None for value in await _values(place, keys)]


async def _archived(
    store: wiring.Store, names: Sequence[str], text: str, away: Callable[[ArchiveUnavailable], None]
) -> tuple[list[Hit], list[Hit]]:
    """Callbacks and messages that only the archive has."""
    assert store.archive
    keys = {f"phone:{one}": BY_NUMBER for one in _numbers(text)}
    keys |= {f"reference:{reference_digest(text)}": BY_REFERENCE}
    keys |= {f"customer:{channel}:{text}": f", customer's id {text}" for channel in CHANNELS}
    try:
        found = await store.archive.get([(name, text) for name in names])
        history = store.history_so_far(away)
        lists = [await _of_message(store, text, name, history) for name in names] if len(names) == 1 else []
        rows = [await store.archive.messages.get(name, [text]) for name in names]
        listed = [await store.archive.messages.latest(name, [*keys]) for name in names]
    except ArchiveUnavailable as error:
        away(error)
        return [], []
    events = [_callback(one.workspace, one.id) for one in found]
    uuids = [name for name, some in zip(names, rows, strict=True) if some]
    uuids += [some[0].workspace for some in lists if some]
    messages = [_message(name, text, "") for name in dict.fromkeys(uuids)]
    messages += [
        _message(name, uuid, keys[key])
        for name, of in zip(names, listed, strict=True)
        for key, some in of.items()
        for uuid in some[:LATEST]
    ]
    return events, messages


async def _of_message(store: wiring.Store, text: str, name: str, history: History) -> list[StoredCallback]:
    """The callbacks of a message; none in a workspace that was removed meanwhile."""
    try:
        return await of_message(store, text, name, history)
    except NotFound:
        return []
