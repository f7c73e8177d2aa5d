"""Workspaces: the customers, each with a dialect, a callback URL, secrets and limits."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from dispatcher.addresses import parse_callback_url
from dispatcher.connection import translated
from dispatcher.dialects import dialects
from dispatcher.errors import AlreadyExists, InvalidInput, NotFound, StillWaiting
from dispatcher.keys import Keys
from dispatcher.ledger import Ledger
from dispatcher.model import WORKSPACE_PATTERN
from dispatcher.secrets import Secret, SecretBox, generate_secret

MAX_CONCURRENCY = 1000


@dataclass(frozen=True, slots=True)
class Workspace:
    """One customer. `revision` changes with every change of it."""

    id: str
    dialect: str
    callback_url: str
    secrets: tuple[Secret, ...]
    created_ms: int
    revision: str
    max_concurrency: int | None = None
    """Callbacks in flight to one of its endpoints at most; None: the setting's."""
    problem: str | None = None
    """Why its secrets cannot be opened; they are empty then."""

    def live_secrets(self, now_ms: int) -> list[Secret]:
        """The secrets that sign now, oldest first. Raises InvalidInput where there are none to use."""
        if self.problem:
            raise InvalidInput(self.problem)
        live = [s for s in self.secrets if s.expires_ms is None or s.expires_ms > now_ms]
        if not live:
            raise InvalidInput("it has no live secret")
        return live


