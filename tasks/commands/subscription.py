"""`dispatcher subscription`: several receivers for one customer, each on its own terms."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from config.settings import Settings
from dispatcher.model import iso
from dispatcher.rules.addresses import without_query
from dispatcher.rules.retry_schedule import MOST as MOST_ATTEMPTS
from dispatcher.rules.retry_schedule import SETTINGS, in_words
from dispatcher.rules.subscription import DEFAULT, ORDERINGS
from dispatcher.rules.workspace import Workspace
from dispatcher.rules.workspace_headers import parse_headers
from dispatcher.store.audit import is_changed, shown_url
from dispatcher.store.subscriptions import found
from tasks import console, tables, wiring
from tasks.actions.events import span
from tasks.actions.replay import How, Replayed, failed_since, replay_failed
from tasks.commands import subscription_proof
from tasks.commands.look_up import look_up
from tasks.commands.replay import print_many
from tasks.commands.subscription_proof import Auth, AuthSecret, AuthUser, Signature, proof

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
Secret = Annotated[
    str | None,
    typer.Option(
        envvar="SUBSCRIPTION_SECRET",
        help="Its signing secret (whsec_…); without it, one is generated.",
        show_default=False,
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
        help="Do not resolve the callback URL, for workers with other settings or name servers than here.",
    ),
]

commands = typer.Typer(
    help="Several receivers for one customer, each on its own terms.", no_args_is_help=True
)


@commands.command()
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
    no_check: NoCheck = False,
    as_json: Json = False,
) -> None:
    """Add a subscription: later status changes become a callback for it too. Its secret is shown only now.

    Examples:

      dispatcher subscription add acme crm --callback-url https://crm.acme.example/messages --events MESSAGE_DELIVERED
    """
    settings = console.settings()
    terms = _terms(
        events, channels, without_fields, max_concurrency, rate_per_second, ordering, retry_schedule
    )
    terms |= proof(signature, auth, auth_user, auth_secret)
    headers = parse_headers(header or [])

    async def work() -> tuple[Workspace, str]:
        async with wiring.store(settings) as store:
            warning = "" if no_check else await look_up(settings, callback_url)
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
            await _note(store, "add", made, name)
            return made, warning

    made, warning = console.run(work())
    _show_secret(made, name, "is made; its signing secret", as_json)
    if warning:
        console.err.print(warning, markup=False)


@commands.command("list")
def list_(workspace: WorkspaceName, as_json: Json = False) -> None:
    """List a workspace's subscriptions, the default one first."""
    settings = console.settings()

    async def work() -> tuple[Workspace, dict[str, int]]:
        async with wiring.store(settings) as store:
            known = await store.workspaces.require(workspace)
            return known, {name: await _waiting(store, workspace, name) for name in _names(known)}

    known, waiting = console.run(work())
    if as_json:
        console.print_json([_document(known, name, waiting[name]) for name in _names(known)])
        return
    head = "subscription", "state", "waiting", "events", "channels", "callback URL"
    rows = []
    for name in _names(known):
        one = found(known, name)
        events, channels = ", ".join(one.events) or "all", ", ".join(one.channels) or "all"
        url = without_query(one.callback_url) or None
        state = f"disabled: {one.disabled.reason}" if one.disabled else one.state
        rows.append((name, state, waiting[name], events, channels, url))
    console.print_table(head, rows, "")


@commands.command()
def show(workspace: WorkspaceName, name: Name, reveal: Reveal = False, as_json: Json = False) -> None:
    """Show a subscription, never its secrets."""
    settings = console.settings()

    async def work() -> tuple[Workspace, int]:
        async with wiring.store(settings) as store:
            known = await store.workspaces.require(workspace)
            found(known, name)
            return known, await _waiting(store, workspace, name)

    document = _document(*_swap(console.run(work()), name), reveal=reveal)
    if as_json:
        console.print_json(document)
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
        **subscription_proof.shown(document),
    }
    console.print_table(("field", "value"), list(shown.items()), "")


