"""Subscriptions: a workspace's receivers beside its default one. They are fields of the workspace's hash (workspace_record.py).

So a change of one gives the workspace a new revision, and accept takes no status change that was rendered before it.
"""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from dispatcher.errors import AlreadyExists, InvalidInput, NotFound, StillWaiting
from dispatcher.rules.dialects import dialects, platform_of
from dispatcher.rules.subscription import (
    ACTIVE,
    DEFAULT,
    MOST,
    PAUSED,
    Receiver,
    Subscription,
    check_name,
)
from dispatcher.rules.workspace import Workspace
from dispatcher.rules.workspace_headers import check_headers
from dispatcher.store.format import know_subscriptions
from dispatcher.store.ledger import Ledger
from dispatcher.store.workspaces import Workspaces, new_secret, rotated

FIELDS = (
    "callback_url", "secrets", "created", "dialect", "headers", "max_concurrency", "rate_per_second", "ordering",
    "events", "channels", "state",
)  # fmt: skip
"""A subscription's fields, without its name."""


class Subscriptions:
    """Changes the subscriptions of workspaces; `default` is the workspace's own.

    Every method raises RedisUnavailable, and NotFound for a workspace or a subscription that is not there.
    """

    def __init__(self, workspaces: Workspaces) -> None:
        self._workspaces = workspaces
        self._record = workspaces.record

    async def add(
        self,
        workspace: str,
        name: str,
        callback_url: str,
        *,
        now_ms: int,
        dialect: str | None = None,
        secret: str | None = None,
        headers: Mapping[str, str] | None = None,
        **terms: Any,
    ) -> Workspace:
        """Adds a subscription; `terms` as in `update`. Raises InvalidInput, AlreadyExists, or OtherFormat (store/format.py)."""
        check_name(name)
        sealed = self._record.seal([new_secret(secret, now_ms)])

        def add(there: Workspace | None) -> dict[str, Any]:
            known = _there(there, workspace)
            if name in known.subscriptions:
                raise AlreadyExists(
                    f"workspace {workspace!r} has a subscription {name!r} already; "
                    "`dispatcher subscription update` changes it"
                )
            if len(known.subscriptions) >= MOST:
                raise InvalidInput(
                    f"workspace {workspace!r} has {MOST} subscriptions beside the default one, and may have no more"
                )
            spoken = _dialect(dialect or known.dialect, known)
            fields = self._record.settable(callback_url, dialect=spoken, **terms)
            if headers:
                fields["headers"] = self._record.seal(check_headers(headers, spoken))
            fields |= {"secrets": sealed, "created": now_ms, "dialect": dialect}
            return _of(name, fields)

        add(await self._workspaces.get(workspace))  # raises for bad input before anything is changed
        await know_subscriptions(self._workspaces.installation)
        return await self._workspaces.write(workspace, add)

    async def update(
        self,
        workspace: str,
        name: str,
        *,
        callback_url: str | None = None,
        dialect: str | None = None,
        headers: Mapping[str, str] | None = None,
        **terms: Any,
    ) -> Workspace:
        """Changes a subscription. `terms`: max_concurrency, rate_per_second, ordering, events, channels.

        The URL, the dialect and the events apply to later status changes, all else from the next claim. An empty
        `events` or `channels` means all; a header with an empty value is removed. Raises InvalidInput.
        """

        def change(there: Workspace | None) -> dict[str, Any]:
            known = _there(there, workspace)
            before = found(known, name)
            if dialect and name == DEFAULT:
                raise InvalidInput("the dialect of the default subscription is the workspace's, and stays")
            spoken = _dialect(dialect or before.dialect, known)
            events: Collection[str] | None = terms.get("events")
            asked = terms | {"events": before.events if dialect and events is None else events}
            fields = self._record.settable(callback_url, dialect=spoken, **asked)
            if headers:
                _raise_problem(before)
                given = {one.lower() for one in headers}
                kept = {one: value for one, value in before.headers.items() if one.lower() not in given}
                wanted = kept | {one: value for one, value in headers.items() if value}
                fields["headers"] = self._record.seal(check_headers(wanted, spoken))
            return _of(name, fields | ({"dialect": dialect} if dialect else {}))

        return await self._workspaces.write(workspace, change)

    async def rotate_secret(
        self, workspace: str, name: str, *, now_ms: int, grace_ms: int, secret: str | None = None
    ) -> Workspace:
        """Gives a subscription a new secret; the previous ones keep signing for `grace_ms`. Raises InvalidInput."""
        new = new_secret(secret, now_ms)

        def rotate(there: Workspace | None) -> dict[str, Any]:
            before = found(_there(there, workspace), name)
            _raise_problem(before)
            return _of(name, {"secrets": self._record.seal(rotated(before.secrets, new, now_ms, grace_ms))})

        return await self._workspaces.write(workspace, rotate)

    async def pause(self, workspace: str, name: str) -> Workspace:
        """Lets a subscription's callbacks wait: those that there are, and later ones."""
        return await self._set_state(workspace, name, PAUSED)

    async def resume(self, workspace: str, name: str, ledger: Ledger) -> Workspace:
        """Sends what waits for a paused subscription. Endpoints that the operator stopped stay so."""
        changed = await self._set_state(workspace, name, ACTIVE)
        of = _stored(name)
        stopped = await self._workspaces.stopped(workspace, of)
        for endpoint in await self._workspaces.waiting(workspace, of):
            if endpoint not in stopped:
                await ledger.stop(endpoint, resume=True)  # puts it into the schedule
        return changed

    async def _set_state(self, workspace: str, name: str, state: str) -> Workspace:
        def change(there: Workspace | None) -> dict[str, Any]:
            found(_there(there, workspace), name)
            return _of(name, {"state": state})

        return await self._workspaces.write(workspace, change)

    async def remove(self, workspace: str, name: str, ledger: Ledger, *, force: bool = False) -> int:
        """Removes a subscription. Raises InvalidInput for the default one, StillWaiting unless forced.

        Returns how many callbacks were waiting. They are made due now, and end `failed` (`subscription_removed`) when a
        worker claims them.
        """
        if name == DEFAULT:
            raise InvalidInput(
                "the default subscription cannot be removed; without a callback URL a workspace posts nothing of its own"
            )
        found(await self._workspaces.require(workspace), name)
        waiting = await self._workspaces.waiting(workspace, name)
        total = sum(waiting.values())
        if total and not force:
            what = "1 callback waits" if total == 1 else f"{total} callbacks wait"
            raise StillWaiting(
                f"{what} for subscription {name!r}; let them end, or --force ends them as failed"
            )

        def remove(there: Workspace | None) -> dict[str, Any]:
            found(_there(there, workspace), name)
            return _of(name, dict.fromkeys(FIELDS))

        await self._workspaces.write(workspace, remove)
        stopped = await self._workspaces.stopped(workspace, name)
        for endpoint in {**waiting, **dict.fromkeys(stopped)}:
            await ledger.expedite(endpoint)
        return total


