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

_settings = load_or_exit()
logs.configure(_settings.log_level, _settings.log_format)
logs.guard_standard_streams()
incomplete.is_service = True
_health = Health()


@asynccontextmanager
async def _parts() -> AsyncIterator[ApiParts]:
    async with api_wiring.api(_settings) as parts, looking(_health, _settings, writes=True):
        yield parts


app = create_app(_parts, docs=_settings.api_docs, health=_health)
