"""Builds the store of an installation with several partitions."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

import redis.asyncio

from config.settings import Settings
from dispatcher.errors import OtherSettings, PreviousUnavailable, RedisUnavailable
from dispatcher.store import format
from dispatcher.store.across.api_keys import ApiKeysAcross
from dispatcher.store.across.audit import AuditAcross
from dispatcher.store.across.callbacks import CallbacksAcross
from dispatcher.store.across.client_certificates import ClientCertificatesAcross
from dispatcher.store.across.endpoints import EndpointsAcross
from dispatcher.store.across.installation import InstallationAcross
from dispatcher.store.across.ledger import LedgerAcross
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.across.presence import SILENCE_SECONDS
from dispatcher.store.across.refused_calls import RefusalsAcross
from dispatcher.store.across.rejected import RejectedAcross
from dispatcher.store.across.stats import StatsAcross
from dispatcher.store.across.workspace_parts import WorkspaceParts
from dispatcher.store.across.workspaces import WorkspacesAcross
from dispatcher.store.audit import operator
from dispatcher.store.grown import require_grown, require_previous
from dispatcher.store.keys import Keys
from dispatcher.store.ledger import Ledger
from dispatcher.store.partition_count import require_partitions, require_places
from dispatcher.store.servers import Servers
from dispatcher.store.subscriptions import Subscriptions
from dispatcher.store.workspaces import Workspaces
from tasks import incomplete, wiring

ONCE_MORE_SECONDS = 0.3
"""How long a server is waited for where one was waited for before: keys of no partition may lie on that one."""


async def store(
    settings: Settings, servers: Servers, *, keep: bool = False, goes_on: bool = False
) -> wiring.Store:
    """The store of several partitions; `keep` and `goes_on` as for wiring.store. Raises RedisUnavailable if none answers, or OtherFormat."""
    of = Partitions(servers, is_service=incomplete.is_service)

    def make(n: int) -> Ledger:
        return wiring.ledger(settings, of.calls(n), of=of.keys[n], url=of.url(n))

    of_all, installation = LedgerAcross(of, make), InstallationAcross(of)
    formats = await installation.formats()
    empty = await _require_partitions(
        settings, servers, of.absent.partitions, keep=keep and not all(formats.values())
    )
    if empty and not goes_on:
        raise empty
    for n, number in formats.items():
        if number or (keep and n != servers.partitioning.previous):  # else a worker gives it one
            await format.agree(of_all.at(n), number, installation.workers)
    of.absent.forget()  # nothing was read yet
    if empty and (previous := servers.partitioning.previous) is not None:
        of.absent.note(previous, empty)
    return wiring.Store(
        of.servers.client(0),
        of_all,
        _workspaces(settings, of),
        installation,
        EndpointsAcross(of),
        RejectedAcross(of),
        CallbacksAcross(of),
        StatsAcross(of),
        ApiKeysAcross(of),
        RefusalsAcross(of),
        AuditAcross.of(of, operator(), settings.ledger_retention_seconds * 1000, sys.stderr.isatty()),
        ClientCertificatesAcross(of),
        lambda: of.absent,
        [(servers.client(some[0]), servers.node(some[0]).url) for some in of.by_node().values()],
        len(of.keys),
        of.away,
    )


def _workspaces(settings: Settings, of: Partitions) -> WorkspacesAcross:
    """Those of a command, which says at its end what it could not copy; a service logs it."""

    def make(client: "redis.asyncio.Redis", keys: Keys, url: str) -> Workspaces:
        return wiring.workspaces(settings, client, keys, url)

    if incomplete.is_service:
        return WorkspacesAcross(of, make)
    return WorkspacesAcross(of, make, incomplete.note_not_copied)


async def _require_partitions(
    settings: Settings, servers: Servers, away: Sequence[int], *, keep: bool
) -> PreviousUnavailable | None:
    """Raises OtherFormat if the installation has another number or order of partitions; what is away is hardly waited for.

    Returns why the previous Redis is of no use, if it answers and is empty.
    """
    refusal: OtherSettings | None = None
    empty: PreviousUnavailable | None = None
    with suppress(TimeoutError, RedisUnavailable):  # the partitions that answered were looked at
        async with asyncio.timeout(ONCE_MORE_SECONDS if away else SILENCE_SECONDS):
            if wiring.has_several_servers(settings):
                try:
                    await require_places(servers, away)
                except OtherSettings as error:
                    refusal = error  # maybe because the number is another one, which is said rather
            await require_partitions(servers, settings.key_prefix, away=away)
            await require_grown(servers, settings.key_prefix)
            if keep and not refusal:  # not before: a mistake fixes no number
                await require_partitions(servers, settings.key_prefix, keep=True, away=away)
            if servers.partitioning.previous not in away:
                try:
                    await require_previous(servers)
                except PreviousUnavailable as error:
                    empty = error
    if refusal:
        raise refusal
    return empty


def receivers(
    settings: Settings, servers: Servers, ledger_at: Callable[[int], Ledger]
) -> tuple[Subscriptions, WorkspaceParts]:
    """What workers change of receivers in all partitions of a workspace; `ledger_at` gives the ledger of each.

    Its subscriptions, a change of which is written to all of them, and what each knows of an endpoint.
    """
    of = Partitions(servers, needs_all=True)
    found = WorkspacesAcross(of, lambda *of_one: wiring.workspaces(settings, *of_one))
    return Subscriptions(found), WorkspaceParts(of, ledger_at)