def found(workspace: Workspace, name: str) -> Workspace | Subscription:
    """The subscription of that name. Raises NotFound, which names those that there are."""
    if name == DEFAULT:
        return workspace
    if name in workspace.subscriptions:
        return workspace.subscriptions[name]
    names = [DEFAULT, *workspace.subscriptions]
    near = get_close_matches(name, names, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise NotFound(
        f"workspace {workspace.id!r} has no subscription {name!r}; {meant}it has {', '.join(names)}"
    )


def _stored(name: str) -> str:
    """The name as callbacks and endpoints have it."""
    return "" if name == DEFAULT else name


def _of(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A subscription's fields, as the workspace's hash has them."""
    suffix = "" if name == DEFAULT else f":{name}"
    return {f"{field}{suffix}": value for field, value in fields.items()}


def _dialect(name: str, workspace: Workspace) -> str:
    known = sorted(one for one in dialects() if platform_of(one) == platform_of(workspace.dialect))
    if name not in known:
        raise InvalidInput(
            f"a subscription's dialect is one of its workspace's platform, {', '.join(known)}, not {name!r}"
        )
    return name


def _there(workspace: Workspace | None, name: str) -> Workspace:
    if workspace is None:
        raise NotFound(f"there is no workspace {name!r}; `dispatcher workspace list` shows them")
    return workspace


def _raise_problem(receiver: Receiver) -> None:
    if receiver.problem:
        raise InvalidInput(receiver.problem)
