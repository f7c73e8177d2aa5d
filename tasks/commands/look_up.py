"""Where a callback URL leads, looked at before it is set, as a delivery would. Loads what sends: import it where it is needed."""

from config.settings import Settings
from dispatcher.errors import InvalidInput, visible
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.sending.transport import OwnFault, TransportFailure
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
        await transport.look_up(url, SECONDS)
    except (TransportFailure, OwnFault) as error:
        if isinstance(error, TransportFailure) and error.word == "blocked_address":
            raise InvalidInput(
                f"callback URL would be blocked: {error}; --no-check takes it all the same"
            ) from error
        why = visible(error).removeprefix("[Errno None] ")
        return f"warning: no address of the callback URL's name was found now ({why})"
    finally:
        await transport.aclose()
    return ""
