"""What is going on: rates, what waits, who works, what is in trouble."""

from starlette.responses import Response

from dispatcher.store.holds import problem
from tasks.console import plots
from tasks.console.asking import Ask
from tasks.console.site import page
from tasks.console.watch import MINUTES, Snapshot
from tasks.console.words import many

MOST_TROUBLED = MOST_ALERTS = 10
ALERT_WORDS = {
    "callbacks_ended": "callbacks were given up",
    "endpoint_down": "endpoint is down",
    "subscription_disabled": "subscription was disabled",
    "success_rate": "low success rate",
    "client_certificate_ends": "client certificate ends",
}
"""What each kind of alert is called on the page."""
SPANS = {"hour": 1, "day": 24, "week": 168}


@page("/")
async def overview(ask: Ask) -> Response:
    """The installation at a glance."""
    now = await ask.now()
    span = ask.query.get("span", "hour")
    hours = SPANS.get(span, 1)
    figures, missing = ask.parts.figures.of_all(now.at_ms, hours) if hours > 1 else ([], 0)
    shown = [plots.minutes(now.minutes, now.at_ms)] if hours == 1 else plots.hours(figures, now.at_ms)
    return ask.page(
        "overview.html",
        "Overview",
        now=now,
        plots=shown,
        ages=plots.ages(ask.parts.watch.ages, now.at_ms, MINUTES),
        missing=missing,
        span=span if hours > 1 else "hour",
        spans=list(SPANS),
        troubled=now.troubled[:MOST_TROUBLED],
        count=len(now.troubled),
        problem=problem,
        attention=attention(now),
        alerts=await (await ask.parts.alerts()).read(MOST_ALERTS),
        alert_words=ALERT_WORDS,
        last=now.minutes[-2] if len(now.minutes) > 1 else {},
    )


def attention(now: Snapshot) -> list[str]:
    """What an operator should know first, in sentences; empty if nothing is wrong."""
    found = [f"{url} does not answer: {why}" for url, why in now.away.items()]
    if not now.workers:
        found.append("No worker is running: nothing is sent. Start one: `dispatcher worker`")
    if now.load.expiring:
        found.append(f"{many(now.load.expiring, 'callback expires', 'callbacks expire')} within an hour.")
    if now.memory.limit and now.memory.used > 0.9 * now.memory.limit:
        found.append("Redis has used more than 90 % of its memory: a full Redis takes no status changes.")
    return found
