"""`dispatcher subscription`: several receivers for one customer, each on its own terms."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from config.settings import Settings
from dispatcher.model import LONGEST_GRACE_SECONDS, iso
from dispatcher.rules.addresses import without_query
from dispatcher.rules.subscription import DEFAULT
from dispatcher.rules.workspace import Workspace
from dispatcher.store.audit import is_changed
from dispatcher.store.subscriptions import found
from tasks import tables, terminal, wiring
from tasks.actions import subscriptions
from tasks.actions.events import span
from tasks.actions.replay import How, Replayed, failed_since, replay_failed
from tasks.commands.replay import print_many

WorkspaceName = Annotated[
    str, typer.Argument(help="The workspace's name.", metavar="WORKSPACE", show_default=False)
]
Name = Annotated[
    str,
    typer.Argument(
        help=f"The subscription's name; {DEFAULT} is the workspace's own.", metavar="NAME", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reveal = Annotated[bool, typer.Option("--reveal", help="Show the URL's query and the headers' values too.")]
Secret = Annotated[
    str | None,
    typer.Option(
        envvar="SUBSCRIPTION_SECRET",
        help="Its signing secret (whsec_…); without it, one is generated.",
        show_default=False,
    ),
]

commands = typer.Typer(
    help="Several receivers for one customer, each on its own terms.", no_args_is_help=True
)


@commands.command("list")
def list_(workspace: WorkspaceName, as_json: Json = False) -> None:
    """List a workspace's subscriptions, the default one first."""
    settings = terminal.settings()

    async def work() -> tuple[Workspace, Counter[str]]:
        async with wiring.store(settings) as store:
            known = await store.workspaces.require(workspace)
            return known, await subscriptions.waiting_of_each(store, workspace)

    known, waiting = terminal.run(work())
    if as_json:
        terminal.print_json(
            [
                subscriptions.document(known, name, waiting[name], allow_http=settings.allow_http)
                for name in subscriptions.names(known)
            ]
        )
        return
    head = "subscription", "state", "waiting", "events", "channels", "callback URL"
    rows = []
    for name in subscriptions.names(known):
        one = found(known, name)
        events, channels = ", ".join(one.events) or "all", ", ".join(one.channels) or "all"
        url = without_query(one.callback_url) or None
        state = f"disabled: {one.disabled.reason}" if one.disabled else one.state
        rows.append((name, state, waiting[name], events, channels, url))
    terminal.print_table(head, rows, "")


@commands.command()
def show(workspace: WorkspaceName, name: Name, reveal: Reveal = False, as_json: Json = False) -> None:
    """Show a subscription, never its secrets."""
    settings = terminal.settings()

    async def work() -> tuple[Workspace, int]:
        async with wiring.store(settings) as store:
            known = await store.workspaces.require(workspace)
            found(known, name)
            return known, await subscriptions.waiting(store, workspace, name)

    known, waiting = terminal.run(work())
    document = subscriptions.document(known, name, waiting, reveal=reveal, allow_http=settings.allow_http)
    if as_json:
        terminal.print_json(document)
        return
    shown = document | {
        "events": ", ".join(document["events"]) or "all",
        "channels": ", ".join(document["channels"]) or "all",
        "withoutFields": ", ".join(document["withoutFields"]) or None,
        "headers": ", ".join(f"{one}: {value}" for one, value in document["headers"].items()) or None,
        "secrets": ", ".join(
            f"one of {s['createdAt']}" + (f", ends {s['expiresAt']}" if s["expiresAt"] else "")
            for s in document["secrets"]
        ),
        **_keys_shown(document),
        **_certificate_shown(document),
    }
    terminal.print_table(("field", "value"), list(shown.items()), "")


@commands.command()
def remove(
    workspace: WorkspaceName,
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="End its waiting callbacks as failed.")] = False,
) -> None:
    """Remove a subscription that has no waiting callbacks."""
    settings = terminal.settings()

    async def work() -> int:
        async with wiring.store(settings) as store:
            ended = await store.subscriptions.remove(workspace, name, store.ledger, force=force)
            about = {"subscription": name, "ended": ended}
            await store.audit.add("subscription.remove", workspace, after=about)
            return ended

    ended = terminal.run(work())
    waiting = tables.counted(ended, "waiting callback ends", "waiting callbacks end")
    say(workspace, name, "is removed" + (f"; {waiting} as failed (subscription_removed)" if ended else ""))


