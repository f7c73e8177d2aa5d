"""`dispatcher archive`: the tables of the archive, and how an installation does without it again."""

from typing import Annotated

import typer

from dispatcher.errors import InvalidInput
from dispatcher.model import iso
from tasks import terminal, wiring

commands = typer.Typer(help="The archive of what has ended.", no_args_is_help=True)


@commands.command()
def migrate() -> None:
    """Make the archive's tables, or bring them to this version; workers do so too.

    Only needed where the workers' database user may not make tables: run it with one that may.

    Example:

      DISPATCHER_ARCHIVE_URL=postgresql://owner@db/callbacks dispatcher archive migrate
    """
    settings = terminal.settings()

    async def work() -> tuple[int, int]:
        async with wiring.opened_archive(settings) as archive:
            return await archive.version(), await archive.migrate()

    before, after = terminal.run(work())
    done = "has its tables" if before == after else "now has its tables" if not before else "was brought up"
    terminal.out.print(f"the archive {done}: version {after}")


@commands.command()
def end(
    at_once: Annotated[
        bool,
        typer.Option(
            "--at-once",
            help="Do not wait: a repeated eventId that only the archive knows is then sent again.",
        ),
    ] = False,
) -> None:
    """Let this installation do without its archive again, once Redis has forgotten what only that knows.

    Redis remembers that for DISPATCHER_LEDGER_RETENTION_SECONDS, and a quarter longer. Until then this command changes nothing, and
    says how long that takes. First set DISPATCHER_ARCHIVE_AFTER_SECONDS so that nothing more leaves Redis (docs/archive.md). The
    archive itself stays as it is.
    """
    settings = terminal.settings()

    async def work() -> None:
        async with wiring.store(settings) as store:
            if store.archive is None:
                raise InvalidInput("there is no archive: DISPATCHER_ARCHIVE_URL names it (docs/archive.md)")
            until = await store.installation.fingerprints_until()
            if until > await store.installation.now_ms() and not at_once:
                raise InvalidInput(
                    f"Redis knows some callbacks and messages by the archive alone until {iso(until)}; more leave it until "
                    "DISPATCHER_ARCHIVE_AFTER_SECONDS is raised (docs/archive.md). Run this again then; with --at-once those "
                    "callbacks that are enqueued again are sent again. Without the archive the status API has only what is in Redis"
                )
            if alive := [*await store.installation.workers()]:
                raise InvalidInput(
                    f"worker {alive[0]} is alive, and would go on with the archive: end all workers first"
                )
            await store.installation.end_archive()
            await store.audit.add("archive.end", "", after={"atOnce": at_once})

    terminal.run(work())
    terminal.out.print(
        "this installation can do without its archive: unset DISPATCHER_ARCHIVE_URL everywhere"
    )