@commands.command()
def update(
    workspace: WorkspaceName,
    name: Name,
    callback_url: Annotated[
        str | None, typer.Option(help="Where callbacks of later status changes go.", show_default=False)
    ] = None,
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
    no_check: NoCheck = False,
) -> None:
    """Change a subscription: URL, events, channels, fields and dialect are for later status changes, the rest applies at once.

    A header without a value ('Name:') is removed.
    """
    settings = console.settings()
    terms = _terms(
        events, channels, without_fields, max_concurrency, rate_per_second, ordering, retry_schedule
    )
    terms |= proof(signature, auth, auth_user, auth_secret)
    headers = parse_headers(header or [])
    if callback_url is None and dialect is None and not terms and not headers:
        console.fail(
            "say what to change: --callback-url, --events, --channels, --without-fields, --dialect, --max-concurrency, "
            "--rate-per-second, --ordering, --retry-schedule, --header, --signature or --auth",
            console.USAGE,
        )

    async def work() -> tuple[Workspace, str]:
        async with wiring.store(settings) as store:
            warning = "" if no_check or not callback_url else await look_up(settings, callback_url)
            changed = await store.subscriptions.update(
                workspace,
                name,
                callback_url=callback_url,
                dialect=dialect,
                headers=headers,
                now_ms=await store.installation.now_ms(),
                **terms,
            )
            await _note(store, "update", changed, name)
            return changed, warning

    changed, warning = console.run(work())
    _say(workspace, name, "is changed" if is_changed(changed) else "was like that already")
    if signature and (key := subscription_proof.public_key(found(changed, name))):
        console.out.print(f"its public key: {key}", markup=False)
    if warning:
        console.err.print(warning, markup=False)


@commands.command()
def remove(
    workspace: WorkspaceName,
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="End its waiting callbacks as failed.")] = False,
) -> None:
    """Remove a subscription that has no waiting callbacks."""
    settings = console.settings()

    async def work() -> int:
        async with wiring.store(settings) as store:
            ended = await store.subscriptions.remove(workspace, name, store.ledger, force=force)
            about = {"subscription": name, "ended": ended}
            await store.audit.add("subscription.remove", workspace, after=about)
            return ended

    ended = console.run(work())
    waiting = tables.counted(ended, "waiting callback ends", "waiting callbacks end")
    _say(workspace, name, "is removed" + (f"; {waiting} as failed (subscription_removed)" if ended else ""))


@commands.command()
def pause(workspace: WorkspaceName, name: Name) -> None:
    """Let a subscription's callbacks wait, those of later status changes too, until `resume` or their expiry."""

    async def work(store: wiring.Store) -> Workspace:
        return await store.subscriptions.pause(workspace, name)

    changed = _change("pause", name, work)
    _say(workspace, name, "is paused" if changed else "was paused already")


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
    settings = console.settings()

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
    _say(workspace, name, "is active again" if changed else "was active already")
    if replay_since:
        print_many(console.run(replay()), How.rate, done=True)


