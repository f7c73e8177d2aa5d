"""Resolves a callback URL's host as a delivery would, before the URL is set. Loads the transport: import it lazily."""

from config.settings import Settings
from dispatcher.errors import InvalidInput, visible
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.sending.failures import NoAnswer
from tasks import engine_wiring

SECONDS = 3.0
"""Time-out of the look-up."""


async def look_up(settings: Settings, url: str) -> str:
    """A warning if the callback URL's host has no address now; empty otherwise.

    Raises InvalidInput for a URL that deliveries may not go to.
    """
    parse_callback_url(url, allow_http=settings.allow_http)
    transport = engine_wiring.transport(settings, only_looks_up=True)
    try:
        problem = await transport.look_up(url, SECONDS)
    finally:
        await transport.aclose()
    match problem:
        case None:
            return ""
        case NoAnswer("blocked_address", text):
            raise InvalidInput(f"callback URL would be blocked: {text}; --no-check accepts it nevertheless")
        case _:
            why = visible(problem.text).removeprefix("[Errno None] ")
            return f"warning: no address found for the callback URL's host ({why})"