class Workspaces:
    """Reads and changes workspaces in Redis."""

    def __init__(
        self,
        client: "redis.asyncio.Redis",
        keys: Keys,
        box: SecretBox,
        *,
        url: str = "",
        allow_http: bool = False,
    ) -> None:
        self._client = client
        self._keys = keys
        self._box = box
        self._url = url
        self._allow_http = allow_http

    async def get(self, workspace: str) -> Workspace | None:
        """The workspace, or None."""
        with translated(self._url):
            fields: Any = await self._client.hgetall(self._keys.workspace(workspace))
        return self._read(workspace, fields) if fields else None

    async def require(self, workspace: str) -> Workspace:
        """The workspace. Raises NotFound."""
        found = await self.get(workspace)
        if found is None:
            raise _unknown(workspace)
        return found

    async def names(self) -> list[str]:
        """All workspaces' names, in order."""
        with translated(self._url):
            names: Any = await self._client.smembers(self._keys.workspaces)
        return sorted(name.decode() for name in names)

    async def add(
        self,
        workspace: str,
        dialect: str,
        callback_url: str,
        *,
        now_ms: int,
        secret: str | None = None,
        max_concurrency: int | None = None,
    ) -> Workspace:
        """Makes a workspace. Raises InvalidInput or AlreadyExists."""
        if not re.fullmatch(WORKSPACE_PATTERN, workspace):
            raise InvalidInput("a workspace's name is 1 to 64 letters, digits, _ or -")
        if dialect not in dialects():
            raise InvalidInput(f"unknown dialect {dialect!r}; there are {', '.join(sorted(dialects()))}")
        new = Secret(secret or generate_secret(), now_ms)
        new.key  # noqa: B018  raises for a malformed secret
        made = Workspace(workspace, dialect, callback_url, (new,), now_ms, "", max_concurrency)
        fields = {"dialect": dialect, "secrets": self._box.seal(made.secrets), "created": now_ms}
        fields |= self._changeable(callback_url, max_concurrency)
        if not await self._write(workspace, fields, must_exist=False):
            raise AlreadyExists(
                f"workspace {workspace!r} is there already; `dispatcher workspace update` changes it"
            )
        return made

    async def update(
        self, workspace: str, *, callback_url: str | None = None, max_concurrency: int | None = None
    ) -> Workspace:
        """Changes a workspace: the URL for later status changes, limits from the next claim.

        Raises NotFound or InvalidInput.
        """
        if not await self._write(workspace, self._changeable(callback_url, max_concurrency), must_exist=True):
            raise _unknown(workspace)
        return await self.require(workspace)

    async def _write(self, workspace: str, fields: dict[str, Any], *, must_exist: bool) -> bool:
        """Sets fields and a new revision, unless the workspace is missing (or there, for a new one)."""
        key = self._keys.workspace(workspace)
        written = False

        async def write(pipe: Any) -> None:
            nonlocal written
            written = bool(await pipe.exists(key)) == must_exist
            pipe.multi()
            if written:
                pipe.hset(key, mapping=fields | {"revision": secrets.token_hex(6)})
                pipe.sadd(self._keys.workspaces, workspace)

        with translated(self._url):
            await self._client.transaction(write, key)  # again, should the key change meanwhile
        return written

    async def waiting(self, workspace: str) -> dict[str, int]:
        """The workspace's endpoints that have waiting callbacks, with how many."""
        found: dict[str, int] = {}
        with translated(self._url):
            async for endpoint, _ in self._client.zscan_iter(self._keys.schedule):
                key = self._keys.endpoint(endpoint.decode())
                fields: Any = await self._client.hmget(key, "name", "waiting")
                name, waiting = fields
                if name and name.split(b" ")[0] == workspace.encode() and int(waiting or 0) > 0:
                    found[endpoint.decode()] = int(waiting)
        return found

    async def remove(self, workspace: str, ledger: Ledger, *, force: bool = False) -> int:
        """Removes a workspace. Raises NotFound, or StillWaiting unless forced.

        Returns how many callbacks were waiting: they end `failed` (`workspace_removed`) as soon
        as a worker takes them up, which is now.
        """
        with translated(self._url):
            if not await self._client.exists(self._keys.workspace(workspace)):
                raise _unknown(workspace)
        waiting = await self.waiting(workspace)
        total = sum(waiting.values())
        if total and not force:
            raise StillWaiting(
                f"{total} callbacks of {workspace!r} wait; let them end, or --force ends them as failed"
            )
        with translated(self._url):
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.delete(self._keys.workspace(workspace))
                pipe.srem(self._keys.workspaces, workspace)
                await pipe.execute()
        for endpoint in waiting:
            await ledger.hurry(endpoint)
        return total

    def _changeable(self, callback_url: str | None, max_concurrency: int | None) -> dict[str, Any]:
        """The fields an update may set, checked. Raises InvalidInput."""
        if callback_url is not None:
            parse_callback_url(callback_url, allow_http=self._allow_http)
        if max_concurrency is not None and not 1 <= max_concurrency <= MAX_CONCURRENCY:
            raise InvalidInput(f"max_concurrency is 1 to {MAX_CONCURRENCY}, not {max_concurrency}")
        given = {"callback_url": callback_url, "max_concurrency": max_concurrency}
        return {name: value for name, value in given.items() if value is not None}

    def _read(self, workspace: str, fields: Mapping[bytes, bytes]) -> Workspace:
        limit = fields.get(b"max_concurrency")
        opened, problem = self._open(fields[b"secrets"])
        return Workspace(
            workspace,
            fields[b"dialect"].decode(),
            fields[b"callback_url"].decode(),
            opened,
            int(fields[b"created"]),
            fields[b"revision"].decode(),
            int(limit) if limit else None,
            problem,
        )

    def _open(self, sealed: bytes) -> tuple[tuple[Secret, ...], str | None]:
        try:
            return self._box.open(sealed), None
        except InvalidInput as error:
            return (), str(error)


def _unknown(workspace: str) -> NotFound:
    return NotFound(f"there is no workspace {workspace!r}; `dispatcher workspace list` shows them")


class WorkspaceCache:
    """Workspaces as last read; one whose revision differs is read again. An unknown one is not kept."""

    def __init__(self, workspaces: Workspaces) -> None:
        self._workspaces = workspaces
        self._known: dict[str, Workspace] = {}

    async def get(self, workspace: str, revision: str | None = None) -> Workspace | None:
        """The workspace, at least as new as `revision` (None: as last read)."""
        known = self._known.get(workspace)
        if known and revision in (None, known.revision):
            return known
        found = await self._workspaces.get(workspace)
        if found is None:
            self._known.pop(workspace, None)
        else:
            self._known[workspace] = found
        return found

    def forget(self, workspace: str) -> None:
        """Has the workspace read again at the next `get`."""
        self._known.pop(workspace, None)