@commands.command()
def rotate_secret(
    workspace: WorkspaceName,
    name: Name,
    secret: Secret = None,
    grace_seconds: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="How long the old one goes on signing (default: DISPATCHER_SECRET_GRACE_SECONDS).",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a subscription a new secret; the old one goes on signing for a grace period."""
    settings = console.settings()
    grace = settings.secret_grace_seconds if grace_seconds is None else grace_seconds

    async def work() -> Workspace:
        async with wiring.store(settings) as store:
            now_ms = await store.installation.now_ms()
            changed = await store.subscriptions.rotate_secret(
                workspace, name, now_ms=now_ms, grace_ms=grace * 1000, secret=secret
            )
            await _note(store, "rotate_secret", changed, name)
            return changed

    what = f"has a new signing secret (the old one signs for {tables.duration(grace)} more)"
    _show_secret(console.run(work()), name, what, as_json)


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


def _names(workspace: Workspace) -> list[str]:
    return [DEFAULT, *workspace.subscriptions]


async def _waiting(store: wiring.Store, workspace: str, name: str) -> int:
    return sum((await store.workspaces.waiting(workspace, "" if name == DEFAULT else name)).values())


def _swap(read: tuple[Workspace, int], name: str) -> tuple[Workspace, str, int]:
    return read[0], name, read[1]


def _change(what: str, name: str, work: Callable[[wiring.Store], Awaitable[Workspace]]) -> bool:
    settings: Settings = console.settings()

    async def change() -> bool:
        async with wiring.store(settings) as store:
            changed = await work(store)
            await _note(store, what, changed, name)
            return is_changed(changed)

    return console.run(change())


async def _note(store: wiring.Store, what: str, changed: Workspace, name: str) -> None:
    """Adds a change of a subscription to the trail."""
    if not is_changed(changed):
        return
    before = changed.before
    was = _noted(before, name) if before and (name == DEFAULT or name in before.subscriptions) else {}
    now = _noted(changed, name)
    facts = [{key: value for key, value in of.items() if was.get(key) != now[key]} for of in (was, now)]
    if (
        was
        and was["auth"] == now["auth"]
        and before
        and found(before, name).auth != found(changed, name).auth
    ):
        facts[1]["authChanged"] = True  # to another user or secret
    await store.audit.add(f"subscription.{what}", changed.id, facts[0], {"subscription": name} | facts[1])


def _noted(workspace: Workspace, name: str) -> dict[str, Any]:
    """A subscription as the trail has it: no secrets, no query of its URL, only the names of headers."""
    one = found(workspace, name)
    return {
        "callbackUrl": shown_url(one.callback_url),
        "dialect": one.dialect,
        "events": list(one.events),
        "channels": list(one.channels),
        "withoutFields": list(one.without_fields),
        "maxConcurrency": one.max_concurrency,
        "ratePerSecond": one.rate_per_second,
        "ordering": one.ordering,
        "retrySchedule": in_words(one.retry_schedule),
        "headers": sorted(one.headers),
        "state": one.state,
        "reason": one.disabled and one.disabled.reason,
        "secrets": len(one.secrets),
        **subscription_proof.noted(one),
    }


def _document(workspace: Workspace, name: str, waiting: int, *, reveal: bool = False) -> dict[str, Any]:
    one = found(workspace, name)
    return {
        "subscription": name,
        "workspace": workspace.id,
        "state": one.state,
        "reason": one.disabled and one.disabled.reason,
        "disabledAt": one.disabled and iso(one.disabled.at_ms),
        "callbackUrl": (one.callback_url if reveal else without_query(one.callback_url)) or None,
        "events": list(one.events),
        "channels": list(one.channels),
        "withoutFields": list(one.without_fields),
        "dialect": one.dialect,
        "headers": {header: value if reveal else "…" for header, value in one.headers.items()},
        "maxConcurrency": one.max_concurrency,
        "ratePerSecond": one.rate_per_second,
        "ordering": one.ordering,
        "retrySchedule": in_words(one.retry_schedule),
        "createdAt": iso(one.created_ms),
        "secrets": [
            {"createdAt": iso(s.created_ms), "expiresAt": None if s.expires_ms is None else iso(s.expires_ms)}
            for s in one.secrets
        ],
        **subscription_proof.document(one),
        "waiting": waiting,
        "problem": one.problem,
    }


def _show_secret(workspace: Workspace, name: str, what: str, as_json: bool) -> None:
    """Prints the newest secret: the only time it is shown."""
    one = found(workspace, name)
    secret, public = one.secrets[-1].text, subscription_proof.public_key(one)
    if as_json:
        made = {"workspace": workspace.id, "subscription": name, "secret": secret}
        console.print_json(made | ({"publicKey": public} if public else {}))
    else:
        console.out.print(
            f"subscription {name} of workspace {workspace.id} {what}, shown only now:\n{secret}", markup=False
        )
        if public:
            console.out.print(f"its public key: {public}", markup=False)


def _say(workspace: str, name: str, what: str) -> None:
    console.out.print(f"subscription {name} of workspace {workspace} {what}", markup=False)
