"""The HTTP API for an ASGI server: `uvicorn tasks.asgi:app`, or `dispatcher api`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from config import logs
from config.settings import load_or_exit
from dispatcher.api.app import create_app
from dispatcher.api.responses import ApiParts
from dispatcher.health import Health
from tasks import api_wiring, incomplete
from tasks.health import looking

settings = load_or_exit()
logs.configure(settings.log_level, settings.log_format)
logs.guard_standard_streams()
incomplete.is_service = True
health = Health()


@asynccontextmanager
async def parts() -> AsyncIterator[ApiParts]:
    """What the API reads and changes, while it runs."""
    async with api_wiring.api(settings) as found, looking(health, settings, writes=True):
        yield found


app = create_app(parts, docs=settings.api_docs, health=health)
