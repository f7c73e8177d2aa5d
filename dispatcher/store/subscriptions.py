"""Subscriptions: a workspace's receivers beside its default one. They are fields of the workspace's hash (workspace_record.py).

So a change of one gives the workspace a new revision, and accept takes no status change that was rendered before it.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from dispatcher.errors import (
    AlreadyExists,
    InvalidInput,
    NotFound,
    PartlyDone,
    RedisUnavailable,
    StillWaiting,
)
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.dialects import dialects, platform_of
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.subscription import (
    ACTIVE,
    DEFAULT,
    DISABLED,
    MOST,
    PAUSED,
    Receiver,
    Subscription,
    check_name,
)
from dispatcher.rules.unrendered import NOWHERE
from dispatcher.rules.workspace import Workspace
from dispatcher.rules.workspace_headers import check_headers
from dispatcher.store.credentials import Credentials
from dispatcher.store.format import require_known
from dispatcher.store.key_rotation import new_secret, rotated_fields
from dispatcher.store.keys import endpoint_id
from dispatcher.store.ledger import Ledger
from dispatcher.store.workspaces import Workspaces, why_damaged

FIELDS = (
    "callback_url", "secrets", "created", "dialect", "headers", "max_concurrency", "rate_per_second", "ordering",
    "events", "channels", "without_fields", "retry_schedule", "state", "disabled", "signing_keys", "auth",
    "client_certificate",
)  # fmt: skip
"""A subscription's fields, without its name."""

