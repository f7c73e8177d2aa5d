"""Subscriptions: where callbacks go, how well it goes, their secrets, test callbacks."""

from starlette.responses import Response

from dispatcher.errors import InvalidInput, NotFound
from dispatcher.rules.subscription import DEFAULT
from dispatcher.rules.workspace import Workspace
from dispatcher.store.audit import difference, is_changed
from dispatcher.store.key_rotation import OR_AT_ONCE
from dispatcher.store.subscriptions import found as of_name
from dispatcher.store.workspaces import why_damaged
from tasks import wiring
from tasks.actions import subscriptions
from tasks.actions.ping import ping_url
from tasks.console import plots
from tasks.console.access import Role
from tasks.console.asking import Ask
from tasks.console.site import action, page

MOST_ENDPOINTS = 200
"""Of a subscription that are shown and whose counters are added: URLs that come with status changes may be very many."""


def damage(ask: Ask, workspace: Workspace) -> str:
    """What is said of a workspace whose record cannot be read: how to mend it does not concern a customer."""
    return "this workspace cannot be read: tell who runs it" if ask.is_portal else why_damaged(workspace)


@page("/subscription", customers=True)
async def shown(ask: Ask) -> Response:
    """One subscription: its terms, its endpoints, and what became of its callbacks on each of the last seven days."""
    store = await ask.store()
    given, name = ask.needs("workspace", "subscription")
    known = await store.workspaces.require(ask.workspace(given))
    if known.is_damaged:
        raise InvalidInput(damage(ask, known))
    of_name(known, name)  # raises NotFound
    of = "" if name == DEFAULT else name
    now = await ask.now()
    endpoints = [each for each in now.of(known.id) if each.subscription == of]
    counted = [each.name for each in endpoints[:MOST_ENDPOINTS]]
    days = await store.stats.endpoint_days(counted, now.at_ms)
    return ask.page(
        "subscription.html",
        f"{known.id}.{name}",
        one=subscriptions.document(
            known, name, now.waiting_of(known.id)[name], allow_http=ask.settings.allow_http
        ),
        endpoints=endpoints[:MOST_ENDPOINTS],
        count=len(endpoints),
        days=plots.days(days, now.at_ms),
    )


def _named(ask: Ask) -> tuple[str, str]:
    given, name = ask.needs("workspace", "subscription")
    workspace = ask.workspace(given)
    if not workspace:
        raise NotFound("there is no such workspace")
    return workspace, name


@action("/subscription/rotate", role=Role.ADMIN, customers=True)
async def rotate(ask: Ask) -> Response:
    """Gives a subscription a new secret, which is shown once."""
    store = await ask.store()
    workspace, name = _named(ask)
    now_ms, grace = await store.installation.now_ms(), ask.settings.secret_grace_seconds
    of_name(await store.workspaces.require(workspace), name)
    try:
        changed = await _rotated(store, workspace, name, now_ms, grace)
    except InvalidInput as error:  # a page has no way to say another grace time
        raise InvalidInput(str(error).replace(OR_AT_ONCE, "")) from None
    one = of_name(changed, name)
    return ask.page(
        "secret.html",
        "New secret",
        workspace=workspace,
        name=name,
        secret=one.secrets[-1].text,
        public=subscriptions.public_key(one),
        grace=grace,
        not_copied=_not_copied(ask, changed),
    )


def _not_copied(ask: Ask, changed: Workspace) -> str:
    """What is said of a change that is not in all partitions yet; to customers nothing, and the log has it."""
    text = "" if ask.is_portal else changed.not_copied
    return f" {text[:1].upper()}{text[1:]}." if text else ""


async def _rotated(store: wiring.Store, workspace: str, name: str, now_ms: int, grace: int) -> Workspace:
    if name == DEFAULT:
        changed = await store.workspaces.rotate_secret(
            workspace, now_ms=now_ms, grace_ms=grace * 1000, secret=None
        )
        await store.audit.add("workspace.rotate_secret", workspace, *difference(changed))
    else:
        changed = await store.subscriptions.rotate_secret(
            workspace, name, now_ms=now_ms, grace_ms=grace * 1000, secret=None
        )
        await subscriptions.note(store, "rotate_secret", changed, name)
    return changed


@action("/subscription/pause", customers=True)
async def pause(ask: Ask) -> Response:
    """Lets what goes to a subscription wait."""
    store = await ask.store()
    workspace, name = _named(ask)
    changed = await store.subscriptions.pause(workspace, name)
    await subscriptions.note(store, "pause", changed, name)
    note = f"{name} is paused: its callbacks wait, until it is resumed or they expire."
    note = note if is_changed(changed) else "It was paused already."
    return ask.go("/workspace", note + _not_copied(ask, changed), id=workspace)


@action("/subscription/resume", customers=True)
async def resume(ask: Ask) -> Response:
    """Lets a paused or disabled subscription go on."""
    store = await ask.store()
    workspace, name = _named(ask)
    changed = await store.subscriptions.resume(workspace, name, store.ledger)
    await subscriptions.note(store, "resume", changed, name)
    note = f"{name} is active again." if is_changed(changed) else "It was active already."
    return ask.go("/workspace", note + _not_copied(ask, changed), id=workspace)


@action("/subscription/ping", customers=True)
async def ping(ask: Ask) -> Response:
    """Sends a signed test callback to a subscription's URL, and shows the answer."""
    store = await ask.store()
    workspace, name = _named(ask)
    known = await store.workspaces.require(workspace)
    if known.is_damaged:
        raise InvalidInput(damage(ask, known))
    url = of_name(known, name).callback_url
    if not url:
        raise InvalidInput(f"subscription {name} has no callback URL: there is nowhere to send it")
    of = "" if name == DEFAULT else name
    with ask.parts.pings.one(workspace):
        result = await ping_url(ask.settings, known, await store.installation.now_ms(), url, of)
    await store.audit.add(
        "subscription.ping", workspace, after={"subscription": name, "taken": result["taken"]}
    )
    return ask.page(
        "ping.html",
        "Test callback",
        result=result,
        owner=f"{workspace}.{of}" if of else workspace,
        url="",
        origin="",
    )
