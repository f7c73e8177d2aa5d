"""`dispatcher workspace`: shows and removes workspaces, rotates secrets. `workspace_change.py` has `add` and `update`."""

from itertools import islice
from typing import Annotated, Any

import typer

from dispatcher.codec import iso_or_none
from dispatcher.model import LONGEST_GRACE_SECONDS, iso
from dispatcher.rules.addresses import without_query
from dispatcher.rules.workspace import Workspace
from dispatcher.store.audit import described, difference
from dispatcher.store.workspaces import Resealed
from tasks import tables, terminal, wiring
from tasks.actions.partly import Partly

NAMED = 5
"""How many damaged workspaces an error names."""

Id = Annotated[str, typer.Argument(help="The workspace's name.", metavar="ID", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reveal = Annotated[bool, typer.Option("--reveal", help="Show the URL's query and the headers' values too.")]


def rotate_secret(
    workspace: Id,
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="WORKSPACE_SECRET",
            help="The new secret (whsec_…); without it, one is generated.",
            show_default=False,
        ),
    ] = None,
    grace_seconds: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=LONGEST_GRACE_SECONDS,
            help="How long the old one goes on signing (default: DISPATCHER_SECRET_GRACE_SECONDS).",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a workspace a new secret; the old one goes on signing for a grace period."""
    settings = terminal.settings()
    grace = settings.secret_grace_seconds if grace_seconds is None else grace_seconds

    async def work() -> Workspace:
        async with wiring.store(settings) as store:
            now_ms = await store.installation.now_ms()
            rotated = await store.workspaces.rotate_secret(
                workspace, now_ms=now_ms, grace_ms=grace * 1000, secret=secret
            )
            await store.audit.add("workspace.rotate_secret", workspace, *difference(rotated))
            return rotated

    show_secret(
        terminal.run(work()),
        f"has a new signing secret (the old one signs for {tables.duration(grace)} more)",
        as_json,
    )


def rotate_encryption() -> None:
    """Re-encrypt all secrets with the newest of DISPATCHER_SECRET_KEYS."""
    settings = terminal.settings()
    if not settings.secret_keys:
        terminal.fail("DISPATCHER_SECRET_KEYS is not set: there is no key to encrypt with", terminal.USAGE)

    async def work() -> Resealed:
        async with wiring.store(settings) as store:
            partly = Partly()
            found = await partly.of(store.workspaces.rotate_encryption())
            await store.audit.add("workspace.rotate_encryption", after={"workspaces": found.count})
            partly.raise_problem()
            return found

    found = terminal.run(work())
    told = tables.counted(found.count, "workspace", "workspaces")
    terminal.out.print(f"the secrets of {told} are encrypted under the newest key")
    if found.damaged:
        shown = "; ".join(f"{name}: {why}" for name, why in islice(found.damaged.items(), NAMED))
        more = len(found.damaged) - NAMED
        terminal.fail(f"others are not: {shown}{f'; and {more:,} more' if more > 0 else ''}")


def list_(as_json: Json = False) -> None:
    """List all workspaces."""
    settings = terminal.settings()

    async def work() -> list[Workspace]:
        async with wiring.store(settings) as store:
            return await store.workspaces.all()

    found = terminal.run(work())
    if as_json:
        terminal.print_json([_document(workspace) for workspace in found])
        return
    rows = [
        (
            w.id,
            w.dialect or "damaged",
            without_query(w.callback_url) or None,
            w.max_concurrency,
            iso_or_none(w.created_ms or None),
        )
        for w in found
    ]
    empty = "no workspaces yet; `dispatcher workspace add --help` shows how to make one"
    terminal.print_table(("workspace", "dialect", "callback URL", "max concurrency", "created"), rows, empty)
    for one in found:
        if one.is_damaged:
            terminal.note(f"workspace {one.id}: {one.problem}")


def show(workspace: Id, reveal: Reveal = False, as_json: Json = False) -> None:
    """Show a workspace, never its secrets."""
    settings = terminal.settings()

    async def work() -> tuple[Workspace, dict[str, int]]:
        async with wiring.store(settings) as store:
            return await store.workspaces.require(workspace), await store.workspaces.waiting(workspace)

    found, waiting = terminal.run(work())
    document = _document(found, reveal=reveal) | {"waiting": sum(waiting.values())}
    if as_json:
        terminal.print_json(document)
        return
    headers = ", ".join(f"{name}: {value}" for name, value in document["headers"].items())
    secrets = ", ".join(_life(secret) for secret in document["secrets"])
    beside = ", ".join(document["subscriptions"]) or None
    shown = document | {"secrets": secrets, "headers": headers or None, "subscriptions": beside}
    terminal.print_table(("field", "value"), list(shown.items()), "")


def remove(
    workspace: Id,
    force: Annotated[bool, typer.Option("--force", help="End its waiting callbacks as failed.")] = False,
) -> None:
    """Remove a workspace that has no waiting callbacks.

    What is known of its messages stays until its retention ends, and would be shown to whoever gets that name: `dispatcher erase
    workspace` removes it.
    """
    settings = terminal.settings()

    async def work() -> int:
        async with wiring.store(settings) as store:
            before = await store.workspaces.require(workspace)
            ended = await store.workspaces.remove(workspace, store.ledger, force=force)
            await store.audit.add("workspace.remove", workspace, described(before), {"ended": ended})
            return ended

    waiting = terminal.run(work())
    ended = (
        f"; {tables.counted(waiting, 'waiting callback ends', 'waiting callbacks end')} as failed (workspace_removed)"
        if waiting
        else ""
    )
    terminal.out.print(f"workspace {workspace} is removed{ended}", markup=False)
    terminal.out.print(
        f"its messages and callbacks are known until their retention ends: `dispatcher erase workspace {workspace}` "
        "before another customer gets that name",
        markup=False,
    )


def show_secret(workspace: Workspace, what: str, as_json: bool) -> None:
    """Prints the newest secret: the only time it is shown."""
    secret = workspace.secrets[-1].text
    again = f"`dispatcher workspace rotate-secret {workspace.id}` gives it another"
    with terminal.only_now(f"workspace {workspace.id} is stored", again):
        if as_json:
            terminal.print_json({"workspace": workspace.id, "secret": secret})
        else:
            terminal.out.print(f"workspace {workspace.id} {what}, shown only now:\n{secret}", markup=False)


def _document(workspace: Workspace, *, reveal: bool = False) -> dict[str, Any]:
    return {
        "workspace": workspace.id,
        "dialect": workspace.dialect,
        "callbackUrl": (workspace.callback_url if reveal else without_query(workspace.callback_url)) or None,
        "headers": {name: value if reveal else "…" for name, value in workspace.headers.items()},
        "maxConcurrency": workspace.max_concurrency,
        "ratePerSecond": workspace.rate_per_second,
        "ordering": workspace.ordering,
        **({"width": workspace.width} if workspace.width > 1 else {}),
        "state": workspace.state,
        "reason": workspace.disabled and workspace.disabled.reason,
        "subscriptions": list(workspace.subscriptions),
        "createdAt": iso_or_none(workspace.created_ms or None),
        "secrets": [
            {"createdAt": iso(s.created_ms), "expiresAt": None if s.expires_ms is None else iso(s.expires_ms)}
            for s in workspace.secrets
        ],
        "problem": workspace.problem,
    }


def _life(secret: dict[str, Any]) -> str:
    ends = f", ends {secret['expiresAt']}" if secret["expiresAt"] else ""
    return f"one of {secret['createdAt']}{ends}"
