"""`dispatcher subscription add` and `update`. Both resolve the callback URL first."""

from typing import Annotated, Any

import typer

from config.settings import Settings
from dispatcher.rules.retry_schedule import MOST as MOST_ATTEMPTS
from dispatcher.rules.retry_schedule import SETTINGS
from dispatcher.rules.subscription import ORDERINGS
from dispatcher.rules.workspace import Workspace
from dispatcher.rules.workspace_headers import parse_headers
from dispatcher.store.audit import is_changed
from dispatcher.store.subscriptions import found
from tasks import terminal, wiring
from tasks.actions import subscriptions
from tasks.commands.look_up import look_up, look_up_token_url
from tasks.commands.moving import MoveFrom, MoveWaiting, Moving, check_moving
from tasks.commands.subscription import Json, Name, Secret, WorkspaceName, say, show_secret
from tasks.commands.subscription_certificate import Certificate, Key, certificate_of
from tasks.commands.subscription_proof import (
    Auth,
    AuthAudience,
    AuthScope,
    AuthSecret,
    AuthTokenUrl,
    AuthUser,
    GivenAuth,
    Signature,
    proof,
    token_url,
)

Events = Annotated[
    str | None,
    typer.Option(
        help="Which events it gets, as MESSAGE_DELIVERED,MESSAGE_FAILED; empty: all.", show_default=False
    ),
]
Channels = Annotated[
    str | None,
    typer.Option(help="Which channels it hears of, as SMS,RCS; empty: all.", show_default=False),
]
WithoutFields = Annotated[
    str | None,
    typer.Option(
        help="Fields that its callbacks leave out, as message.dest,message.cost; empty: none.",
        show_default=False,
    ),
]
Dialect = Annotated[
    str | None,
    typer.Option(
        help="Another format of the same platform (default: the workspace's dialect).", show_default=False
    ),
]
MaxConcurrency = Annotated[
    int | None, typer.Option(help="Limit of callbacks in flight to its endpoint.", show_default=False)
]
Rate = Annotated[
    float | None,
    typer.Option(help="Limit of callbacks a second to its endpoint; 0: no limit.", show_default=False),
]
Ordering = Annotated[
    str | None,
    typer.Option(
        help=f"Order of one message's callbacks, for later status changes: {', '.join(ORDERINGS)}.",
        show_default=False,
    ),
]
RetrySchedule = Annotated[
    str | None,
    typer.Option(
        help=f"The wait before each attempt, as 0,30s,5m,1h,6h (1 to {MOST_ATTEMPTS}, the first 0); "
        f"{SETTINGS}: as the settings say.",
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
        help="Do not resolve the callback URL and the token URL, for workers with other settings or name servers than here.",
    ),
]


def add(
    workspace: WorkspaceName,
    name: Name,
    callback_url: Annotated[str, typer.Option(help="Where its callbacks go.", show_default=False)],
    events: Events = None,
    channels: Channels = None,
    without_fields: WithoutFields = None,
    dialect: Dialect = None,
    secret: Secret = None,
    max_concurrency: MaxConcurrency = None,
    rate_per_second: Rate = None,
    ordering: Ordering = None,
    retry_schedule: RetrySchedule = None,
    header: Header = None,
    signature: Signature = None,
    auth: Auth = None,
    auth_user: AuthUser = None,
    auth_secret: AuthSecret = None,
    auth_token_url: AuthTokenUrl = None,
    auth_scope: AuthScope = None,
    auth_audience: AuthAudience = None,
    certificate: Certificate = None,
    key: Key = None,
    no_check: NoCheck = False,
    as_json: Json = False,
) -> None:
    """Add a subscription: later status changes become a callback for it too. Its secret is shown only now.

    Examples:

      dispatcher subscription add acme crm --callback-url https://crm.acme.example/messages --events MESSAGE_DELIVERED
    """
    settings = terminal.settings()
    terms = _terms(
        events, channels, without_fields, max_concurrency, rate_per_second, ordering, retry_schedule
    )
    given = GivenAuth(auth, auth_user, auth_secret, auth_token_url, auth_scope, auth_audience)
    terms |= proof(settings, signature, given) | certificate_of(certificate, key)
    headers = parse_headers(header or [])

    async def work() -> tuple[Workspace, list[str]]:
        async with wiring.store(settings) as store:
            warnings = [] if no_check else await _look_up(settings, callback_url, token_url(terms))
            now_ms = await store.installation.now_ms()
            made = await store.subscriptions.add(
                workspace,
                name,
                callback_url,
                now_ms=now_ms,
                dialect=dialect,
                secret=secret,
                headers=headers,
                **terms,
            )
            await subscriptions.note(store, "add", made, name)
            return made, warnings

    made, warnings = terminal.run(work())
    show_secret(made, name, "is made; its signing secret", as_json)
    for warning in warnings:
        terminal.err.print(warning, markup=False)


