"""One callback: every attempt, the exact request, why it waits and what comes next."""

import shlex
from dataclasses import dataclass

from starlette.responses import Response

from dispatcher.errors import ArchiveUnavailable, InvalidInput, NotFound
from dispatcher.rules.addresses import without_query
from dispatcher.rules.attempt_errors import is_explained
from dispatcher.rules.callback import Claimed
from dispatcher.rules.request_headers import request_headers
from dispatcher.rules.subscription import Receiver
from dispatcher.store.connection import translated
from dispatcher.store.kept_body import divided
from dispatcher.store.stored_callback import StoredCallback
from tasks import engine_wiring, wiring
from tasks.actions import purge, replay
from tasks.actions.story import Story, story
from tasks.console.asking import Ask
from tasks.console.replies import SAID
from tasks.console.site import action, page
from tasks.console.words import masked, masked_path


@dataclass(frozen=True)
class Kept:
    """The request of a callback, as it would be sent now."""

    url: str
    headers: dict[str, str]
    body: str
    is_masked: bool
    problem: str = ""
    """Why the headers are not known."""

    @property
    def curl(self) -> str:
        """The command that sends it from a shell: as it is, whatever curl or the shell make of such characters."""
        options = "".join(f" \\\n  -H {_word(f'{name}: {value}')}" for name, value in self.headers.items())
        return f"curl -X POST --globoff {_word(self.url)}{options} \\\n  --data-raw {_word(self.body)}"


def _word(text: str) -> str:
    """A text as a word of a shell; one with unprintable characters as bash and zsh have it, `$'…'`, so that it shows them."""
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_escaped(one) for one in text) + "'"


def _escaped(one: str) -> str:
    if one.isprintable():
        return f"\\{one}" if one in "\\'" else one
    return "".join(f"\\x{byte:02x}" for byte in one.encode())


@page("/callback", customers=True)
async def shown(ask: Ask) -> Response:
    """The story of one callback."""
    store = await ask.store()
    given, event_id = ask.needs("workspace", "id")
    workspace = ask.workspace(given)
    found = await story(store, workspace, event_id, ask.settings.max_attempts, ask.away)
    if found is None and ask.problem:
        raise ArchiveUnavailable(f"Redis knows nothing of event {event_id}, and {ask.problem}")
    if found is None:
        raise NotFound(
            f"there is no event {event_id} of workspace {workspace}: it was never accepted (its status causes no callback, "
            "it was rejected, or it still waits on the queue), or its retention is over"
        )
    return ask.page(
        "callback.html",
        f"Callback {event_id}",
        story=found,
        event=found.event,
        kept=await _kept(ask, store, found),
        rows=_rows(found.event),
        text=_kept_text(found.event, is_portal=ask.is_portal),
    )


@dataclass(frozen=True)
class KeptText:
    """What is kept of the last attempt that left a text."""

    text: str
    is_ours: bool
    """Whether it says why there was no answer."""


def _kept_text(event: StoredCallback, *, is_portal: bool) -> KeptText | None:
    """The receiver's last answer, or why there was none. A text of ours, which names our settings and addresses, is not for customers.

    An answer without a body leaves the text of the attempt before it: customers see none if any of the attempts may have left ours.
    """
    left = [one for one in event.attempts if one.http_status or is_explained(one.error)]
    if not event.answer or (is_portal and any(is_explained(one.error) for one in left)):
        return None
    return KeptText(event.answer, bool(left) and is_explained(left[-1].error))


def _rows(event: StoredCallback) -> list[dict[str, object]]:
    """The attempts, each with its number since the last replay."""
    rows: list[dict[str, object]] = []
    for number, attempt in enumerate(event.attempts, 1):
        again = number == event.attempts_before + 1 and bool(event.attempts_before)
        of = number - event.attempts_before * (number > event.attempts_before)
        rows.append({"number": of, "attempt": attempt, "replayed": again})
    return rows


async def _kept(ask: Ask, store: wiring.Store, found: Story) -> Kept | None:
    """The request as it would be sent now; None if its body is not kept."""
    event = found.event
    raw = await _raw(ask, store, event)
    if raw is None:
        return None
    line, _, body = raw.partition(b"\n")
    url, trace = divided(line.decode(errors="replace"))
    headers, problem = dict[str, str](), ""
    workspace = await store.workspaces.find(event.workspace)
    receiver = workspace.receiver(event.subscription) if workspace and not workspace.is_damaged else None
    if receiver is None:
        problem = "the workspace or its subscription cannot be read"
    elif ask.person.sees_numbers:
        claimed = Claimed(
            event.event_id, 1, len(event.attempts) + 1, event.expires_ms, event.event_type, event.status,
            event.message_uuid, url, body, trace=trace,
        )  # fmt: skip
        try:
            headers = request_headers(claimed, body, receiver, found.now_ms, engine_wiring.USER_AGENT)
        except (InvalidInput, ImportError) as error:  # the latter for a dialect that is not here
            problem = str(error)
        headers = {name: _shown(name, value, receiver) for name, value in headers.items()}
    text = body.decode(errors="replace")
    is_masked = not ask.person.sees_numbers
    return Kept(
        masked_path(without_query(url)) if is_masked else url,
        headers,
        masked(text) if is_masked else text,
        is_masked,
        problem,
    )


def _shown(name: str, value: str, receiver: Receiver) -> str:
    """A header's value; what proves who we are is not shown, nor what the receiver's own headers have, as in commands."""
    hidden = ("authorization", "proxy-authorization", "x-api-key", *map(str.lower, receiver.headers))
    return "…" if name.lower() in hidden else value


async def _raw(ask: Ask, store: wiring.Store, event: StoredCallback) -> bytes | None:
    """URL and body as kept, from Redis or the archive."""
    for place in await store.callbacks.present_places(event.workspace):
        with translated(place.url):
            raw: bytes | None = await place.client.get(place.keys.body(event.workspace, event.event_id))
        if raw is not None:
            return raw
    if store.archive is None:
        return None
    try:
        found = await store.archive.get([(event.workspace, event.event_id)])
    except ArchiveUnavailable as error:
        ask.away(error)
        return None
    return next((one.body for one in reversed(found) if one.body is not None), None)


@action("/callback/replay", customers=True)
async def send_again(ask: Ask) -> Response:
    """Sends one callback again."""
    store = await ask.store()
    given, event_id = ask.needs("workspace", "id")
    workspace = ask.workspace(given)
    word, id_ = await replay.replay_one(store, workspace, event_id, replay.How(ask.settings.expiry_seconds))
    return ask.go("/callback", SAID.get(word, f"It was not sent again: {word}."), workspace=workspace, id=id_)


@action("/callback/cancel")
async def cancel(ask: Ask) -> Response:
    """Ends one waiting callback as failed."""
    store = await ask.store()
    given, event_id = ask.needs("workspace", "id")
    workspace = ask.workspace(given)
    event = await store.callbacks.get(workspace, event_id)
    if event is None:
        raise NotFound(f"there is no event {event_id} of workspace {workspace}")
    count = await purge.cancel(
        store, workspace, event.endpoint, [event.pending], lambda some: some, eventId=event_id
    )
    note = (
        "It is cancelled: it ended as failed."
        if count
        else "It was not cancelled: it has ended, or is being sent."
    )
    return ask.go("/callback", note, workspace=workspace, id=event_id)
