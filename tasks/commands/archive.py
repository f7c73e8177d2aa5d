"""`dispatcher archive`: the tables of the archive."""

import typer

from tasks import console, wiring

commands = typer.Typer(help="The archive of what has ended.", no_args_is_help=True)


@commands.command()
def migrate() -> None:
    """Make the archive's tables, or bring them to this version; workers do so too.

    Only needed where the workers' database user may not make tables: run it with one that may.

    Example:

      DISPATCHER_ARCHIVE_URL=postgresql://owner@db/callbacks dispatcher archive migrate
    """
    settings = console.settings()

    async def work() -> tuple[int, int]:
        async with wiring.opened_archive(settings) as archive:
            return await archive.version(), await archive.migrate()

    before, after = console.run(work())
    done = "has its tables" if before == after else "now has its tables" if not before else "was brought up"
    console.out.print(f"the archive {done}: version {after}")
