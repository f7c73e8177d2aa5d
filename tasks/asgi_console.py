"""The HTTP API with the console below /console, for `dispatcher api --console`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.responses import RedirectResponse

from dispatcher.api.app import create_app
from dispatcher.api.responses import ApiParts
from tasks.asgi import health, parts, settings
from tasks.console.app import create_app as create_console
from tasks.console.app import open_console
from tasks.console.oidc import provider
from tasks.console.ways import Ways

PATH = "/console"

_console = create_console()


@asynccontextmanager
async def _both() -> AsyncIterator[ApiParts]:
    ways = Ways.of(settings, oidc=provider(settings))
    async with parts() as found, open_console(settings, ways, health) as _console.state.parts:
        yield found


app = create_app(_both, docs=settings.api_docs, health=health)
app.add_route(PATH, lambda _: RedirectResponse(f"{PATH}/"), include_in_schema=False)
app.mount(PATH, _console)
