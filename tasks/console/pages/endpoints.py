"""Endpoints: where callbacks go, what waits, why; and what can be done about it."""

from collections.abc import Sequence

from starlette.responses import Response

from dispatcher.errors import InvalidInput, NotFound
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.attempt_errors import is_explained
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.subscription import DEFAULT
from dispatcher.store.audit import shown_url
from dispatcher.store.endpoints import Endpoint
from dispatcher.store.holds import held_by, problem
from dispatcher.store.replies import Stopped
from dispatcher.store.subscriptions import found as of_name
from tasks import wiring
from tasks.actions import endpoints, workspaces
from tasks.actions.ping import ping_url, url_of
from tasks.console import plots
from tasks.console.asking import Ask
from tasks.console.jobs import Chosen, Job, Progress, new_id
from tasks.console.site import action, page
from tasks.console.watch import is_troubled
from tasks.console.words import many

PAGE = 50
STATES = ("stopped", "paused", "probing", "waiting", "idle")
TROUBLE = "trouble"


@page("/endpoints", customers=True)
async def listed(ask: Ask) -> Response:
    """The endpoints, the most troubled first."""
    now = await ask.now()
    workspace, state, text = (
        ask.workspace(ask.query.get("workspace")),
        ask.query.get("state", ""),
        ask.query.get("q", ""),
    )
    found = [one for one in now.of(workspace) if _has_state(one, state) and text in one.url]
    first = _number(ask.query.get("from"))
    return ask.page(
        "endpoints.html",
        "Endpoints",
        now=now,
        found=found[first : first + PAGE],
        count=len(found),
        first=first,
        size=PAGE,
        states=(TROUBLE, *STATES),
        state=state,
        workspace=workspace,
        text=text,
        problem=problem,
    )


def _has_state(endpoint: Endpoint, state: str) -> bool:
    if state == TROUBLE:
        return is_troubled(endpoint)
    return state in ("", endpoint.state)


def _number(given: str | None) -> int:
    if given and not (given.isascii() and given.isdigit() and len(given) < 10):
        raise InvalidInput(f"a page begins at a number, not at {given[:20]!r}")
    return int(given or 0)


async def of_request(ask: Ask, store: wiring.Store) -> Endpoint:
    """The endpoint that a request names by `owner` (`acme`, `acme.crm`) and `url`. Raises NotFound."""
    owner, url = ask.needs("owner", "url")
    name = EndpointName.parse(f"{owner} {url}")
    if ask.workspace(name.workspace) != name.workspace:
        raise NotFound(f"there is no endpoint {url} of {owner}")
    return await endpoints.one(store, name.owner, name.origin)


@page("/endpoint", customers=True)
async def shown(ask: Ask) -> Response:
    """One endpoint."""
    store = await ask.store()
    endpoint = await endpoints.with_answer(store, await of_request(ask, store))
    workspace = await store.workspaces.find(endpoint.workspace)
    own = ""
    if workspace and not workspace.is_damaged:
        receiver = workspace.receiver(endpoint.subscription)
        own = receiver.callback_url if receiver else ""
    days = await store.stats.endpoint_days([endpoint.name], endpoint.now_ms)
    return ask.page(
        "endpoint.html",
        endpoint.url,
        one=endpoint,
        held=held_by(endpoint),
        problem=problem(endpoint),
        days=plots.days(days, endpoint.now_ms),
        opened=sum(one["opened"] for one in days),
        superseded=sum(one["superseded"] for one in days),
        elsewhere=await _is_elsewhere(store, endpoint, own),
        is_ours=is_explained(endpoint.last_error),
    )


async def _is_elsewhere(store: wiring.Store, endpoint: Endpoint, own: str) -> bool:
    """Whether what waits was accepted for another URL than its subscription has now; perhaps another path alone."""
    before = await store.endpoints.next_url(endpoint) if own and endpoint.waiting else None
    try:
        return bool(before) and before != parse_callback_url(own, allow_http=True).url
    except InvalidInput:
        return False


def _there(ask: Ask, endpoint: Endpoint, note: str) -> Response:
    return ask.go("/endpoint", note, owner=endpoint.owner, url=endpoint.url)


@action("/endpoint/stop")
async def stop(ask: Ask) -> Response:
    """Stops an endpoint: what goes there waits."""
    return await _stop(ask, resume=False)


@action("/endpoint/resume")
async def resume(ask: Ask) -> Response:
    """Lets a stopped endpoint go on."""
    return await _stop(ask, resume=True)


async def _stop(ask: Ask, *, resume: bool) -> Response:
    store = await ask.store()
    endpoint = await of_request(ask, store)
    word = await endpoints.stop(store, endpoint, resume=resume)
    await ask.parts.watch.renew(endpoint.name)
    what = "resumed: it sends again" if resume else "stopped: what goes there waits until it is resumed"
    return _there(
        ask, endpoint, f"The endpoint is {what}." if word is Stopped.CHANGED else "It was so already."
    )


