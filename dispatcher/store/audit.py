"""The audit trail: who changed what, through the API or a command. Each change gives a log line and a stream entry.

The change is made first: if its entry cannot be written, that is logged and the change stands. The trail holds no
secrets, no header values, and no query or user name of a URL.
"""

import asyncio
import os
import pwd
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog

from dispatcher.errors import RedisUnavailable
from dispatcher.model import encode_json, iso
from dispatcher.rules.workspace import Workspace
from dispatcher.store.connection import translated
from dispatcher.store.damaged import of_type
from dispatcher.store.keys import Keys
from dispatcher.store.wire import Call

KEPT = 10_000
"""Entries that are kept of each stream; Redis may keep a few more (XADD MAXLEN ~).

There is one for what customers do in the portal and one for links to it, so that these never make room at the cost of other changes.
"""
LINK_ADDED = "portal_link.add"
READ_AT_ONCE = 500

log = structlog.get_logger()

Facts = Mapping[str, Any]
"""Fields before or after a change, as JSON."""


@dataclass(frozen=True, slots=True)
class Who:
    """Who made a change."""

    via: str
    """`api`, `command`, `worker`, `console` or `portal`."""
    name: str
    """An API key's id and name, the operating system's user and host, or a worker's name."""


def operator() -> Who:
    """Who runs this process: `user@host`, or `caller as user@host` under sudo."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user has no name
        user = str(os.geteuid())
    behind = os.environ.get("SUDO_USER")
    return Who("command", f"{f'{behind} as ' if behind else ''}{user}@{socket.gethostname()}")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A change as recorded in the trail."""

    at_ms: int
    who: Who
    what: str
    workspace: str
    """Empty if the change concerns no single workspace."""
    before: Facts
    after: Facts

    def as_json(self) -> dict[str, Any]:
        """The document that `audit list --json` prints."""
        return {
            "at": iso(self.at_ms),
            "via": self.who.via,
            "who": self.who.name,
            "what": self.what,
            "workspace": self.workspace or None,
            "from": self.before,
            "to": self.after,
        }


