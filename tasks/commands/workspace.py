"""`dispatcher workspace`: the customers."""

from typing import Annotated, Any

import typer

from dispatcher.dialects import dialects
from dispatcher.model import iso
from dispatcher.workspaces import Workspace
from tasks import console, wiring

commands = typer.Typer(help="Customers: dialect, callback URL, secrets, limits.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The workspace's name.", metavar="ID", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MaxConcurrency = Annotated[
    int | None, typer.Option(help="Callbacks in flight to one of its endpoints, at most.", show_default=False)
]


@commands.command()
def add(
    workspace: Id,
    dialect: Annotated[
        str, typer.Option(help=f"One of: {', '.join(sorted(dialects()))}.", show_default=False)
    ],
    callback_url: Annotated[str, typer.Option(help="Where its callbacks go.", show_default=False)],
    secret: Annotated[
        str | None,
        typer.Option(help="Its signing secret (whsec_…); one is made if left out.", show_default=False),
    ] = None,
    max_concurrency: MaxConcurrency = None,
    as_json: Json = False,
) -> None:
    """Make a workspace; its secret is shown this once."""
    settings = console.settings()

    async def work() -> Workspace:
        async with wiring.store(settings) as store:
            return await store.workspaces.add(
                workspace,
                dialect,
                callback_url,
                now_ms=await store.lookup.now_ms(),
                secret=secret,
                max_concurrency=max_concurrency,
            )

    shown = console.run(work()).secrets[-1].text
    if as_json:
        console.print_json({"workspace": workspace, "secret": shown})
    else:
        console.out.print(
            f"workspace {workspace} is made; its signing secret, shown only now:\n{shown}", markup=False
        )


@commands.command("list")
def list_(as_json: Json = False) -> None:
    """List all workspaces."""
    settings = console.settings()

    async def work() -> list[Workspace]:
        async with wiring.store(settings) as store:
            found = [await store.workspaces.get(name) for name in await store.workspaces.names()]
            return [workspace for workspace in found if workspace]

    found = console.run(work())
    if as_json:
        console.print_json([_document(workspace) for workspace in found])
        return
    rows = [(w.id, w.dialect, w.callback_url, w.max_concurrency, iso(w.created_ms)) for w in found]
    empty = "no workspaces yet; `dispatcher workspace add --help` shows how to make one"
    console.print_table(("workspace", "dialect", "callback URL", "max concurrency", "created"), rows, empty)


@commands.command()
def show(workspace: Id, as_json: Json = False) -> None:
    """Show a workspace, without its secrets."""
    settings = console.settings()

    async def work() -> tuple[Workspace, dict[str, int]]:
        async with wiring.store(settings) as store:
            return await store.workspaces.require(workspace), await store.workspaces.waiting(workspace)

    found, waiting = console.run(work())
    document = _document(found) | {"waiting": sum(waiting.values())}
    if as_json:
        console.print_json(document)
        return
    shown = document | {"secrets": f"{len(found.secrets)} (never shown again)"}
    console.print_table(("field", "value"), list(shown.items()), "")


@commands.command()
def update(
    workspace: Id,
    callback_url: Annotated[
        str | None, typer.Option(help="Where callbacks of later status changes go.", show_default=False)
    ] = None,
    max_concurrency: MaxConcurrency = None,
) -> None:
    """Change a workspace: the URL for later status changes, limits at once."""
    settings = console.settings()
    if callback_url is None and max_concurrency is None:
        console.fail("say what to change: --callback-url or --max-concurrency", console.USAGE)

    async def work() -> Workspace:
        async with wiring.store(settings) as store:
            return await store.workspaces.update(
                workspace, callback_url=callback_url, max_concurrency=max_concurrency
            )

    console.run(work())
    console.out.print(f"workspace {workspace} is changed", markup=False)


@commands.command()
def remove(
    workspace: Id,
    force: Annotated[bool, typer.Option("--force", help="End its waiting callbacks as failed.")] = False,
) -> None:
    """Remove a workspace that has no waiting callbacks."""
    settings = console.settings()

    async def work() -> int:
        async with wiring.store(settings) as store:
            return await store.workspaces.remove(workspace, store.ledger, force=force)

    waiting = console.run(work())
    ended = f"; {waiting} waiting callbacks end as failed (workspace_removed)" if waiting else ""
    console.out.print(f"workspace {workspace} is removed{ended}", markup=False)


def _document(workspace: Workspace) -> dict[str, Any]:
    return {
        "workspace": workspace.id,
        "dialect": workspace.dialect,
        "callbackUrl": workspace.callback_url,
        "maxConcurrency": workspace.max_concurrency,
        "createdAt": iso(workspace.created_ms),
        "secrets": [
            {"createdAt": iso(s.created_ms), "expiresAt": None if s.expires_ms is None else iso(s.expires_ms)}
            for s in workspace.secrets
        ],
        "problem": workspace.problem,
    }
