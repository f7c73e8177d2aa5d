"""Queue entries that could not be used: why, and putting them back."""

from starlette.responses import Response

from dispatcher.errors import InvalidInput
from dispatcher.rules.outcomes import REJECTIONS
from tasks.actions import rejected
from tasks.console.asking import Ask
from tasks.console.jobs import Chosen, Job, Progress, new_id
from tasks.console.site import action, page
from tasks.console.words import many

PAGE = 100
LOOKED_AT = 2000
"""Entries of a partition that a page with a filter looks at, unless it is asked for all: some 10,000 of up to 64 kB are kept."""
MOST_SHOWN = 2000
"""Characters of an entry in the list, which may have 64 kB; a page of it alone shows it whole."""


def _choice(given: dict[str, str]) -> rejected.Choice:
    if given.get("reason") and given["reason"] not in REJECTIONS:
        raise InvalidInput(f"a reason is one of {', '.join(REJECTIONS)}, not {given['reason']!r}")
    return rejected.Choice(
        given.get("entry") or None, given.get("reason") or None, given.get("workspace") or None
    )


@page("/rejected")
async def listed(ask: Ask) -> Response:
    """The newest rejected entries."""
    store = await ask.store()
    choice = _choice(dict(ask.query))
    most = None if ask.query.get("all") else LOOKED_AT
    found = await store.rejected.newest(PAGE, choice.has, most)
    return ask.page(
        "rejected.html",
        "Rejected",
        found=found,
        counts=await store.rejected.counts(),
        choice=choice,
        reasons=sorted(REJECTIONS),
        size=PAGE,
        most=most,
        most_shown=MOST_SHOWN,
    )


@action("/rejected/requeue")
async def requeue(ask: Ask) -> Response:
    """Counts the entries that match and would go back on the queue."""
    store, choice = await ask.store(), _choice(dict(ask.form))

    async def choose(progress: Progress) -> Chosen:
        ids = await rejected.to_requeue(store, choice)
        notes = ["An entry goes back as it was: if its cause is not mended, it is rejected again."]

        async def act(progress: Progress) -> str:
            done = await rejected.requeue(store, choice, ids, lambda some: progress.steps(some, len))
            left = f"; {done.left:,} were not: stored only in part, or gone" if done.left else ""
            return f"{many(done.requeued, 'entry', 'entries')} went back on the queue{left}."

        return Chosen(len(ids), act, notes)

    about = choice.entry or choice.reason or ""
    title = f"Requeue rejected entries{f' ({about})' if about else ''}"
    back = ask.url("/rejected", reason=choice.reason, workspace=choice.workspace)
    job = Job(new_id(), title, "Requeue", ("entry", "entries"), ask.person, back)
    return ask.go(f"/work/{ask.parts.jobs.count(job, choose).id}")
