"""Long work: its count, its confirmation, how far it is."""

from starlette.responses import Response

from dispatcher.errors import InvalidInput, NotFound
from tasks.console.asking import Ask
from tasks.console.jobs import Job
from tasks.console.site import action, page
from tasks.console.words import masked


def _job(ask: Ask) -> Job:
    found = ask.parts.jobs.get(ask.person, ask.request.path_params["id"])
    if found is None:
        raise NotFound(
            "this piece of work is not known here: it was forgotten, or the console was started again since"
        )
    return found


@page("/work", customers=True)
async def listed(ask: Ask) -> Response:
    """All pieces of work of this process."""
    return ask.page("works.html", "Work", jobs=ask.parts.jobs.of(ask.person))


@page("/work/{id}", customers=True)
async def shown(ask: Ask) -> Response:
    """One piece of work."""
    job = _job(ask)
    title = job.title if ask.person.sees_numbers else masked(job.title)
    return ask.page("work.html", title, job=job, mine=job.person.who == ask.person.who)


@action("/work/{id}/begin", customers=True)
async def begin(ask: Ask) -> Response:
    """Begins it, if the number that was confirmed is the one that was counted."""
    job = _job(ask)
    (count,) = ask.needs("count")
    if job.person.who != ask.person.who:
        raise InvalidInput(f"{job.person.name} counted this, and may begin it; count it again yourself")
    if job.state == "stopped":
        raise InvalidInput(job.said)
    if job.state != "ready" or count != str(job.progress.total):
        raise InvalidInput("this was begun or dropped already, or the number is not what was counted")
    ask.parts.jobs.begin(job)
    return ask.go(f"/work/{job.id}")


@action("/work/{id}/stop", customers=True)
async def stop(ask: Ask) -> Response:
    """Stops it where it is."""
    job = _job(ask)
    ask.parts.jobs.stop(job)
    return ask.go(f"/work/{job.id}")
