"""`dispatcher workspace`: the customers."""

from collections import defaultdict
from importlib import import_module
from typing import Annotated, Any

import typer

from config.settings import Settings
from dispatcher.model import iso
from dispatcher.rules.addresses import parse_callback_url, without_query
from dispatcher.rules.dialects import dialects
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.headers import parse_headers
from dispatcher.rules.workspace import ORDERINGS, Workspace
from dispatcher.store.audit import described, difference, is_changed, shown_url
from tasks import console, tables, wiring

commands = typer.Typer(help="Customers: dialect, callback URL, secrets, limits.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The workspace's name.", metavar="ID", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MaxConcurrency = Annotated[
    int | None, typer.Option(help="Callbacks in flight to one of its endpoints, at most.", show_default=False)
]
Rate = Annotated[
    float | None,
    typer.Option(
        help="Callbacks a second to one of its endpoints, at most; 0 for no limit.", show_default=False
    ),
]
Ordering = Annotated[
    str | None,
    typer.Option(
        help=f"Of one message's callbacks, for later status changes: {', '.join(ORDERINGS)}.",
        show_default=False,
    ),
]
Header = Annotated[
    list[str] | None,
    typer.Option(help="A header of its own, as 'Name: value'; may be repeated.", show_default=False),
]
NoCheck = Annotated[
    bool,
    typer.Option(
        "--no-check",
        help="Do not look up where the callback URL leads: the workers' settings or name servers are others than here.",
    ),
]
MOVED_AT_ONCE = 100

Reveal = Annotated[bool, typer.Option("--reveal", help="Show the URL's query and the headers' values too.")]


@commands.command()
def add(
    workspace: Id,
    dialect: Annotated[
        str, typer.Option(help=f"One of: {', '.join(sorted(dialects()))}.", show_default=False)
    ],
    callback_url: Annotated[
        str,
        typer.Option(
            help="Where its callbacks go; left out, only status changes that carry a URL cause callbacks.",
            show_default=False,
        ),
    ] = "",
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="WORKSPACE_SECRET",
            help="Its signing secret (whsec_…); one is made if left out.",
            show_default=False,
        ),
    ] = None,
    max_concurrency: MaxConcurrency = None,
    rate_per_second: Rate = None,
    ordering: Ordering = None,
    header: Header = None,
    no_check: NoCheck = False,
    as_json: Json = False,
) -> None:
    """Make a workspace; its secret is shown this once.

    A callback URL that deliveries could not go to, by this process's settings, is refused; a name that has no address now is
    only told.

    Examples:

      dispatcher workspace add acme --dialect zeckta --callback-url https://hooks.acme.example/messages

      dispatcher workspace add bluefin --dialect sendexa --callback-url https://api.bluefin.example/sms --max-concurrency 5
    """
    settings = console.settings()

    async def work() -> tuple[Workspace, str]:
        async with wiring.store(settings) as store:
            warning = "" if no_check else await _look_up(settings, callback_url)
            made = await store.workspaces.add(
                workspace,
                dialect,
                callback_url,
                now_ms=await store.installation.now_ms(),
                secret=secret,
                max_concurrency=max_concurrency,
                rate_per_second=rate_per_second,
                ordering=ordering,
                headers=parse_headers(header or []),
            )
            await store.audit.add("workspace.add", workspace, *difference(made))
            return made, warning

    made, warning = console.run(work())
    _show_secret(made, "is made; its signing secret", as_json)
    _warn(warning)
    if not callback_url:
        console.err.print("it has no callback URL: only status changes that carry one cause callbacks")


