"""Workspaces of an installation with several partitions: a record lies in each partition of its workspace.

A change is made in the home partition, atomically, and then copied to the others. A copy that could not be written (`not_copied`)
is written by the next change, also if that changes nothing. Of several changes at the same time each copies until its copy is as the home is.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import redis.asyncio
import structlog

from dispatcher.errors import NotFound, RedisUnavailable, sentence
from dispatcher.rules.workspace import Workspace
from dispatcher.store.across.installation import InstallationAcross
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.across.tried import Tried, named
from dispatcher.store.connection import translated
from dispatcher.store.damaged import needed_type, number
from dispatcher.store.endpoints_of import Owned
from dispatcher.store.keys import Keys
from dispatcher.store.ledger import Ledger
from dispatcher.store.workspaces import READ_AT_ONCE, Resealed, Workspaces, still_waiting, unknown

log = structlog.get_logger()

_Version = tuple[bytes | None, ...] | None
"""Revision and width of a record; None: there is none, or it is damaged."""
MOST_COPIES = 20
"""How often a record that changes meanwhile is copied to one partition, by one change of it."""


class WorkspacesAcross(Workspaces):
    """As Workspaces, of all partitions."""

    def __init__(
        self,
        partitions: Partitions,
        make: "Callable[[redis.asyncio.Redis, Keys, str], Workspaces]",
        not_copied: Callable[[str, str], None] = lambda workspace, problem: log.error(
            "workspace.not_copied",
            workspace=workspace,
            problem=problem,
            action="the change stands at its home",
        ),
    ) -> None:
        """`not_copied` hears of a workspace whose change could not be copied to all of its partitions."""
        self._partitions = partitions
        self._not_copied = not_copied
        self.partitions = partitions.partitioning.partitions
        self._at = partitions.readers(make)
        self.record = self._at(0).record
        self.installation = InstallationAcross(partitions)

    async def get(self, workspace: str) -> Workspace | None:
        """As Workspaces.get."""
        home = self._partitions.partitioning.home(workspace)
        return await self._partitions.ask(home, lambda n: self._at(n).get(workspace))

    async def find(self, workspace: str) -> Workspace | None:
        """As Workspaces.find."""
        home = self._partitions.partitioning.home(workspace)
        return await self._partitions.ask(home, lambda n: self._at(n).find(workspace))

    async def some(self, names: Sequence[str]) -> list[Workspace]:
        """As Workspaces.some, in one round trip for each partition; in no order, and without those whose partition does not answer."""
        by_home: dict[int, list[str]] = {}
        for name in names:
            by_home.setdefault(self._partitions.partitioning.home(name), []).append(name)
        if not by_home:
            return []
        found = await self._partitions.everywhere(lambda n: self._at(n).some(by_home[n]), by_home)
        return [one for some in found.values() for one in some]

    async def all(self) -> list[Workspace]:
        """As Workspaces.all."""
        by_name: dict[str, Workspace] = {}
        for n, some in (await self._partitions.everywhere(lambda n: self._at(n).all())).items():
            for one in some:
                if one.id not in by_name or n == self._partitions.partitioning.home(one.id):
                    by_name[one.id] = one
        return [by_name[name] for name in sorted(by_name)]

    async def names(self) -> list[str]:
        """As Workspaces.names."""
        found = await self._partitions.everywhere(self._partitions.names)
        return sorted({name for names in found.values() for name in names})

    async def not_copied(self) -> dict[str, list[int]]:
        """As Workspaces.not_copied, of the partitions that answer."""
        versions = await self._partitions.everywhere(self._all_versions)
        found: dict[str, list[int]] = {}
        for home, own in versions.items():
            for name, version in own.items():
                if version is None or self._partitions.partitioning.home(name) != home:
                    continue
                parts = self._partitions.partitioning.all_of(name, number(version[1]) or 1)[1:]
                for n in parts:
                    if (
                        n in versions
                        and versions[n].get(name) != version
                        and await self._differs(name, home, n)
                    ):
                        found.setdefault(name, []).append(n)
        return dict(sorted(found.items()))

    async def _all_versions(self, n: int) -> dict[str, _Version]:
        names = sorted(await self._partitions.names(n))
        found: dict[str, _Version] = {}
        for first in range(0, len(names), READ_AT_ONCE):
            found |= await self._versions(n, names[first : first + READ_AT_ONCE])
        return found

    async def _versions(self, n: int, names: Sequence[str]) -> dict[str, _Version]:
        """Revision and width of workspaces' records in a partition."""
        keys, pipe = self._partitions.keys[n], self._partitions.servers.client(n).pipeline(transaction=False)
        for name in names:
            pipe.hmget(keys.workspace(name), ["revision", "width"])
        with translated(self._partitions.url(n)):
            replies = await pipe.execute(raise_on_error=False)
        return {
            name: None if isinstance(reply, BaseException) or reply[0] is None else tuple(reply)
            for name, reply in zip(names, replies, strict=True)
        }

    async def _differs(self, workspace: str, home: int, part: int) -> bool:
        """Whether a copy still differs: it may have been written between the first looks at the two."""
        with suppress(RedisUnavailable):
            copy = await self._versions(part, [workspace])
            return copy != await self._versions(home, [workspace])
        return False

    async def count_webhook_change(self, workspace: str, now_ms: int) -> int:
        """As Workspaces.count_webhook_change."""
        home = self._partitions.partitioning.home(workspace)
        return await self._partitions.ask(home, lambda n: self._at(n).count_webhook_change(workspace, now_ms))

    async def write(
        self,
        workspace: str,
        change: Callable[[Workspace | None], dict[str, Any]],
        *,
        anew: bool = False,
        look_at: Collection[str] = (),
        look: Callable[[dict[str, int]], None] = lambda _: None,
    ) -> Workspace:
        """As Workspaces.write. What waits in other partitions than the home is looked at just before the change.

        A partition that does not answer keeps no other from its copy; `not_copied` of what is returned says so.
        """
        home = self._partitions.partitioning.home(workspace)
        elsewhere = await self._waiting_elsewhere(workspace, home, look_at) if look_at else {}

        def look_everywhere(counts: dict[str, int]) -> None:
            look({one: count + elsewhere.get(one, 0) for one, count in counts.items()})

        written = await self._at(home).write(
            workspace, change, anew=anew, look_at=look_at, look=look_everywhere
        )
        self._partitions.forget_route(workspace)
        problems = await self._copies(workspace, home, written.width)
        if not problems:
            return written
        text = (
            f"the change of workspace {workspace} is stored, and not yet in {named([*problems])}: "
            f"{sentence(str(next(iter(problems.values()))))} Once all answer, `dispatcher workspace update {workspace} --width "
            f"{written.width}` copies it there"
        )
        self._not_copied(workspace, text)
        return replace(written, not_copied=text)

    async def copy(self, workspace: str) -> None:
        """As Workspaces.copy."""
        known, home = await self.require(workspace), self._partitions.partitioning.home(workspace)
        problems = await self._copies(workspace, home, known.width)
        Tried({home: known}, problems).whole(known)

    async def _copies(self, workspace: str, home: int, width: int) -> dict[int, RedisUnavailable]:
        """Copies a record to all other partitions of its workspace; returns why it could not be copied to some."""
        problems: dict[int, RedisUnavailable] = {}
        for n in self._partitions.partitioning.all_of(workspace, width)[1:]:
            try:
                await self._partitions.require(n)
                await self._copy(workspace, home, n)
            except RedisUnavailable as error:
                problems[n] = self._partitions.named(n, error)
        return problems

    async def rotate_encryption(self) -> Resealed:
        """As Workspaces.rotate_encryption, of those whose home answers; PartlyDone says which partitions do not."""
        found, done = Resealed(), dict[int, None]()
        problems: dict[int, RedisUnavailable] = {}
        for name in await self.names():
            home = self._partitions.partitioning.home(name)
            if home in problems:
                continue
            try:
                await self._partitions.require(home)
                await self._seal_anew(name, found)
                done[home] = None
            except RedisUnavailable as error:
                problems[home] = error
        return Tried(done, problems).whole(found)

    async def endpoints(self, workspace: str, subscription: str | None = None) -> list[Owned]:
        """As Workspaces.endpoints; raises RedisUnavailable if one of the workspace's partitions does not answer."""
        found: dict[str, Owned] = {}
        for n in await self._partitions.of(workspace):
            for one in await self._partitions.ask(
                n, lambda n: self._at(n).endpoints(workspace, subscription)
            ):
                known = found.get(one.id)
                found[one.id] = one if known is None else _together(known, one)
                self._partitions.note_endpoint(one.id, [n])
        return [*found.values()]

    async def pending(self, workspace: str, subscription: str | None = None) -> dict[str, int]:
        """As Workspaces.pending; raises RedisUnavailable if one of the workspace's partitions does not answer."""
        found: Counter[str] = Counter()
        for n in await self._partitions.of(workspace):
            some = await self._partitions.ask(n, lambda n: self._at(n).pending(workspace, subscription))
            found.update(some)
            for id_ in some:
                self._partitions.note_endpoint(id_, [n])
        return found

    async def forget_failing(self, workspace: str, subscription: str) -> None:
        """As Workspaces.forget_failing."""
        parts = await self._partitions.of(workspace)
        tried = await self._partitions.each(
            lambda n: self._at(n).forget_failing(workspace, subscription), parts
        )
        tried.whole(None)

    async def remove(self, workspace: str, ledger: Ledger, *, force: bool = False) -> int:
        """As Workspaces.remove; the home partition comes last, so that a run which broke off can be repeated."""
        if await self.find(workspace) is None:
            raise unknown(workspace)
        home, *others = await self._partitions.of(workspace)
        total = sum((await self.all_waiting(workspace)).values())
        if total and not force:
            raise still_waiting(workspace, total)
        for n in others:
            with suppress(NotFound):  # a run before this one removed it there
                await self._at(n).remove(workspace, ledger, force=True)
        await self._forget_api_keys(workspace, home)
        await self._at(home).remove(workspace, ledger, force=bool(others) or force)
        for n in others:  # to where a change at the same time copied it once more
            await self._copy(workspace, home, n)
        self._partitions.forget_route(workspace)
        return total

    async def _forget_api_keys(self, workspace: str, home: int) -> None:
        """Removes keys whose records lie elsewhere: those that were made when the installation had one partition."""
        ids = await self._partitions.call(home, "SMEMBERS", self._partitions.keys[home].api_keys(workspace))
        for id_ in (one.decode(errors="replace") for one in ids):
            n = self._partitions.partitioning.home(id_)
            if n != home:
                await self._partitions.call(n, "DEL", self._partitions.keys[n].api_key(id_))

    async def _waiting_elsewhere(self, workspace: str, home: int, ids: Collection[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for n in await self._partitions.of(workspace):
            if n != home:
                for id_, count in (
                    await self._partitions.ask(n, lambda n: self._at(n).all_waiting(workspace))
                ).items():
                    found[id_] = found.get(id_, 0) + count
        return {id_: found.get(id_, 0) for id_ in ids}

    async def _copy(self, workspace: str, home: int, to: int) -> None:
        """Has another partition hold of a workspace what its home holds: its record, or nothing. Raises RedisUnavailable."""
        source: Any = self._partitions.servers.client(home)
        key = self._partitions.keys[home].workspace(workspace)
        for _ in range(MOST_COPIES):
            with translated(self._partitions.url(home)):
                fields = await source.hgetall(key)
            await self._put(workspace, fields, to)
            with translated(self._partitions.url(home)):
                now = await source.hget(key, "revision")
            if now == fields.get(b"revision"):
                return
        raise RedisUnavailable(f"workspace {workspace!r} is being changed all the time")

    async def _put(self, workspace: str, fields: dict[bytes, bytes], to: int) -> None:
        """Writes a workspace's record to a partition, or removes it if there are no fields."""
        keys, target = self._partitions.keys[to], self._partitions.servers.client(to)
        pipe: Any = target.pipeline(transaction=True)
        pipe.delete(keys.workspace(workspace))
        if fields:
            pipe.hset(keys.workspace(workspace), mapping=fields)
            pipe.sadd(keys.workspaces, workspace)
        else:
            pipe.srem(keys.workspaces, workspace)
        with translated(self._partitions.url(to)):
            with needed_type(keys.workspaces):  # before the rest: within MULTI that is changed all the same
                await target.sismember(keys.workspaces, workspace)
            await pipe.execute()


def _together(one: Owned, other: Owned) -> Owned:
    return replace(
        one,
        waiting=one.waiting + other.waiting,
        is_stopped=one.is_stopped or other.is_stopped,
        has_failed=one.has_failed or other.has_failed,
    )
