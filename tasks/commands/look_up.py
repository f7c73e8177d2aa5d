"""Resolves the host of a callback URL or a token URL as a delivery would, before it is set. Loads the transport: import it lazily."""

from config.settings import Settings
from dispatcher.errors import InvalidInput, visible
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.sending.failures import Failure, NoAnswer
from tasks import engine_wiring

SECONDS = 3.0
"""Time-out of the look-up."""


async def look_up(settings: Settings, url: str) -> str:
    """A warning if the callback URL's host has no address now; empty otherwise.

    Raises InvalidInput for a URL that deliveries may not go to.
    """
    parse_callback_url(url, allow_http=settings.allow_http)
    match await _problem(settings, url):
        case None:
            return ""
        case NoAnswer("blocked_address", text):
            raise InvalidInput(f"callback URL would be blocked: {text}; --no-check accepts it nevertheless")
        case problem:
            return _no_address("callback URL", problem)


async def look_up_token_url(settings: Settings, url: str) -> str:
    """A warning if the token URL's host has no address now; empty otherwise.

    Raises InvalidInput for a URL where no token may be fetched.
    """
    match await _problem(settings, url):
        case None:
            return ""
        case NoAnswer("blocked_address", text):
            raise InvalidInput(
                f"token URL would be blocked: {visible(text)}; --no-check accepts it nevertheless"
            )
        case problem:
            return _no_address("token URL", problem)


async def _problem(settings: Settings, url: str) -> Failure | None:
    transport = engine_wiring.transport(settings, only_looks_up=True)
    try:
        return await transport.look_up(url, SECONDS)
    finally:
        await transport.aclose()


def _no_address(what: str, problem: Failure) -> str:
    why = visible(problem.text)
    return f"warning: no address found for the {what}'s host ({why})"
