"""`dispatcher grow`: from one Redis to several partitions, while status changes come."""

import sys
from contextlib import AsyncExitStack
from typing import Annotated, Any

import typer
from rich.progress import Progress

from config.settings import Settings
from dispatcher.store.across.audit import AuditAcross
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.audit import Audit, operator
from dispatcher.store.growth import WHAT_IS_LOST, Growth
from dispatcher.store.partition_count import require_partitions, require_places
from tasks import tables, terminal, wiring


def grow(
    end: Annotated[
        bool,
        typer.Option(
            "--end",
            help="The previous Redis is not needed any more; refused while something waits or is known there.",
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="With --end: although eventIds and messages are known there, or are not in the archive yet.",
        ),
    ] = False,
    lost: Annotated[
        bool,
        typer.Option(
            "--lost",
            help="With --end: the previous Redis is gone for good. What waited there is lost, and its eventIds are not known any more.",
        ),
    ] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Although the partitions have workspaces or API keys that no `grow` copied: these go.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Copy workspaces and API keys of the one Redis before into the partitions, so that workers can lead them.

    Settings: DISPATCHER_REDIS_URL and DISPATCHER_PARTITIONS as they are to be, DISPATCHER_PREVIOUS_REDIS_URL for the Redis so far,
    from which nothing is removed. Callbacks and messages stay there until they are over. If it breaks off, repeat it: what was
    copied is replaced by what the Redis so far has by then. Once all is copied, it copies nothing more, and only takes an end back.

    docs/partitions.md, "From one Redis", has all steps.

    Examples:

      dispatcher grow

      dispatcher grow --end
    """
    if (force or lost) and not end:
        terminal.fail(f"--{'force' if force else 'lost'} goes with --end", terminal.USAGE)
    if replace and end:
        terminal.fail("--replace does not go with --end", terminal.USAGE)
    settings = _settings()
    found = terminal.run(_end(settings, force=force, lost=lost) if end else _copy(settings, replace=replace))
    if as_json:
        terminal.print_json(found)
    else:
        _show(found)


def _settings() -> Settings:
    settings = terminal.settings()
    if settings.previous_redis_url is None:
        terminal.fail(
            "set DISPATCHER_PREVIOUS_REDIS_URL to the Redis of the installation so far, and DISPATCHER_REDIS_URL and "
            "DISPATCHER_PARTITIONS as they are to be",
            terminal.USAGE,
        )
    return settings


def _show(found: dict[str, Any]) -> None:
    if "ended" in found:
        terminal.print_text(
            "ended: leave DISPATCHER_PREVIOUS_REDIS_URL out, and restart workers, the API and the exporter"
        )
        return
    terminal.print_text(
        f"copied: {tables.counted(found['workspaces'], 'workspace', 'workspaces')}, "
        f"{tables.counted(found['apiKeys'], 'API key', 'API keys')}, "
        f"{tables.counted(found['stoppedEndpoints'], 'stopped endpoint', 'stopped endpoints')}"
    )
    terminal.print_text(
        f"in the previous Redis {tables.counted(found['queued'], 'status change is', 'status changes are')} on the queue, "
        f"and {tables.counted(found['waiting'], 'callback waits', 'callbacks wait')}"
    )


async def _copy(settings: Settings, *, replace: bool) -> dict[str, Any]:
    async with AsyncExitStack() as closing:
        growth, audit = await _growth(settings, closing)
        bar = closing.enter_context(
            Progress(console=terminal.err, transient=True, disable=not sys.stderr.isatty())
        )
        task = bar.add_task("workspaces")
        copied = await growth.copy(
            lambda done, total: bar.update(task, completed=done, total=total), replace=replace
        )
        found = {kind: copied[kind] for kind in ("workspaces", "apiKeys", "stoppedEndpoints")}
        await audit.add("grow.copy", after=found)
        queued, waiting = await growth.waiting()
    return found | {"queued": queued, "waiting": waiting}


async def _end(settings: Settings, *, force: bool, lost: bool) -> dict[str, Any]:
    async with AsyncExitStack() as closing:
        growth, audit = await _growth(settings, closing)
        left = WHAT_IS_LOST
        if lost:
            await growth.end_lost()
        else:
            left = await growth.end(wiring.longest_retention_seconds(settings), force=force)
        if left:
            terminal.note(left)
        await audit.add("grow.end", after={"force": force, "lost": lost})
    return {"ended": True}


async def _growth(settings: Settings, closing: AsyncExitStack) -> tuple[Growth, Audit]:
    """The growth, and the trail: of the partitions."""
    servers = wiring.servers(settings)
    closing.push_async_callback(servers.aclose)
    await require_partitions(servers, settings.key_prefix)
    if wiring.has_several_servers(settings):
        await require_places(servers)
    partitions = Partitions(servers, needs_all=True)
    trail = AuditAcross.of(partitions, operator(), settings.ledger_retention_seconds * 1000)
    return Growth(partitions, settings.key_prefix), trail
