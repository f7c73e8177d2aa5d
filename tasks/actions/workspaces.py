"""Creates and changes a workspace, and moves waiting callbacks to its new URL."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dispatcher.errors import InvalidInput, NotFound
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.endpoint_name import EndpointName, subscription_of
from dispatcher.rules.subscription import DEFAULT
from dispatcher.rules.workspace import Workspace
from dispatcher.store.audit import difference, is_changed, shown_url
from dispatcher.store.stored_callback import Waiting
from dispatcher.store.subscriptions import found
from tasks import wiring
from tasks.actions.partly import Partly

MOVED_AT_ONCE = 100


@dataclass(frozen=True)
class Wanted:
    """New values for a workspace's fields; None keeps the current value, or the default."""

    callback_url: str | None = None
    max_concurrency: int | None = None
    rate_per_second: float | None = None
    ordering: str | None = None
    headers: Mapping[str, str] | None = None
    """An empty value removes the header."""
    width: int | None = None

    def __bool__(self) -> bool:
        """Whether any field is set."""
        facts = (
            self.callback_url,
            self.max_concurrency,
            self.rate_per_second,
            self.ordering,
            self.headers or None,
            self.width,
        )
        return any(fact is not None for fact in facts)


@dataclass(frozen=True)
class Moved:
    """How many callbacks were moved, and how many were not."""

    moved: int
    left: int
    """Those being sent, behind one of their message that is, or going to another URL."""


async def add(
    store: wiring.Store, workspace: str, dialect: str, wanted: Wanted, secret: str | None
) -> Workspace:
    """Creates a workspace. Raises InvalidInput, AlreadyExists."""
    made = await store.workspaces.add(
        workspace,
        dialect,
        wanted.callback_url or "",
        now_ms=await store.installation.now_ms(),
        secret=secret,
        max_concurrency=wanted.max_concurrency,
        rate_per_second=wanted.rate_per_second,
        ordering=wanted.ordering,
        headers=wanted.headers or {},
        width=wanted.width,
    )
    await store.audit.add("workspace.add", workspace, *difference(made))
    return made


async def update(store: wiring.Store, workspace: str, wanted: Wanted) -> bool:
    """Changes a workspace; returns whether anything changed. Raises InvalidInput, NotFound."""
    updated = await store.workspaces.update(
        workspace,
        now_ms=await store.installation.now_ms(),
        callback_url=wanted.callback_url,
        max_concurrency=wanted.max_concurrency,
        rate_per_second=wanted.rate_per_second,
        ordering=wanted.ordering,
        headers=wanted.headers or {},
        width=wanted.width,
    )
    changed = is_changed(updated)
    if changed:
        await store.audit.add("workspace.update", workspace, *difference(updated))
    if wanted.width is not None and not updated.not_copied:  # else by the run that copies it
        for endpoint in await store.workspaces.stopped(workspace):
            await store.ledger.stop(endpoint)  # in the partitions that are new, too
    return changed


async def unknown(store: wiring.Store, workspace: str | None) -> str:
    """That there is no such workspace, with the most similar name, or empty. What one left behind can still be listed."""
    try:
        if workspace:
            await store.workspaces.require(workspace)
    except NotFound as error:
        return str(error)
    return ""


async def url_before(
    store: wiring.Store, workspace: str, subscription: str = DEFAULT, *, needed: bool
) -> str:
    """A subscription's callback URL before a change; empty if it cannot be read.

    Raises NotFound, or InvalidInput if it is `needed` and there is none.
    """
    url = found(await store.workspaces.require(workspace), subscription).callback_url
    if needed and not url:
        raise InvalidInput("there is no callback URL to move from: give --move-from")
    try:
        return url and parse_callback_url(url, allow_http=True).url
    except InvalidInput as error:
        if needed:
            raise InvalidInput(f"the present {error}; to move what waits, give --move-from") from None
        return ""


async def left_behind(store: wiring.Store, workspace: str, before: str, subscription: str = "") -> int:
    """How many callbacks wait at the endpoint of the URL `before`: a change of the URL does not move them."""
    if not before:
        return 0
    origin = parse_callback_url(before, allow_http=True).origin
    endpoint = await store.endpoints.get(EndpointName(workspace, origin, subscription))
    return endpoint.waiting if endpoint else 0


async def waiting_in_order(
    store: wiring.Store,
    workspace: str,
    subscription: str = "",
    endpoint: str | None = None,
    counted: Callable[[int], None] = lambda number: None,
) -> list[Waiting]:
    """The callbacks that wait for a subscription (empty: the default one), by message in order of acceptance.

    endpoint: the id of the only one that they may wait for
    counted: is told how many there are so far
    """
    by_message: defaultdict[str, list[Waiting]] = defaultdict(list)
    number = 0
    async for one in store.callbacks.pending(workspace, endpoint):
        if subscription_of(one.event_id) == subscription:
            by_message[one.message_uuid].append(one.waiting)
            number += 1
            counted(number)
    several = [uuid for uuid, some in by_message.items() if len(some) > 1]
    for uuid, order in (await store.callbacks.order(workspace, several)).items():
        place = {event_id: number for number, event_id in enumerate(order)}
        by_message[uuid].sort(key=lambda one, place=place: place.get(one.event_id, len(place)))  # type: ignore[misc]
    return [one for some in by_message.values() for one in some]


async def move(
    store: wiring.Store,
    workspace: str,
    before: str,
    waiting: Sequence[Waiting],
    progress: Callable[[Sequence[Sequence[Waiting]]], Iterable[Sequence[Waiting]]],
    subscription: str = "",
) -> Moved:
    """Moves waiting callbacks of a subscription from the URL `before` to its own, in batches wrapped by `progress`."""
    of = found(await store.workspaces.require(workspace), subscription or DEFAULT)
    url = parse_callback_url(of.callback_url, allow_http=True)
    to = str(EndpointName(workspace, url.origin, subscription))
    from_url = parse_callback_url(before, allow_http=True).url
    batches = [waiting[first : first + MOVED_AT_ONCE] for first in range(0, len(waiting), MOVED_AT_ONCE)]
    moved, about = 0, {"from": shown_url(from_url), "to": shown_url(url.url)}
    about |= {"subscription": subscription} if subscription else {}
    async with store.audit.steps("callbacks.move", workspace, **about) as done:
        partly = Partly()
        for some in progress(batches):
            moved += await partly.of(store.ledger.move(workspace, from_url, url.url, to, some))
            done["moved"] = moved
        partly.raise_problem()
    return Moved(moved, len(waiting) - moved)
