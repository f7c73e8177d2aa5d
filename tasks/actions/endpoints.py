"""Finds endpoints, stops and resumes one, retries one or many."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from dispatcher.errors import NotFound
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.subscription import DEFAULT, PAUSED
from dispatcher.store.endpoints import Endpoint
from dispatcher.store.holds import by_trouble
from dispatcher.store.replies import Retried, Stopped
from dispatcher.store.subscriptions import found as of_name
from tasks import wiring
from tasks.actions.partly import Partly

NAMED = 3
"""How many known endpoints an error text suggests for an unknown one."""
MOST_READ = 1000
"""It suggests none where there are more endpoints: all would be read for it."""


async def chosen(store: wiring.Store, workspace: str | None, state: str | None) -> list[Endpoint]:
    """All endpoints, filtered by state, and by workspace or subscription (`acme.crm`). Raises NotFound."""
    of_all = workspace is None or "." not in workspace  # else of one subscription
    owner = workspace and _owner(workspace)
    every = await store.endpoints.all()
    found = [e for e in every if owner in (None, e.workspace if of_all else e.owner)]
    found = await store.endpoints.with_states(found)
    if workspace and not found:
        await store.workspaces.require(workspace.partition(".")[0])
    return [e for e in found if state in (None, e.state)]


def _owner(of: str) -> str:
    """A workspace or subscription as an endpoint's owner is written: the default subscription has no name there."""
    return of.removesuffix(f".{DEFAULT}")


async def one(store: wiring.Store, workspace: str, origin: str) -> Endpoint:
    """An endpoint of a workspace (`acme`) or a subscription (`acme.crm`).

    Raises NotFound, whose text suggests the nearest known endpoints.
    """
    name = EndpointName.parse(f"{_owner(workspace)} {origin}")
    found = await store.endpoints.get(name)
    if found is None:
        known = await store.workspaces.require(name.workspace)
        if name.subscription:
            of_name(known, name.subscription)  # raises NotFound for one that there is not
        raise await unknown(store, workspace, origin)
    return found


async def unknown(store: wiring.Store, workspace: str, origin: str) -> NotFound:
    """The error for an endpoint that a workspace, or a subscription (`acme.crm`), does not have."""
    listing = f"(`dispatcher endpoint list --workspace {workspace}`)"
    if await store.endpoints.count() > MOST_READ:
        return NotFound(f"workspace {workspace} has no endpoint {origin} {listing}")
    known = sorted(await chosen(store, workspace, None), key=by_trouble)
    found = [e.url for e in known]
    if not found:
        return NotFound(f"workspace {workspace} has no endpoint yet: no callback of it was accepted")
    owners = [e.owner for e in known if e.url == origin]
    if owners and workspace not in owners:
        return NotFound(f"{origin} is no endpoint of {workspace} itself, but of {owners[0]}: name that one")
    near = get_close_matches(origin, found, NAMED, 0.5) or found[:NAMED]
    more = f" and {len(found) - len(near)} more" if len(found) > len(near) else ""
    return NotFound(
        f"workspace {workspace} has no endpoint {origin}; it has {', '.join(near)}{more} {listing}"
    )


async def with_answer(store: wiring.Store, endpoint: Endpoint) -> Endpoint:
    """The endpoint with the answer of its last failed attempt."""
    [found] = await store.endpoints.with_answers([endpoint])
    return found


async def again(store: wiring.Store, endpoint: Endpoint) -> Endpoint:
    """The endpoint, read again."""
    return await store.endpoints.get(endpoint.name) or endpoint


async def stop(store: wiring.Store, endpoint: Endpoint, *, resume: bool) -> Stopped:
    """Stops an endpoint, or with `resume` lets it send again."""
    partly = Partly()
    word = await partly.of(store.ledger.stop(endpoint.id, resume=resume))
    if word is Stopped.CHANGED:
        what = "endpoint.resume" if resume else "endpoint.stop"
        await store.audit.add(what, endpoint.workspace, after=_noted(endpoint))
    partly.raise_problem()
    return word


async def retry_one(store: wiring.Store, endpoint: Endpoint) -> Retried:
    """Retries an endpoint now: probes a paused one, makes waiting callbacks due."""
    partly = Partly()
    retried = await _retry(store, endpoint, partly)
    if retried.changed:
        about = _noted(endpoint) | {"probed": bool(retried.pause_ended_ms)}
        await store.audit.add(
            "endpoint.retry", endpoint.workspace, after=about | {"madeDue": retried.made_due}
        )
    partly.raise_problem()
    return retried


@dataclass(frozen=True)
class ToRetry:
    """Endpoints that can be retried: callbacks wait for them, or they are paused."""

    chosen: Sequence[Endpoint]
    """Those to retry, the most troubled first."""
    stopped: Sequence[Endpoint]
    """Those that an operator stopped: they stay stopped."""
    paused: Sequence[Endpoint] = ()
    """Those whose subscription is paused: they stay so."""


async def to_retry(store: wiring.Store, workspace: str | None, state: str | None) -> ToRetry:
    """The endpoints that `retry_all` would retry. Raises NotFound for an unknown workspace."""
    found = [e for e in await chosen(store, workspace, state) if _can_be_retried(e)]
    stopped = [e for e in found if e.state == "stopped"]
    going = [e for e in found if e.state != "stopped"]
    paused = [e for e in going if e.subscription_state == PAUSED]
    return ToRetry(
        sorted((e for e in going if e.subscription_state != PAUSED), key=by_trouble), stopped, paused
    )


async def retry_all(
    store: wiring.Store,
    workspace: str | None,
    state: str | None,
    endpoints: Sequence[Endpoint],
    progress: Callable[[Sequence[Endpoint]], Iterable[Endpoint]],
) -> tuple[int, int]:
    """Retries endpoints; returns how many are probed and how many callbacks were made due. `progress` wraps the loop."""
    probed, made_due, partly = 0, 0, Partly()
    async with store.audit.steps("endpoint.retry", workspace or "", state=state) as done:
        for number, endpoint in enumerate(progress(endpoints), 1):
            retried = await _retry(store, endpoint, partly)
            probed += bool(retried.pause_ended_ms)
            made_due += retried.made_due
            done |= {"endpoints": number, "probed": probed, "madeDue": made_due}
        partly.raise_problem()
    return probed, made_due


async def _retry(store: wiring.Store, endpoint: Endpoint, partly: Partly) -> Retried:
    if not _can_be_retried(endpoint):
        return Retried(stopped=endpoint.stopped_ms is not None)
    later = await store.endpoints.later(endpoint)
    return await partly.of(store.ledger.retry(endpoint.id, later)) or Retried()


def _noted(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint as the trail has it."""
    of: dict[str, Any] = {"subscription": endpoint.subscription} if endpoint.subscription else {}
    return of | {"endpoint": endpoint.url}


def _can_be_retried(endpoint: Endpoint) -> bool:
    return endpoint.waiting > 0 or endpoint.paused_until_ms > endpoint.now_ms
