"""Workspaces: the customers, each with a dialect, a callback URL, secrets and limits."""

import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import redis.asyncio
from redis.exceptions import ResponseError

from dispatcher.errors import AlreadyExists, InvalidInput, NotFound, PartlyDone, StillWaiting
from dispatcher.model import WORKSPACE_PATTERN
from dispatcher.rules.authorization import check_no_conflict
from dispatcher.rules.dialects import dialects
from dispatcher.rules.partitions import MOST_WIDTH, EarlierWidth
from dispatcher.rules.subscription import ACTIVE, DISABLED, Receiver
from dispatcher.rules.workspace import Workspace
from dispatcher.rules.workspace_headers import check_headers
from dispatcher.store.client_certificates import ends_of
from dispatcher.store.connection import translated
from dispatcher.store.damaged import naming, needed_type, number, of_type, reply
from dispatcher.store.endpoints_of import Owned, endpoints_of, pending_of
from dispatcher.store.installation import Installation
from dispatcher.store.key_rotation import new_secret, rotated_fields
from dispatcher.store.keys import Keys
from dispatcher.store.ledger import Ledger
from dispatcher.store.sealing import SecretBox
from dispatcher.store.workspace_record import WorkspaceRecord, as_stored

READ_AT_ONCE = 500
"""Workspaces read per round trip."""


@dataclass
class Resealed:
    """What was encrypted anew."""

    count: int = 0
    """Workspaces."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Those that were not, and why: their secrets, or a part of their records, cannot be read."""