OF_SUBSCRIPTIONS = (
    "events", "channels", "without_fields", "retry_schedule", "signing_keys", "auth", "client_certificate",
)  # fmt: skip
"""Fields that versions without subscriptions do not know: they would act as if a default subscription had none."""


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
        sealed, given = self._record.seal([new_secret(secret, now_ms)]), Credentials.taken_from(terms)

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
            fields |= given.fields(self._record, None, headers or {}, now_ms)
            if headers:
                fields["headers"] = self._record.seal(check_headers(headers, spoken))
            fields |= {"secrets": sealed, "created": now_ms, "dialect": dialect}
            return _of(name, fields)

        add(await self._workspaces.find(workspace))  # raises for bad input before anything is changed
        await require_known(self._workspaces.installation, given.format)
        return await self._workspaces.write(workspace, add)

    async def update(
        self,
        workspace: str,
        name: str,
        *,
        callback_url: str | None = None,
        dialect: str | None = None,
        headers: Mapping[str, str] | None = None,
        now_ms: int = 0,
        **terms: Any,
    ) -> Workspace:
        """Changes a subscription.

        `terms`: max_concurrency, rate_per_second, ordering, events, channels, without_fields, retry_schedule, and those of
        Credentials; a key pair is of `now_ms`. What says which callbacks there are and what is in them applies to later
        status changes: the URL, the dialect, events, channels and without_fields; all else from the next claim. An empty
        `events` or `channels` means all; a header with an empty value is removed. Raises InvalidInput, or OtherFormat
        (store/format.py).
        """
        given = Credentials.taken_from(terms)

        def change(there: Workspace | None) -> dict[str, Any]:
            known = _there(there, workspace)
            before = found(known, name)
            if dialect and name == DEFAULT:
                raise InvalidInput("the dialect of the default subscription is the workspace's, and stays")
            spoken = _dialect(dialect or before.dialect, known)
            kept = {"events": before.events, "without_fields": before.without_fields} if dialect else {}
            fields = self._record.settable(callback_url, dialect=spoken, **kept | terms)
            if headers or given:
                _raise_problem(before)
            wanted = _merged(before.headers, headers or {})
            if headers:
                fields["headers"] = self._record.seal(check_headers(wanted, spoken, before.headers))
            fields |= given.fields(self._record, before, wanted, now_ms)
            return _of(name, fields | ({"dialect": dialect} if dialect else {}))

        known = await self._workspaces.find(workspace)
        fields = change(known)  # raises for bad input before anything is changed
        if name != DEFAULT or any(fields.get(field) for field in OF_SUBSCRIPTIONS):
            await require_known(self._workspaces.installation, given.format)
        return await self._workspaces.write(workspace, change)

    async def rotate_secret(
        self, workspace: str, name: str, *, now_ms: int, grace_ms: int, secret: str | None = None
    ) -> Workspace:
        """Gives a subscription a new secret; the previous ones keep signing for `grace_ms`. Raises InvalidInput."""
        new = new_secret(secret, now_ms)

        def rotate(there: Workspace | None) -> dict[str, Any]:
            before = found(_there(there, workspace), name)
            _raise_problem(before)
            return _of(name, rotated_fields(self._record, before, new, now_ms, grace_ms))

        return await self._workspaces.write(workspace, rotate)

    async def pause(self, workspace: str, name: str) -> Workspace:
        """Lets a subscription's callbacks wait: those that there are, and later ones.

        Raises InvalidInput for a disabled one: it has none; or OtherFormat (store/format.py).
        """
        found(await self._workspaces.require(workspace), name)
        await require_known(self._workspaces.installation)
        return await self._set_state(workspace, name, PAUSED)

    async def resume(self, workspace: str, name: str, ledger: Ledger) -> Workspace:
        """Sends what waits for a paused subscription, or brings back a disabled one.

        Endpoints that the operator stopped stay so.
        """
        of = _stored(name)
        found(await self._workspaces.require(workspace), name)
        try:  # first, or it could be disabled again at once
            await self._workspaces.forget_failing(workspace, of)
        except PartlyDone as error:
            raise RedisUnavailable(
                f"subscription {name!r} is not resumed while a partition of the workspace does not answer: repeat it when all do"
            ) from error
        changed = await self._set_state(workspace, name, ACTIVE)
        stopped = await self._workspaces.stopped(workspace, of)
        for endpoint in await self._workspaces.waiting(workspace, of):
            if endpoint not in stopped:
                await ledger.stop(endpoint, resume=True)  # puts it into the schedule
        return changed

    async def _set_state(self, workspace: str, name: str, state: str) -> Workspace:
        def change(there: Workspace | None) -> dict[str, Any]:
            before = found(_there(there, workspace), name)
            if state == PAUSED and before.state == DISABLED:
                raise InvalidInput(
                    f"subscription {name!r} is disabled; `dispatcher subscription resume` brings it back"
                )
            return _of(name, {"state": state, "disabled": None})

        return await self._workspaces.write(workspace, change)

    async def disable(self, endpoint: EndpointName, reason: str, *, now_ms: int) -> Workspace | None:
        """Disables the subscription that an endpoint is of; None if it is not active, or has another URL by now.

        Its callbacks end `failed` (`subscription_disabled`) when a worker claims them; `end_disabled` makes them due.
        """
        workspace, name = endpoint.workspace, endpoint.subscription or DEFAULT
        is_disabled = False

        def disable(there: Workspace | None) -> dict[str, Any]:
            nonlocal is_disabled
            is_disabled = can_disable(found(_there(there, workspace), name), endpoint)
            return _of(name, {"state": DISABLED, "disabled": f"{now_ms} {reason}"}) if is_disabled else {}

        changed = await self._workspaces.write(workspace, disable)
        return changed if is_disabled else None

    async def end_disabled(
        self, endpoint: EndpointName, ledgers: Sequence[Ledger], *, copies: bool = False
    ) -> None:
        """Makes due what waits in `ledgers` for a subscription that is disabled; with `copies` copies that it is first.

        Can be repeated: one that was brought back meanwhile stays as it is.
        """
        workspace, name = endpoint.workspace, endpoint.subscription or DEFAULT
        if copies:
            await self._workspaces.copy(workspace)
        if found(await self._workspaces.require(workspace), name).state == DISABLED:
            for id_ in await self._to_end(endpoint):
                for ledger in ledgers:
                    await ledger.expedite(id_)

    async def _to_end(self, endpoint: EndpointName) -> list[str]:
        """The endpoints (ids) at which the callbacks of a disabled subscription wait."""
        workspace, name = endpoint.workspace, endpoint.subscription
        stopped = await self._workspaces.stopped(workspace, name)
        # other endpoints of the default one are of URLs that came with status changes
        found = await self._workspaces.waiting(workspace, name) if name else [endpoint_id(endpoint)]
        # expediting would resume a stopped one; what waits there ends when it is resumed, or expires
        return [id_ for id_ in found if id_ not in stopped]

    async def remove(self, workspace: str, name: str, ledger: Ledger, *, force: bool = False) -> int:
        """Removes a subscription. Raises InvalidInput for the default one, StillWaiting unless forced.

        Returns how many callbacks were waiting. They are made due now, and end `failed` (`subscription_removed`) when a
        worker claims them.
        """
        if name == DEFAULT:
            raise InvalidInput(
                "the default subscription cannot be removed; without a callback URL a workspace posts nothing of its own"
            )
        waiting: dict[str, int] | None = None
        while waiting is None:
            waiting = await self._remove(workspace, name, force)
        stopped = await self._workspaces.stopped(workspace, name)
        for endpoint in {**{one: n for one, n in waiting.items() if n}, **dict.fromkeys(stopped)}:
            await ledger.expedite(endpoint)
        return sum(waiting.values())

    async def _remove(self, workspace: str, name: str, force: bool) -> dict[str, int] | None:
        """Removes it, and returns how many callbacks waited, by endpoint; None: try again, the workspace has changed.

        A callback is accepted only by the workspace's present revision, so for an endpoint that was found, or for that
        of the present URL: these are looked at in the transaction that removes it, and none can come in between.
        """
        known, is_changed = await self._workspaces.require(workspace), False
        found(known, name)
        listed = {one.id: one.waiting for one in await self._workspaces.endpoints(workspace, name)}
        waiting = listed | await self._workspaces.all_waiting(workspace, name)
        waiting.setdefault(_endpoint_id(known, name), 0)

        def remove(there: Workspace | None) -> dict[str, Any]:
            nonlocal is_changed
            found(_there(there, workspace), name)
            is_changed = _there(there, workspace).revision != known.revision
            return {} if is_changed else _of(name, dict.fromkeys(FIELDS))

        def look(counts: dict[str, int]) -> None:
            waiting.update(counts)
            if total := sum(counts.values()):
                what = "1 callback waits" if total == 1 else f"{total} callbacks wait"
                raise StillWaiting(
                    f"{what} for subscription {name!r}; let them end, or --force ends them as failed"
                )

        # with force whatever comes in between ends as well, and a busy endpoint must not hold it up
        await self._workspaces.write(workspace, remove, look_at=() if force else waiting, look=look)
        return None if is_changed else waiting


