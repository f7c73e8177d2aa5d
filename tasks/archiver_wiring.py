"""Builds what takes ended callbacks to the archive: for a worker's partitions, and for `dispatcher archiver`."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from config.settings import Settings
from dispatcher.errors import ArchiveUnavailable, RedisUnavailable
from dispatcher.store import format
from dispatcher.store.archive.archive import Archive
from dispatcher.store.arguments import WITH_MESSAGES
from dispatcher.store.installation import Installation
from dispatcher.store.ledger import Ledger
from dispatcher.store.members import registries
from dispatcher.store.messages_to_archive import MessagesToArchive
from dispatcher.store.servers import Servers
from dispatcher.store.to_archive import ToArchive
from dispatcher.worker.archiver import Archiver
from dispatcher.worker.intake import LEASE_MS
from dispatcher.worker.message_archiver import MessageArchiver
from dispatcher.worker.metrics import Metrics
from tasks import wiring

STAYS_FROM = 3 / 4
"""With a longer time than this part of the ledger's retention nothing leaves Redis before it is forgotten (lua/retire.lua)."""


@dataclass(frozen=True)
class Made:
    """What the archivers of all partitions share."""

    settings: Settings
    servers: Servers
    archive: Archive
    metrics: Metrics

    def source(self, number: int) -> ToArchive:
        """What has ended in a partition."""
        return ToArchive(self.servers.wire(number), self.servers.keys[number], self.servers.url(number))

    def archiver(
        self,
        number: int,
        ledger: Ledger,
        lease: Callable[[], Awaitable[str | None]],
        about: Mapping[str, object],
    ) -> Archiver:
        """One partition's; `lease` as Archiver takes it."""

        async def allow() -> None:
            installation = self._installation(number)
            if await installation.format() != str(WITH_MESSAGES):
                await format.require_known(installation, WITH_MESSAGES, self._workers)
                await asyncio.sleep(
                    LEASE_MS / 1000
                )  # by then nobody without an archive has an intake's lease

        return Archiver(
            self.source(number),
            ledger,
            self.archive,
            lease,
            self.metrics,
            about=about,
            allow=allow,
            by_archive_alone=self._by_archive_alone,
            after_ms=self.settings.archive_after_seconds * 1000,
            keep_days=self.settings.archive_retention_days if number == 0 else None,
            messages=self._message_archiver(number, ledger),
        )

    async def _by_archive_alone(self) -> bool:
        """Whether Redis knows callbacks of any partition by the archive alone. Raises ArchiveUnavailable if one does not answer."""
        try:
            for keys in self.servers.keys:
                if await self.source(keys.partition).has_fingerprints():
                    return True
        except RedisUnavailable as error:
            raise ArchiveUnavailable(
                f"it has no tables, and gets none before all partitions answer: {error}"
            ) from error
        return False

    def _message_archiver(self, number: int, ledger: Ledger) -> MessageArchiver:
        servers = self.servers
        source = MessagesToArchive(servers.wire(number), servers.keys[number], servers.url(number))
        after_ms = self.settings.archive_after_seconds * 1000
        kept_ms = self.settings.status_retention_seconds * 1000
        stays = after_ms > self.settings.ledger_retention_seconds * 1000 * STAYS_FROM
        return MessageArchiver(
            source, ledger, self.archive.messages, self.metrics, after_ms, kept_ms, stays=stays
        )

    async def _workers(self) -> dict[str, dict[str, Any]]:
        """The heartbeats of all workers."""
        count, found = self.servers.partitioning.partitions, dict[str, dict[str, Any]]()
        for number in registries(count) if count > 1 else (0,):
            found |= await self._installation(number).workers()
        return found

    def _installation(self, number: int) -> Installation:
        servers = self.servers
        return Installation(servers.client(number), servers.keys[number], servers.url(number))


def of_leader(
    made: Made, number: int, ledger: Ledger, token: Callable[[], str | None], about: Mapping[str, object]
) -> Archiver:
    """For a worker that may lead the partition: it stands aside while a `dispatcher archiver` is there.

    `token` gives the one of its intake lease, while it has that.
    """
    source = made.source(number)

    async def lease() -> str | None:
        held = token()
        return held if held and not await source.has_archiver() else None

    return made.archiver(number, ledger, lease, about)


async def run(settings: Settings) -> None:
    """Takes what has ended in all partitions to the archive, until it is cancelled. Raises InvalidInput, OtherFormat."""
    async with AsyncExitStack() as closing:
        archive = await closing.enter_async_context(wiring.opened_archive(settings))
        servers = wiring.servers(settings)
        closing.push_async_callback(servers.aclose)
        made, token = Made(settings, servers, archive, Metrics()), secrets.token_hex(8)
        async with asyncio.TaskGroup() as group:
            for keys in servers.keys:
                number, source = keys.partition, made.source(keys.partition)
                ledger = wiring.ledger(settings, servers.wire(number).call, of=keys, url=servers.url(number))
                about = {"partition": number} if len(servers.keys) > 1 else {}
                archiver = made.archiver(number, ledger, partial(source.own, token), about)
                group.create_task(archiver.run(asyncio.Event()))
                closing.push_async_callback(source.leave, token)