@action("/endpoint/retry", customers=True)
async def retry(ask: Ask) -> Response:
    """Retries an endpoint now."""
    store = await ask.store()
    endpoint = await of_request(ask, store)
    found = await endpoints.retry_one(store, endpoint)
    await ask.parts.watch.renew(endpoint.name)
    if found.stopped:
        return _there(ask, endpoint, "The operator stopped it: it is not retried before it is resumed.")
    if not found.changed:
        return _there(ask, endpoint, "There was nothing to retry.")
    probed = "It is probed now. " if found.pause_ended_ms else ""
    return _there(
        ask, endpoint, f"{probed}{many(found.made_due, 'callback was', 'callbacks were')} made due."
    )


@action("/endpoint/ping", customers=True)
async def ping(ask: Ask) -> Response:
    """Sends a signed test callback, and shows the answer."""
    store = await ask.store()
    owner, url = ask.needs("owner", "url")
    name = EndpointName.parse(f"{owner} {parse_callback_url(url, allow_http=True).origin}")
    ask.workspace(name.workspace)
    known = await store.workspaces.require(name.workspace)
    of_name(known, name.subscription or DEFAULT)
    to = await url_of(store, known, parse_callback_url(url, allow_http=True), name)
    with ask.parts.pings.one(name.workspace):
        now_ms = await store.installation.now_ms()
        result = await ping_url(ask.settings, known, now_ms, to, name.subscription)
    await store.audit.add(
        "endpoint.ping", name.workspace, after={"endpoint": name.origin, "taken": result["taken"]}
    )
    return ask.page("ping.html", "Test callback", result=result, owner=owner, url=url, origin=name.origin)


@action("/endpoints/retry")
async def retry_all(ask: Ask) -> Response:
    """Counts the endpoints that match and could be retried."""
    workspace, state = ask.workspace(ask.form.get("workspace")), ask.form.get("state", "")
    text = ask.form.get("q", "")
    store = await ask.store()

    async def choose(progress: Progress) -> Chosen:
        wanted = await endpoints.to_retry(store, workspace or None, None)
        chosen = [one for one in wanted.chosen if _has_state(one, state) and text in one.url]
        left = [
            one for one in (*wanted.stopped, *wanted.paused) if _has_state(one, state) and text in one.url
        ]
        notes = (
            [
                f"{many(len(left), 'other is', 'others are')} stopped or paused by an operator, and stay{'s' * (len(left) == 1)} so."
            ]
            if left
            else []
        )

        async def act(progress: Progress) -> str:
            def steps(items: Sequence[Endpoint]) -> object:
                return progress.steps(items)

            probed, due = await endpoints.retry_all(store, workspace or None, state or None, chosen, steps)  # type: ignore[arg-type]
            await ask.parts.watch.renew()
            return (
                f"{many(probed, 'endpoint is', 'endpoints are')} probed, "
                f"{many(due, 'callback was', 'callbacks were')} made due."
            )

        return Chosen(len(chosen), act, notes)

    back = ask.url("/endpoints", workspace=workspace, state=state, q=text)
    job = Job(new_id(), "Retry endpoints now", "Retry", ("endpoint", "endpoints"), ask.person, back)
    return ask.go(f"/work/{ask.parts.jobs.count(job, choose).id}")


@action("/endpoint/move")
async def move(ask: Ask) -> Response:
    """Counts what waits for an endpoint and would go to its subscription's present URL."""
    store = await ask.store()
    endpoint = await of_request(ask, store)
    before = await store.endpoints.next_url(endpoint)
    if not before:
        raise InvalidInput("nothing waits there, so there is nothing to move")
    workspace = await store.workspaces.require(endpoint.workspace)
    own = of_name(workspace, endpoint.subscription or DEFAULT).callback_url

    async def choose(progress: Progress) -> Chosen:
        here = await workspaces.waiting_in_order(
            store, endpoint.workspace, endpoint.subscription, endpoint.id, progress.counted
        )

        async def act(progress: Progress) -> str:
            now = await store.workspaces.require(endpoint.workspace)
            if of_name(now, endpoint.subscription or DEFAULT).callback_url != own:
                raise InvalidInput("the callback URL was changed since this was counted: count again")
            moved = await workspaces.move(
                store,
                endpoint.workspace,
                before,
                here,
                lambda some: progress.steps(some, len),
                endpoint.subscription,
            )
            await ask.parts.watch.renew(endpoint.name)
            left = f"; {moved.left:,} stay: being sent, or for another URL" if moved.left else ""
            return f"{many(moved.moved, 'callback goes', 'callbacks go')} to the present URL{left}."

        notes = [f"They were accepted for {shown_url(before)} and go to {shown_url(own)} from then on."]
        return Chosen(len(here), act, notes)

    back = ask.url("/endpoint", owner=endpoint.owner, url=endpoint.url)
    title = f"Move what waits for {endpoint.url} to the subscription's present URL"
    job = Job(new_id(), title, "Move", ("callback", "callbacks"), ask.person, back)
    return ask.go(f"/work/{ask.parts.jobs.count(job, choose).id}")