@commands.command()
def rotate_secret(
    workspace: Id,
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="WORKSPACE_SECRET",
            help="The new one (whsec_…); one is made if left out.",
            show_default=False,
        ),
    ] = None,
    grace_seconds: Annotated[
        int | None,
        typer.Option(
            min=0, help="How long the old one goes on signing; else SECRET_GRACE_SECONDS.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a workspace a new secret; the old one goes on signing beside it for a while."""
    settings = console.settings()
    grace = settings.secret_grace_seconds if grace_seconds is None else grace_seconds

    async def work() -> Workspace:
        async with wiring.store(settings) as store:
            now_ms = await store.installation.now_ms()
            rotated = await store.workspaces.rotate_secret(
                workspace, now_ms=now_ms, grace_ms=grace * 1000, secret=secret
            )
            await store.audit.add("workspace.rotate_secret", workspace, *difference(rotated))
            return rotated

    _show_secret(
        console.run(work()),
        f"has a new signing secret (the old one signs for {tables.duration(grace)} more)",
        as_json,
    )


@commands.command()
def rotate_encryption() -> None:
    """Write all secrets anew under the newest of DISPATCHER_SECRET_KEYS."""
    settings = console.settings()
    if not settings.secret_keys:
        console.fail("DISPATCHER_SECRET_KEYS is not set: there is no key to encrypt with", console.USAGE)

    async def work() -> int:
        async with wiring.store(settings) as store:
            count = await store.workspaces.rotate_encryption()
            await store.audit.add("workspace.rotate_encryption", after={"workspaces": count})
            return count

    console.out.print(f"the secrets of {console.run(work())} workspaces are encrypted under the newest key")


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
    rows = [
        (w.id, w.dialect, without_query(w.callback_url) or None, w.max_concurrency, iso(w.created_ms))
        for w in found
    ]
    empty = "no workspaces yet; `dispatcher workspace add --help` shows how to make one"
    console.print_table(("workspace", "dialect", "callback URL", "max concurrency", "created"), rows, empty)


@commands.command()
def show(workspace: Id, reveal: Reveal = False, as_json: Json = False) -> None:
    """Show a workspace, never its secrets."""
    settings = console.settings()

    async def work() -> tuple[Workspace, dict[str, int]]:
        async with wiring.store(settings) as store:
            return await store.workspaces.require(workspace), await store.workspaces.waiting(workspace)

    found, waiting = console.run(work())
    document = _document(found, reveal=reveal) | {"waiting": sum(waiting.values())}
    if as_json:
        console.print_json(document)
        return
    headers = ", ".join(f"{name}: {value}" for name, value in document["headers"].items())
    secrets = ", ".join(_life(secret) for secret in document["secrets"])
    shown = document | {"secrets": secrets, "headers": headers or None}
    console.print_table(("field", "value"), list(shown.items()), "")


@commands.command()
def update(
    workspace: Id,
    callback_url: Annotated[
        str | None, typer.Option(help="Where callbacks of later status changes go.", show_default=False)
    ] = None,
    move_waiting: Annotated[
        bool, typer.Option("--move-waiting", help="With --callback-url: waiting callbacks go there too.")
    ] = False,
    move_from: Annotated[
        str | None,
        typer.Option(
            help="With --move-waiting: those to this URL, in place of the one before.", show_default=False
        ),
    ] = None,
    max_concurrency: MaxConcurrency = None,
    rate_per_second: Rate = None,
    ordering: Ordering = None,
    header: Header = None,
    no_check: NoCheck = False,
) -> None:
    """Change a workspace: the URL for later status changes, the rest at once.

    A callback URL is looked at as `workspace add` does. A header without a value ('Name:') is removed.
    """
    settings = console.settings()
    if (callback_url, max_concurrency, rate_per_second, ordering, header or None) == (None,) * 5:
        options = "--callback-url, --max-concurrency, --rate-per-second, --ordering or --header"
        console.fail(f"say what to change: {options}", console.USAGE)

    if (move_waiting and not callback_url) or (move_from and not move_waiting):
        console.fail(
            "--move-waiting goes with --callback-url, --move-from with --move-waiting", console.USAGE
        )

    async def work() -> tuple[str, bool, int, int]:
        async with wiring.store(settings) as store:
            before = move_from or (await store.workspaces.require(workspace)).callback_url
            if move_waiting and not before:
                console.fail("it had no callback URL: say --move-from", console.USAGE)
            warning = "" if no_check else await _look_up(settings, callback_url)
            updated = await store.workspaces.update(
                workspace,
                callback_url=callback_url,
                max_concurrency=max_concurrency,
                rate_per_second=rate_per_second,
                ordering=ordering,
                headers=parse_headers(header or []),
            )
            if changed := is_changed(updated):
                await store.audit.add("workspace.update", workspace, *difference(updated))
            return warning, changed, *(await _move(store, workspace, before) if move_waiting else (0, 0))

    warning, changed, moved, left = console.run(work())
    also = f"; {moved} waiting callbacks go to the new URL" if move_waiting else ""
    if left:
        also += f"; {left} are being sent, or go to another URL (--move-from moves those)"
    done = "is changed" if changed else "was like that already"
    console.out.print(f"workspace {workspace} {done}{also}", markup=False)
    _warn(warning)


async def _look_up(settings: Settings, url: str | None) -> str:
    """What to warn of, of a callback URL that is to be set. Raises InvalidInput where deliveries may not go there."""
    if not url:
        return ""
    sending = import_module("tasks.commands.look_up")  # DNS and TLS: only this needs them
    return str(await sending.look_up(settings, url))


def _warn(text: str) -> None:
    if text:
        console.err.print(text, markup=False)


async def _move(store: wiring.Store, workspace: str, before: str) -> tuple[int, int]:
    """Moves what waits for a URL to the workspace's, each message's in order of acceptance; how many, and how many not."""
    url = parse_callback_url((await store.workspaces.require(workspace)).callback_url, allow_http=True)
    from_url = parse_callback_url(before, allow_http=True).url
    by_message: defaultdict[str, list[str]] = defaultdict(list)
    with console.err.status("reading what waits"):
        async for one in store.callbacks.pending(workspace):
            by_message[one.message_uuid].append(one.event_id)
        several = [uuid for uuid, ids in by_message.items() if len(ids) > 1]
        for uuid, order in (await store.callbacks.order(workspace, several)).items():
            place = {event_id: number for number, event_id in enumerate(order)}
            by_message[uuid].sort(key=lambda event_id, place=place: place.get(event_id, len(place)))  # type: ignore[misc]
    waiting = [event_id for ids in by_message.values() for event_id in ids]
    moved, name = 0, str(EndpointName(workspace, url.origin))
    starts = range(0, len(waiting), MOVED_AT_ONCE)
    about = {"from": shown_url(from_url), "to": shown_url(url.url)}
    async with store.audit.steps("callbacks.move", workspace, **about) as done:
        for first in console.progress(starts, "moving"):
            ids = waiting[first : first + MOVED_AT_ONCE]
            moved += await store.ledger.move(workspace, from_url, url.url, name, ids)
            done["moved"] = moved
    return moved, len(waiting) - moved


@commands.command()
def remove(
    workspace: Id,
    force: Annotated[bool, typer.Option("--force", help="End its waiting callbacks as failed.")] = False,
) -> None:
    """Remove a workspace that has no waiting callbacks."""
    settings = console.settings()

    async def work() -> int:
        async with wiring.store(settings) as store:
            before = await store.workspaces.require(workspace)
            ended = await store.workspaces.remove(workspace, store.ledger, force=force)
            await store.audit.add("workspace.remove", workspace, described(before), {"ended": ended})
            return ended

    waiting = console.run(work())
    ended = f"; {waiting} waiting callbacks end as failed (workspace_removed)" if waiting else ""
    console.out.print(f"workspace {workspace} is removed{ended}", markup=False)


def _show_secret(workspace: Workspace, what: str, as_json: bool) -> None:
    secret = workspace.secrets[-1].text
    if as_json:
        console.print_json({"workspace": workspace.id, "secret": secret})
    else:
        console.out.print(f"workspace {workspace.id} {what}, shown only now:\n{secret}", markup=False)


def _document(workspace: Workspace, *, reveal: bool = False) -> dict[str, Any]:
    return {
        "workspace": workspace.id,
        "dialect": workspace.dialect,
        "callbackUrl": (workspace.callback_url if reveal else without_query(workspace.callback_url)) or None,
        "headers": {name: value if reveal else "…" for name, value in workspace.headers.items()},
        "maxConcurrency": workspace.max_concurrency,
        "ratePerSecond": workspace.rate_per_second,
        "ordering": workspace.ordering,
        "createdAt": iso(workspace.created_ms),
        "secrets": [
            {"createdAt": iso(s.created_ms), "expiresAt": None if s.expires_ms is None else iso(s.expires_ms)}
            for s in workspace.secrets
        ],
        "problem": workspace.problem,
    }


def _life(secret: dict[str, Any]) -> str:
    ends = f", ends {secret['expiresAt']}" if secret["expiresAt"] else ""
    return f"one of {secret['createdAt']}{ends}"