def _endpoint_id(workspace: Workspace, name: str) -> str:
    """The id of the endpoint for which callbacks of a subscription are accepted now."""
    try:
        origin = parse_callback_url(found(workspace, name).callback_url, allow_http=True).origin
    except InvalidInput:
        origin = parse_callback_url(NOWHERE).origin
    return endpoint_id(EndpointName(workspace.id, origin, name))


def can_disable(receiver: Receiver, endpoint: EndpointName) -> bool:
    """Whether it is active, and the endpoint that of its URL: not of a previous one, or of a status change's own."""
    url = receiver.callback_url
    return receiver.state == ACTIVE and (
        bool(url) and parse_callback_url(url, allow_http=True).origin == endpoint.origin
    )


def found(workspace: Workspace, name: str) -> Workspace | Subscription:
    """The subscription of that name. Raises NotFound, which names those that there are, or InvalidInput for a damaged workspace."""
    if workspace.is_damaged:
        raise InvalidInput(why_damaged(workspace))
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


def _merged(before: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """A receiver's headers after a change; one with an empty value is removed."""
    names = {name.lower() for name in given}
    kept = {name: value for name, value in before.items() if name.lower() not in names}
    return kept | {name: value for name, value in given.items() if value}


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
    if workspace.is_damaged:
        raise InvalidInput(why_damaged(workspace))
    return workspace


def _raise_problem(receiver: Receiver) -> None:
    if receiver.problem:
        raise InvalidInput(receiver.problem)
