"""The HTTP API for an ASGI server: `uvicorn tasks.asgi:app`, or `dispatcher api`."""

from config import logs
from config.settings import load_or_exit
from dispatcher.status_api.app import create_app
from tasks import wiring

_settings = load_or_exit()
logs.configure(_settings.log_level, _settings.log_format)

app = create_app(lambda: wiring.api(_settings), docs=_settings.api_docs)