@commands.command()
def pause(workspace: WorkspaceName, name: Name) -> None:
    """Let a subscription's callbacks wait, those of later status changes too, until `resume` or their expiry."""

    async def work(store: wiring.Store) -> Workspace:
        return await store.subscriptions.pause(workspace, name)

    changed = _change("pause", name, work)
    say(workspace, name, "is paused" if changed else "was paused already")


@commands.command()
def resume(
    workspace: WorkspaceName,
    name: Name,
    replay_since: Annotated[
        str | None,
        typer.Option(
            help="Replay its callbacks that ended failed since then too: 6h, 2d, or ISO 8601.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Send what waits for a paused subscription, or bring back a disabled one, for later status changes.

    An endpoint that `endpoint stop` stopped stays so.

    Examples:

      dispatcher subscription resume acme crm --replay-since 6h
    """
    settings = terminal.settings()

    async def work(store: wiring.Store) -> Workspace:
        if replay_since:
            asked = failed_since(workspace, name, replay_since)
            span(asked, await store.installation.now_ms())  # raises InvalidInput
        return await store.subscriptions.resume(workspace, name, store.ledger)

    async def replay() -> Replayed:
        async with wiring.store(settings) as store:
            asked = failed_since(workspace, name, replay_since or "")
            return await replay_failed(store, asked, How(settings.expiry_seconds))

    changed = _change("resume", name, work)
    say(workspace, name, "is active again" if changed else "was active already")
    if replay_since:
        print_many(terminal.run(replay()), How.rate, done=True)


@commands.command()
def rotate_secret(
    workspace: WorkspaceName,
    name: Name,
    secret: Secret = None,
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
    """Give a subscription a new secret; the old one goes on signing for a grace period."""
    settings = terminal.settings()
    grace = settings.secret_grace_seconds if grace_seconds is None else grace_seconds

    async def work() -> Workspace:
        async with wiring.store(settings) as store:
            now_ms = await store.installation.now_ms()
            changed = await store.subscriptions.rotate_secret(
                workspace, name, now_ms=now_ms, grace_ms=grace * 1000, secret=secret
            )
            await subscriptions.note(store, "rotate_secret", changed, name)
            return changed

    what = f"has a new signing secret (the old one signs for {tables.duration(grace)} more)"
    show_secret(terminal.run(work()), name, what, as_json)


def _change(what: str, name: str, work: Callable[[wiring.Store], Awaitable[Workspace]]) -> bool:
    settings: Settings = terminal.settings()

    async def change() -> bool:
        async with wiring.store(settings) as store:
            changed = await work(store)
            await subscriptions.note(store, what, changed, name)
            return is_changed(changed)

    return terminal.run(change())


def show_secret(workspace: Workspace, name: str, what: str, as_json: bool) -> None:
    """Prints the newest secret: the only time it is shown."""
    one = found(workspace, name)
    secret, public = one.secrets[-1].text, subscriptions.public_key(one)
    called = f"subscription {name} of workspace {workspace.id}"
    again = f"`dispatcher subscription rotate-secret {workspace.id} {name}` gives it another"
    with terminal.only_now(f"{called} is stored", again):
        if as_json:
            made = {"workspace": workspace.id, "subscription": name, "secret": secret}
            terminal.print_json(made | ({"publicKey": public} if public else {}))
            return
        terminal.out.print(f"{called} {what}, shown only now:\n{secret}", markup=False)
        if public:
            terminal.out.print(f"its public key: {public}", markup=False)


def say(workspace: str, name: str, what: str) -> None:
    """Prints what became of a subscription."""
    terminal.out.print(f"subscription {name} of workspace {workspace} {what}", markup=False)


def _keys_shown(found: dict[str, Any]) -> dict[str, Any]:
    """A document's public keys as the cell of a table."""
    keys = (
        key["publicKey"] + (f" (ends {key['expiresAt']})" if key["expiresAt"] else "")
        for key in found["publicKeys"]
    )
    return {"publicKeys": ", ".join(keys) or None}


def _certificate_shown(found: dict[str, Any]) -> dict[str, Any]:
    """A document's client certificate as the cell of a table."""
    one = found["clientCertificate"]
    if one is None:
        return {"clientCertificate": None}
    ends = "has ended" if one["expiresAt"] <= iso(round(time.time() * 1000)) else "ends"
    return {"clientCertificate": f"{one['subject']}, {ends} {one['expiresAt']}"}
