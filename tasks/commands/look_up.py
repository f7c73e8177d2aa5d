"""Where a callback URL leads, looked at before it is set, as a delivery would. Loads what sends: import it where it is needed."""

from config.settings import Settings
from dispatcher.errors import InvalidInput, visible
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.sending.failures import NoAnswer
from tasks import engine_wiring

SECONDS = 3.0
"""One look-up."""


async def look_up(settings: Settings, url: str) -> str:
    """What to warn of, where a callback URL's name has no address now; empty otherwise.

    Raises InvalidInput for a URL that deliveries may not go to.
    """
    parse_callback_url(url, allow_http=settings.allow_http)
    transport = engine_wiring.transport(settings)
    try:
        problem = await transport.look_up(url, SECONDS)
    finally:
        await transport.aclose()
    match problem:
        case None:
            return ""
        case NoAnswer("blocked_address", text):
            raise InvalidInput(f"callback URL would be blocked: {text}; --no-check takes it all the same")
        case _:
            why = visible(problem.text).removeprefix("[Errno None] ")
            return f"warning: no address of the callback URL's name was found now ({why})"