@dataclass(frozen=True, slots=True)
class Audit:
    """Writes and reads the trail on one Redis."""

    call: Call
    keys: Keys
    url: str
    who: Who
    retention_ms: int = 604_800_000
    quiet: bool = False
    """Log at debug level, for use at a terminal; at info level if the entry could not be kept."""
    again: Callable[[Callable[[], Awaitable[bool]]], None] | None = None
    """In a process that goes on: takes what writes an entry that could not be written, to try it later."""

    def by(self, who: Who) -> "Audit":
        """The same trail for another author."""
        return replace(self, who=who)

    async def add(
        self, what: str, workspace: str = "", before: Facts | None = None, after: Facts | None = None
    ) -> None:
        """Records a change that was made, with the fields before and after it. Never raises."""
        before, after = before or {}, after or {}
        kept = await self.keep(what, workspace, before, after)
        if not kept and self.again:
            done_at = iso(time.time_ns() // 1_000_000)  # the entry's own time is when it is written
            late = {**after, "doneAt": done_at}
            self.again(partial(self.keep, what, workspace, before, late, is_quiet=True))
        write = log.debug if self.quiet and kept else log.info
        write(
            "audit",
            via=self.who.via,
            who=self.who.name,
            what=what,
            workspace=workspace or None,
            **{"from": before or None, "to": after or None},
        )

    @asynccontextmanager
    async def steps(self, what: str, workspace: str = "", **about: Any) -> AsyncIterator[dict[str, Any]]:
        """Records a change of many steps as one entry, even if it breaks off.

        The body notes what it has done in the dict it gets; an empty dict adds no entry.
        """
        done: dict[str, Any] = {}
        try:
            yield done
        finally:
            if done:
                told = {name: value for name, value in about.items() if value is not None}
                await self.add(what, workspace, after=told | done)

    async def latest(
        self, limit: int, workspace: str | None = None, most: int | None = None, *, portal: bool = True
    ) -> list[AuditEntry]:
        """The latest changes of one workspace or of all, newest first; among the latest `most` of each stream and partition, if that is given.

        `portal`: with what customers do in the portal, and links to it. Raises RedisUnavailable.
        """
        of_portal = (self.keys.audit_portal, self.keys.audit_links) if portal else ()
        streams = await asyncio.gather(
            *(self._latest(key, limit, workspace, most) for key in (self.keys.audit, *of_portal))
        )
        every = (one for entries in streams for one in entries)
        return sorted(every, key=lambda one: -one.at_ms)[:limit]

    async def _latest(
        self, key: str, limit: int, workspace: str | None, most: int | None
    ) -> list[AuditEntry]:
        """The same of one stream."""
        chosen: list[AuditEntry] = []
        until, looked_at = "+", 0
        while len(chosen) < limit and (most is None or looked_at < most):
            with translated(self.url):
                asked = self.call("XREVRANGE", key, until, "-", "COUNT", READ_AT_ONCE)
                found = await of_type(asked, key, [])
            looked_at += len(found)
            entries = [
                _readable(key, id_.decode(), flat)
                for id_, flat in found
                if workspace is None or _workspace(flat) == workspace.encode()
            ]
            chosen += [one for one in entries if one]
            if len(found) < READ_AT_ONCE:
                break
            until = f"({found[-1][0].decode()}"
        return chosen[:limit]

    async def keep(
        self, what: str, workspace: str, before: Facts, after: Facts, *, is_quiet: bool = False
    ) -> bool:
        """Adds an entry; returns whether that could be done. Logs why not, unless `is_quiet`, and never raises."""
        fields = ("via", self.who.via, "who", self.who.name, "what", what, "workspace", workspace)
        facts = ("from", encode_json(before), "to", encode_json(after))
        key = self._stream(what)
        try:
            with translated(self.url):
                await asyncio.gather(
                    self.call("XADD", key, "MAXLEN", "~", KEPT, "*", *fields, *facts),
                    self.call("PEXPIRE", key, self.retention_ms),
                )
        except RedisUnavailable as error:
            if not is_quiet:
                log.error("audit.unwritten", what=what, problem=str(error), action="the change stands")
            return False
        except Exception:
            if not is_quiet:
                log.exception("audit.unwritten", what=what, action="the change stands")
            return False
        return True

    def _stream(self, what: str) -> str:
        """The key of the stream in which a change of this author is kept."""
        if what == LINK_ADDED:
            return self.keys.audit_links
        return self.keys.audit_portal if self.who.via == "portal" else self.keys.audit


def shown_url(url: str) -> str | None:
    """A URL as recorded: without user name and query; None for an empty one."""
    if not url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return "…"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{'?…' if parts.query else ''}"


def described(workspace: Workspace) -> dict[str, Any]:
    """A workspace as recorded in the trail."""
    return {
        "dialect": workspace.dialect,
        "callbackUrl": shown_url(workspace.callback_url),
        "maxConcurrency": workspace.max_concurrency,
        "ratePerSecond": workspace.rate_per_second,
        "ordering": workspace.ordering,
        "headers": sorted(workspace.headers),
        "secrets": [
            {"createdAt": iso(one.created_ms), "expiresAt": one.expires_ms and iso(one.expires_ms)}
            for one in workspace.secrets
        ],
        **({"width": workspace.width} if workspace.width > 1 else {}),
    }


def difference(after: Workspace) -> tuple[Facts, Facts]:
    """The fields that an update changed, before and after it (`Workspace.before`); only the names of headers."""
    before = after.before
    if before is None:
        return {}, described(after)
    old, new = described(before), described(after)
    names = [name for name in new if old.get(name) != new[name]]
    if before.callback_url != after.callback_url and "callbackUrl" not in names:
        names.append("callbackUrl")  # only its query changed
    every = {*before.headers, *after.headers}
    changed = sorted(name for name in every if before.headers.get(name) != after.headers.get(name))
    headers = {"headersChanged": changed} if changed else {}
    return {name: old.get(name) for name in names}, {name: new[name] for name in names} | headers


def is_changed(workspace: Workspace) -> bool:
    """Whether the update that returned this workspace changed anything."""
    return workspace.before is None or workspace.before.revision != workspace.revision


def _workspace(flat: list[bytes]) -> bytes:
    """Which workspace an entry is of, without parsing the rest."""
    return dict(zip(flat[::2], flat[1::2], strict=True)).get(b"workspace", b"")


def _readable(key: str, id_: str, flat: list[bytes]) -> AuditEntry | None:
    """Parses an entry of the stream `key`. One that is not ours gives None, and is logged once: it must not hide others."""
    try:
        found = _read(id_, flat)
        iso(found.at_ms)
    except (KeyError, ValueError, OverflowError, msgspec.MsgspecError):
        if (key, id_) not in _told and len(_told) < KEPT:
            _told.add((key, id_))
            log.error("audit.unreadable", entry=id_, action=f"XDEL it from {key}")
        return None
    return found


_told = set[tuple[str, str]]()
"""Entries, each with its stream's key, of which this process has logged that they cannot be read."""


def _read(id_: str, flat: list[bytes]) -> AuditEntry:
    h = {
        name.decode(errors="replace"): value.decode(errors="replace")
        for name, value in zip(flat[::2], flat[1::2], strict=True)
    }
    before, after = (msgspec.json.decode(h[name], type=dict[str, Any]) for name in ("from", "to"))
    at_ms = int(id_.partition("-")[0])
    return AuditEntry(at_ms, Who(h["via"], h["who"]), h["what"], h["workspace"], before, after)