class Workspaces:
    """Reads and changes workspaces in Redis."""

    partitions = 1
    """Over how many partitions a workspace can be spread."""

    def __init__(
        self,
        client: "redis.asyncio.Redis",
        keys: Keys,
        box: SecretBox,
        *,
        url: str = "",
        allow_http: bool = False,
        expiry_seconds: int = 172_800,
    ) -> None:
        self._client = client
        self._keys = keys
        self.record = WorkspaceRecord(box, allow_http=allow_http, expiry_seconds=expiry_seconds)
        """Validates and encrypts fields; `Subscriptions` does so with it too."""
        self._url = url
        self.installation = Installation(client, keys, url)
        """Whose workspaces they are; `Subscriptions` looks at its format."""

    async def get(self, workspace: str) -> Workspace | None:
        """The workspace, or None."""
        with translated(self._url):
            fields: Any = await self._client.hgetall(self._keys.workspace(workspace))
        return self.record.read(workspace, fields) if fields else None

    async def find(self, workspace: str) -> Workspace | None:
        """The workspace, or None; of one whose record is damaged only the name, and its `problem`."""
        return next(iter(await self.some([workspace])), None)

    async def require(self, workspace: str) -> Workspace:
        """The workspace; of one whose record is damaged only the name, and its `problem`.

        Raises NotFound, which suggests the most similar name.
        """
        found = await self.find(workspace)
        if found is None:
            raise unknown(workspace, get_close_matches(workspace, await self.names(), 1))
        return found

    async def all(self) -> list[Workspace]:
        """All workspaces, sorted by name; of those whose record is damaged only the name, and their `problem`."""
        names, found = await self.names(), list[Workspace]()
        for first in range(0, len(names), READ_AT_ONCE):
            found += await self.some(names[first : first + READ_AT_ONCE])
        return found

    async def some(self, names: Sequence[str]) -> list[Workspace]:
        """Those of the workspaces that there are, in one round trip; as `find` gives each."""
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(self._keys.workspace(name))
        with translated(self._url):
            replies = await pipe.execute(raise_on_error=False)
            return [
                self.record.readable(name, fields)
                for name, fields in zip(names, replies, strict=True)
                if fields  # else there is none, or it was removed meanwhile
            ]

    async def names(self) -> list[str]:
        """The names of all workspaces, sorted."""
        with translated(self._url):
            names: Any = await of_type(
                self._client.smembers(self._keys.workspaces), self._keys.workspaces, ()
            )
        return sorted(name.decode(errors="replace") for name in names)

    async def not_copied(self) -> dict[str, list[int]]:
        """The partitions of each workspace whose copy of its record is not as the record is; with one partition there is none."""
        return {}

    async def add(
        self,
        workspace: str,
        dialect: str,
        callback_url: str = "",
        *,
        now_ms: int,
        secret: str | None = None,
        max_concurrency: int | None = None,
        rate_per_second: float | None = None,
        ordering: str | None = None,
        headers: Mapping[str, str] | None = None,
        width: int | None = None,
    ) -> Workspace:
        """Creates a workspace. Raises InvalidInput or AlreadyExists."""
        if not re.fullmatch(WORKSPACE_PATTERN, workspace):
            raise InvalidInput("a workspace's name is 1 to 64 letters, digits, _ or -")
        if dialect not in dialects():
            raise InvalidInput(f"unknown dialect {dialect!r}; there are {', '.join(sorted(dialects()))}")
        fields: dict[str, Any] = {
            "dialect": dialect,
            "callback_url": "",
            "secrets": self.record.seal([new_secret(secret, now_ms)]),
            "created": now_ms,
        }
        fields |= self.record.settable(callback_url or None, max_concurrency, rate_per_second, ordering)
        if headers:
            fields["headers"] = self.record.seal(check_headers(headers, dialect))
        fields |= self._width(width, 1)

        def make(there: Workspace | None) -> dict[str, Any]:
            if there:
                raise AlreadyExists(
                    f"workspace {workspace!r} is there already; `dispatcher workspace update` changes it"
                )
            return fields

        return await self.write(workspace, make)

    async def update(
        self,
        workspace: str,
        *,
        now_ms: int,
        callback_url: str | None = None,
        max_concurrency: int | None = None,
        rate_per_second: float | None = None,
        ordering: str | None = None,
        headers: Mapping[str, str] | None = None,
        width: int | None = None,
    ) -> Workspace:
        """Changes a workspace. The URL applies to later status changes, `width` to later messages, the rest from the next claim.

        Sets each of `headers`, and removes one with an empty value. Raises NotFound or InvalidInput.
        """
        settable = self.record.settable(callback_url, max_concurrency, rate_per_second, ordering)

        def change(there: Workspace | None) -> dict[str, Any]:
            known = _there(there, workspace)
            fields = settable | self._width(width, known.width)
            if "width" in fields:
                earlier = [*known.earlier_widths, EarlierWidth(known.width, now_ms)]
                fields["widths"] = " ".join(map(str, earlier))
            if not headers:
                return fields
            _raise_problem(known)
            given = {name.lower() for name in headers}
            kept = {name: value for name, value in known.headers.items() if name.lower() not in given}
            wanted = kept | {name: value for name, value in headers.items() if value}
            check_no_conflict(known.auth, wanted)
            return fields | {"headers": self.record.seal(check_headers(wanted, known.dialect, known.headers))}

        return await self.write(workspace, change)

    def _width(self, width: int | None, before: int) -> dict[str, Any]:
        """The field that spreads a workspace over `width` partitions, at most all; none if that is None or nothing new.

        It only grows, because what waits stays where it is, and is looked for where it may be. Raises InvalidInput.
        """
        if width is None or width == before:
            return {}
        if not 1 <= width <= MOST_WIDTH:
            raise InvalidInput(f"a workspace's width is 1 to {MOST_WIDTH} partitions, not {width}")
        if self.partitions == 1:
            raise InvalidInput(
                f"this installation has one partition (DISPATCHER_PARTITIONS): a workspace's width is 1, not {width}"
            )
        width = min(width, self.partitions)
        if width == before:
            return {}
        if width < before:
            raise InvalidInput(
                f"the workspace is spread over {before} partitions, and cannot be spread over fewer: {width}"
            )
        return {"width": width}

    async def create_callback_url(self, workspace: str, callback_url: str, *, now_ms: int) -> Workspace:
        """Sets the callback URL of a workspace that has none. Raises NotFound, AlreadyExists or InvalidInput."""
        fields = self.record.settable(callback_url) | {"webhook": now_ms}

        def create(there: Workspace | None) -> dict[str, Any]:
            if _there(there, workspace).callback_url:
                raise AlreadyExists("there is a callback URL already; change or delete it")
            return fields | _not_disabled(there)

        with suppress(PartlyDone):  # one receiver is disabled only if all partitions say so
            await self.forget_failing(workspace, "")
        return await self.write(workspace, create)

    async def replace_callback_url(self, workspace: str, callback_url: str) -> Workspace:
        """Changes the callback URL of a workspace that has one; an empty one removes it.

        Raises NotFound or InvalidInput.
        """
        fields = self.record.settable(callback_url or None)

        def change(there: Workspace | None) -> dict[str, Any]:
            if not _there(there, workspace).callback_url:
                raise NotFound("there is no callback URL; create it first")
            return (fields | _not_disabled(there)) or {"callback_url": ""}

        with suppress(PartlyDone):  # one receiver is disabled only if all partitions say so
            await self.forget_failing(workspace, "")
        return await self.write(workspace, change)

    async def rotate_secret(
        self, workspace: str, *, now_ms: int, grace_ms: int, secret: str | None = None
    ) -> Workspace:
        """Gives a workspace a new secret; the previous ones keep signing for `grace_ms`.

        Raises NotFound, or InvalidInput if more than three would be live.
        """
        new = new_secret(secret, now_ms)

        def rotate(there: Workspace | None) -> dict[str, Any]:
            known = _there(there, workspace)
            _raise_problem(known)
            return rotated_fields(self.record, known, new, now_ms, grace_ms)

        return await self.write(workspace, rotate)

    async def rotate_encryption(self) -> Resealed:
        """Encrypts all secrets and headers with the newest key."""
        found = Resealed()
        for name in await self.names():
            await self._seal_anew(name, found)
        return found

    async def _seal_anew(self, workspace: str, found: Resealed) -> None:
        """Encrypts the secrets and headers of a workspace, if it is there, and counts it."""

        def reseal(there: Workspace | None) -> dict[str, Any]:
            known = _there(there, workspace)
            _raise_problem(known)
            fields: dict[str, Any] = {}
            for suffix, one in [("", known), *((f":{n}", s) for n, s in known.subscriptions.items())]:
                _raise_problem(known, one)
                fields |= {f"{name}{suffix}": value for name, value in self.record.sealed(one).items()}
            return fields

        with suppress(NotFound):  # removed meanwhile
            try:
                await self.write(workspace, reseal, anew=True)
                found.count += 1
            except InvalidInput as error:
                found.damaged[workspace] = str(error)

    async def count_webhook_change(self, workspace: str, now_ms: int) -> int:
        """Counts a webhook change by the customer; returns the count of this minute, across all processes."""
        key = self._keys.webhook_changes(workspace, now_ms // 60_000)
        with translated(self._url):
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.incr(key)
                pipe.expire(key, 120)
                count, _ = await pipe.execute()
        return int(count)

    async def write(
        self,
        workspace: str,
        change: Callable[[Workspace | None], dict[str, Any]],
        *,
        anew: bool = False,
        look_at: Collection[str] = (),
        look: Callable[[dict[str, int]], None] = lambda _: None,
    ) -> Workspace:
        """Sets the fields that `change` returns for the current workspace, and a new revision, atomically.

        Fields that are None are removed. If nothing would change, writes nothing and keeps the revision, unless `anew`. Secrets and headers are compared
        decrypted: encrypted, equal ones differ. `look` gets how many callbacks wait for the endpoints (ids) `look_at`,
        as it is in the moment of the change, and may raise.
        """
        key, before = self._keys.workspace(workspace), None
        records = {one: self._keys.endpoint(one) for one in look_at}

        async def write(pipe: Any) -> None:
            nonlocal before
            try:
                there = await pipe.hgetall(key)
            except ResponseError as error:
                there = error
            before = self.record.readable(workspace, there) if there else None
            if before and before.is_damaged:
                raise InvalidInput(why_damaged(before))
            fields = change(before)
            look({one: await _waiting(pipe, record) for one, record in records.items()})
            gone = [name for name, value in fields.items() if value is None]
            stored = {k: v for k, v in (there | as_stored(fields)).items() if k.decode() not in gone}
            after = self.record.read(workspace, stored) if before else None
            if before and not anew and before == after:
                await pipe.unwatch()
                return
            await self._require_list(pipe)
            pipe.multi()
            self._note_certificates(pipe, ends_of(before), ends_of(after))
            if gone:
                pipe.hdel(key, *gone)
            kept = {name: value for name, value in fields.items() if value is not None}
            pipe.hset(key, mapping=kept | {"revision": secrets.token_hex(6)})
            pipe.sadd(self._keys.workspaces, workspace)

        with translated(self._url):  # runs again if one of the keys changes meanwhile
            await self._client.transaction(write, key, *records.values())
        return replace(await self.require(workspace), before=before)

    async def _require_list(self, pipe: Any) -> None:
        """Raises OtherFormat if the list of names is of another type: within MULTI all else would be changed first."""
        with needed_type(self._keys.workspaces):
            await pipe.sismember(self._keys.workspaces, "")

    async def copy(self, workspace: str) -> None:
        """Copies a workspace's record to where it was not copied (`Workspace.not_copied`): nowhere, with one partition.

        Raises NotFound, or RedisUnavailable if a partition does not answer.
        """

    def _note_certificates(
        self, pipe: Any, before: Mapping[str, int | None], after: Mapping[str, int | None]
    ) -> None:
        """Notes when client certificates end: also those that a change leaves as they are, as the list may have been lost."""
        for member in before.keys() | after.keys():
            ends_ms = after.get(member)
            if ends_ms is None and before.get(member) is None and member in after:
                continue  # there is none, or it cannot be unsealed
            if ends_ms is None:
                pipe.zrem(self._keys.client_certificates, member)
            else:
                pipe.zadd(self._keys.client_certificates, {member: ends_ms})

    async def endpoints(self, workspace: str, subscription: str | None = None) -> list[Owned]:
        """The endpoints of a workspace, or of one subscription (empty: the default one)."""
        with translated(self._url):
            return await endpoints_of(workspace, self._client, self._keys, subscription)

    async def waiting(self, workspace: str, subscription: str | None = None) -> dict[str, int]:
        """The endpoints (ids) of a workspace, or of one subscription, that have waiting callbacks, with how many."""
        return {
            one.id: one.waiting for one in await self.endpoints(workspace, subscription) if one.waiting > 0
        }

    async def pending(self, workspace: str, subscription: str | None = None) -> dict[str, int]:
        """As `waiting`, by the callbacks themselves: takes long where many wait."""
        with translated(self._url):
            return await pending_of(workspace, self._client, self._keys, subscription)

    async def all_waiting(self, workspace: str, subscription: str | None = None) -> dict[str, int]:
        """As `waiting`, with the endpoints that are not listed because their list was lost, before something is removed."""
        listed = await self.waiting(workspace, subscription)
        pending = await self.pending(workspace, subscription)
        return {one: max(listed.get(one, 0), pending.get(one, 0)) for one in {**listed, **pending}}

    async def forget_failing(self, workspace: str, subscription: str) -> None:
        """Forgets since when every attempt of a subscription failed (lua/lib/breaker.lua)."""
        for endpoint in await self.endpoints(workspace, subscription):
            if endpoint.has_failed:
                with translated(self._url):
                    await self._client.hdel(self._keys.endpoint(endpoint.id), "failing", "gone")

    async def stopped(self, workspace: str, subscription: str | None = None) -> list[str]:
        """The endpoints (ids) of a workspace, or of one subscription, that the operator stopped."""
        return [one.id for one in await self.endpoints(workspace, subscription) if one.is_stopped]

    async def remove(self, workspace: str, ledger: Ledger, *, force: bool = False) -> int:
        """Removes a workspace and its API keys. Raises NotFound, or StillWaiting unless forced.

        Returns how many callbacks were waiting. They are made due now, and end `failed`
        (`workspace_removed`) when a worker claims them.
        """
        with translated(self._url):
            if not await self._client.exists(self._keys.workspace(workspace)):
                raise unknown(workspace)
        waiting = await self.all_waiting(workspace)
        total = sum(waiting.values())
        if total and not force:
            raise still_waiting(workspace, total)
        api_keys = self._keys.api_keys(workspace)

        async def remove(pipe: Any) -> None:
            with naming(api_keys):
                members = await pipe.smembers(api_keys)
            with naming(self._keys.client_certificates):
                known = await pipe.zrange(self._keys.client_certificates, 0, -1)
            await self._require_list(pipe)
            pipe.multi()
            if own := [one for one in known if one.startswith(f"{workspace} ".encode())]:
                pipe.zrem(self._keys.client_certificates, *own)
            records = [self._keys.api_key(id_.decode(errors="replace")) for id_ in members]
            pipe.delete(self._keys.workspace(workspace), api_keys, *records)
            pipe.srem(self._keys.workspaces, workspace)

        with translated(self._url):
            watched = api_keys, self._keys.workspace(workspace), self._keys.client_certificates
            await self._client.transaction(remove, *watched)  # runs again if one of these changes meanwhile
        stopped = await self.stopped(workspace)
        for endpoint in {**waiting, **dict.fromkeys(stopped)}:
            await ledger.expedite(endpoint)
        return total


async def _waiting(pipe: Any, record: str) -> int:
    """How many callbacks wait for an endpoint; 0 if its record is damaged, as where endpoints are listed."""
    try:
        return number(await pipe.hget(record, "waiting"))
    except ResponseError as error:
        return int(reply(error, record, 0))


def _there(workspace: Workspace | None, name: str) -> Workspace:
    if workspace is None:
        raise unknown(name)
    return workspace


def why_damaged(workspace: Workspace) -> str:
    """What is said of a workspace whose record is damaged, where it would have to be known."""
    return (
        f"workspace {workspace.id!r}: {workspace.problem}; nothing was changed. Mend the field in Redis, "
        "or `dispatcher workspace remove` it"
    )


def _not_disabled(workspace: Workspace | None) -> dict[str, Any]:
    """The fields that bring a disabled default subscription back: its customer has set another URL."""
    is_disabled = workspace is not None and workspace.state == DISABLED
    return {"state": ACTIVE, "disabled": None} if is_disabled else {}


def _raise_problem(workspace: Workspace, receiver: Receiver | None = None) -> None:
    if problem := (receiver or workspace).problem:
        raise InvalidInput(f"workspace {workspace.id!r}: {problem}")


def still_waiting(workspace: str, total: int) -> StillWaiting:
    """The error for a workspace that is to be removed and has waiting callbacks."""
    what = "1 callback" if total == 1 else f"{total} callbacks"
    return StillWaiting(
        f"{what} of {workspace!r} {'waits' if total == 1 else 'wait'}; let them end, or --force ends them as failed"
    )


def unknown(workspace: str, near: Sequence[str] = ()) -> NotFound:
    """The error for a workspace that there is not; `near` are similar names."""
    meant = f"did you mean {near[0]}? " if near else ""
    return NotFound(f"there is no workspace {workspace!r}; {meant}`dispatcher workspace list` shows them")
