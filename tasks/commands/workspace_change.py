"""`dispatcher workspace add` and `update`: create and change a workspace. Both resolve its callback URL first."""

from typing import Annotated

import typer

from config.settings import Settings
from dispatcher.rules.dialects import dialects
from dispatcher.rules.subscription import DEFAULT, ORDERINGS
from dispatcher.rules.workspace import Workspace
from dispatcher.rules.workspace_headers import parse_headers
from tasks import terminal, wiring
from tasks.actions import workspaces
from tasks.actions.workspaces import Wanted
from tasks.commands.look_up import look_up
from tasks.commands.moving import MoveFrom, MoveWaiting, Moving, check_moving
from tasks.commands.workspace import Id, Json, show_secret

Dialect = Annotated[str, typer.Option(help=f"One of: {', '.join(sorted(dialects()))}.", show_default=False)]
CallbackUrl = Annotated[
    str | None,
    typer.Option(
        help="Where its callbacks go; without it, only status changes that carry a URL cause callbacks.",
        show_default=False,
    ),
]
Secret = Annotated[
    str | None,
    typer.Option(
        envvar="WORKSPACE_SECRET",
        help="Its signing secret (whsec_…); without it, one is generated.",
        show_default=False,
    ),
]
MaxConcurrency = Annotated[
    int | None, typer.Option(help="Limit of callbacks in flight to each endpoint.", show_default=False)
]
Rate = Annotated[
    float | None,
    typer.Option(help="Limit of callbacks a second to each endpoint; 0: no limit.", show_default=False),
]
Ordering = Annotated[
    str | None,
    typer.Option(
        help=f"Order of one message's callbacks, for later status changes: {', '.join(ORDERINGS)}.",
        show_default=False,
    ),
]
Width = Annotated[
    int | None,
    typer.Option(
        help="Over how many partitions it is spread: 1 to 64, and never fewer than before. For a customer that is too large for one.",
        show_default=False,
    ),
]
Header = Annotated[
    list[str] | None,
    typer.Option(help="A header to send, as 'Name: value'; may be repeated.", show_default=False),
]
NoCheck = Annotated[
    bool,
    typer.Option(
        "--no-check",
        help="Do not resolve the callback URL, for workers with other settings or name servers than here.",
    ),
]


def add(
    workspace: Id,
    dialect: Dialect,
    callback_url: CallbackUrl = None,
    secret: Secret = None,
    max_concurrency: MaxConcurrency = None,
    rate_per_second: Rate = None,
    ordering: Ordering = None,
    width: Width = None,
    header: Header = None,
    no_check: NoCheck = False,
    as_json: Json = False,
) -> None:
    """Create a workspace; its secret is shown only now.

    A callback URL that this process's settings do not allow is refused. A host that has no address now only causes a
    warning.

    Examples:

      dispatcher workspace add acme --dialect zeckta --callback-url https://hooks.acme.example/messages

      dispatcher workspace add bluefin --dialect sendexa --callback-url https://api.bluefin.example/sms --max-concurrency 5
    """
    settings = terminal.settings()
    headers = parse_headers(header or [])
    wanted = Wanted(callback_url, max_concurrency, rate_per_second, ordering, headers, width)

    async def work() -> tuple[Workspace, str]:
        async with wiring.store(settings, keep=True) as store:
            warning = "" if no_check else await _look_up(settings, callback_url)
            return await workspaces.add(store, workspace, dialect, wanted, secret), warning

    made, warning = terminal.run(work())
    show_secret(made, "is made; its signing secret", as_json)
    _warn(warning)
    if not callback_url:
        terminal.err.print("it has no callback URL: only status changes that carry one cause callbacks")


def update(
    workspace: Id,
    callback_url: Annotated[
        str | None, typer.Option(help="Where callbacks of later status changes go.", show_default=False)
    ] = None,
    move_waiting: MoveWaiting = False,
    move_from: MoveFrom = None,
    max_concurrency: MaxConcurrency = None,
    rate_per_second: Rate = None,
    ordering: Ordering = None,
    width: Width = None,
    header: Header = None,
    no_check: NoCheck = False,
) -> None:
    """Change a workspace: a new URL is for later status changes, the rest applies at once.

    A callback URL is checked as by `workspace add`. A header without a value ('Name:') is removed.
    """
    settings = terminal.settings()
    headers = parse_headers(header or [])
    wanted = Wanted(callback_url, max_concurrency, rate_per_second, ordering, headers, width)
    if not wanted:
        options = "--callback-url, --max-concurrency, --rate-per-second, --ordering, --width or --header"
        terminal.fail(f"say what to change: {options}", terminal.USAGE)
    check_moving(callback_url, move_from, move_waiting=move_waiting)
    changed, done, warnings = terminal.run(
        _update(settings, workspace, wanted, move_waiting, move_from, no_check)
    )
    _say(workspace, done)
    if changed and width is not None:
        spread = settings.partitioning.width(width)
        terminal.out.print(
            f"new messages are spread over {spread} partitions; those that have begun stay where they are"
        )
    for warning in warnings:
        _warn(warning)


async def _update(
    settings: Settings,
    workspace: str,
    wanted: Wanted,
    move_waiting: bool,
    move_from: str | None,
    no_check: bool,
) -> tuple[bool, str, list[str]]:
    """Whether anything changed, what became of it in words, and warnings."""
    async with wiring.store(settings) as store:
        moving = await Moving.begin(
            store, workspace, DEFAULT, move_from, needed=move_waiting, command=f"workspace update {workspace}"
        )
        warning = "" if no_check else await _look_up(settings, wanted.callback_url)
        changed = await workspaces.update(store, workspace, wanted)
        done = "is changed" if changed else "was like that already"
        moved, left = await moving.see_to(
            wanted.callback_url, lambda: _say(workspace, done), move_waiting=move_waiting
        )
        return changed, done + moved, [warning, left]


def _say(workspace: str, what: str) -> None:
    terminal.out.print(f"workspace {workspace} {what}", markup=False)


async def _look_up(settings: Settings, url: str | None) -> str:
    """A warning about a callback URL to be set, or "". Raises InvalidInput if deliveries may not go there."""
    return await look_up(settings, url) if url else ""


def _warn(text: str) -> None:
    if text:
        terminal.err.print(text, markup=False)