def update(
    workspace: WorkspaceName,
    name: Name,
    callback_url: Annotated[
        str | None, typer.Option(help="Where callbacks of later status changes go.", show_default=False)
    ] = None,
    move_waiting: MoveWaiting = False,
    move_from: MoveFrom = None,
    events: Events = None,
    channels: Channels = None,
    without_fields: WithoutFields = None,
    dialect: Dialect = None,
    max_concurrency: MaxConcurrency = None,
    rate_per_second: Rate = None,
    ordering: Ordering = None,
    retry_schedule: RetrySchedule = None,
    header: Header = None,
    signature: Signature = None,
    auth: Auth = None,
    auth_user: AuthUser = None,
    auth_secret: AuthSecret = None,
    auth_token_url: AuthTokenUrl = None,
    auth_scope: AuthScope = None,
    auth_audience: AuthAudience = None,
    certificate: Certificate = None,
    key: Key = None,
    no_check: NoCheck = False,
) -> None:
    """Change a subscription: URL, events, channels, fields and dialect are for later status changes, the rest applies at once.

    A header without a value ('Name:') is removed.
    """
    settings = terminal.settings()
    terms = _terms(
        events, channels, without_fields, max_concurrency, rate_per_second, ordering, retry_schedule
    )
    given = GivenAuth(auth, auth_user, auth_secret, auth_token_url, auth_scope, auth_audience)
    terms |= proof(settings, signature, given) | certificate_of(certificate, key)
    headers = parse_headers(header or [])
    if callback_url is None and dialect is None and not terms and not headers:
        terminal.fail(
            "say what to change: --callback-url, --events, --channels, --without-fields, --dialect, --max-concurrency, "
            "--rate-per-second, --ordering, --retry-schedule, --header, --signature, --auth or --client-certificate",
            terminal.USAGE,
        )

    check_moving(callback_url, move_from, move_waiting=move_waiting)

    async def work() -> tuple[Workspace, str, list[str]]:
        async with wiring.store(settings) as store:
            warnings = [] if no_check else await _look_up(settings, callback_url, token_url(terms))
            moving = await Moving.begin(store, workspace, name, move_from, needed=move_waiting)
            changed = await store.subscriptions.update(
                workspace,
                name,
                callback_url=callback_url,
                dialect=dialect,
                headers=headers,
                now_ms=await store.installation.now_ms(),
                **terms,
            )
            await subscriptions.note(store, "update", changed, name)
            done = "is changed" if is_changed(changed) else "was like that already"
            moved, left = await moving.see_to(
                callback_url, lambda: say(workspace, name, done), move_waiting=move_waiting
            )
            return changed, done + moved, [*warnings, left] if left else warnings

    changed, done, warnings = terminal.run(work())
    say(workspace, name, done)
    if signature and (key := subscriptions.public_key(found(changed, name))):
        terminal.out.print(f"its public key: {key}", markup=False)
    for warning in warnings:
        terminal.err.print(warning, markup=False)


async def _look_up(settings: Settings, callback_url: str | None, of_token: str | None) -> list[str]:
    """Warnings about the given URLs. Raises InvalidInput for a callback URL that deliveries may not go to."""
    found = [
        await look_up(settings, callback_url) if callback_url else "",
        await look_up_token_url(settings, of_token) if of_token else "",
    ]
    return [warning for warning in found if warning]


def _terms(
    events: str | None,
    channels: str | None,
    without_fields: str | None,
    max_concurrency: int | None,
    rate_per_second: float | None,
    ordering: str | None,
    retry_schedule: str | None,
) -> dict[str, Any]:
    """The given ones of a subscription's terms."""
    terms = {
        "events": _listed(events),
        "channels": _listed(channels),
        "without_fields": _listed(without_fields),
        "max_concurrency": max_concurrency,
        "rate_per_second": rate_per_second,
        "ordering": ordering,
        "retry_schedule": retry_schedule,
    }
    return {name: value for name, value in terms.items() if value is not None}


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [one.strip() for one in text.split(",") if one.strip()]
